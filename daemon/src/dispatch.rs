//! Gives queued experiments to free slots, and takes back leases that ran out. Woken by events and by the one
//! deadline that comes next; it never polls.

use std::time::{Duration, Instant};

use cnx_proto::v1::{Assign, FailureClass, StopReason, to_worker};

use crate::coordinator::{Coordinator, worker_lost};
use crate::lifecycle::Failure;
use crate::pool::Held;
use crate::schedule;
use crate::store::{Assignment, Granted, Interrupted, StoreError};

/// Leases given in one transaction. More than these wait for the next round, which follows at once.
const MAX_ROUND: u32 = 256;

/// Length of a lease's token in bytes.
const TOKEN_BYTES: usize = 16;

/// How long to leave the database alone after it failed: this at first, doubling up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Runs until the coordinator stops.
pub async fn run(coordinator: &Coordinator) {
    let mut pause = FIRST_PAUSE;
    let mut standstill = Standstill::new(coordinator);
    loop {
        standstill.excuse(coordinator);
        let wake_at = match round(coordinator).await {
            Ok(wake_at) => {
                pause = FIRST_PAUSE;
                wake_at
            }
            Err(error) => {
                tracing::error!("nothing was dispatched: {error}; trying again in {pause:?}");
                tokio::select! {
                    () = coordinator.stopping.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                    () = standstill.watch(coordinator) => {}
                }
                pause = MAX_PAUSE.min(pause * 2);
                continue;
            }
        };
        let deadline = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = coordinator.stopping.cancelled() => return,
            () = coordinator.rung() => {}
            () = deadline => {}
            () = standstill.watch(coordinator) => {}
        }
    }
}

/// Notices that the coordinator itself stood still: it was stopped, or starved, while the clock of its leases went on. What
/// its workers said meanwhile waits to be read, and they could not attach: so that time does not count, just as the time
/// between two lives of the coordinator does not.
#[derive(Debug)]
struct Standstill {
    /// How often it looks at the clock.
    every: Duration,
    looked: Instant,
}

impl Standstill {
    fn new(coordinator: &Coordinator) -> Standstill {
        Standstill { every: coordinator.config.heartbeat, looked: coordinator.chance.instant() }
    }

    /// Looks at the clock again and again; ends once it stood still.
    async fn watch(&mut self, coordinator: &Coordinator) {
        loop {
            tokio::time::sleep(self.every).await;
            if self.lost(coordinator).is_some() {
                return;
            }
            self.looked = coordinator.chance.instant();
        }
    }

    /// Gives all leases the time that was lost.
    fn excuse(&mut self, coordinator: &Coordinator) {
        if let Some(lost) = self.lost(coordinator) {
            tracing::warn!("stood still for {lost:?}: leases last so much longer");
            coordinator.pool().excuse(lost);
        }
        self.looked = coordinator.chance.instant();
    }

    fn lost(&self, coordinator: &Coordinator) -> Option<Duration> {
        let gap = coordinator.chance.instant().saturating_duration_since(self.looked);
        (gap >= coordinator.suspect_after()).then_some(gap)
    }
}

/// One look at everything: ends leases that ran out, gives what waits to free slots, and tells when to look again if
/// nothing happens before.
///
/// # Errors
/// When the database cannot be read or written.
pub async fn round(coordinator: &Coordinator) -> Result<Option<Instant>, StoreError> {
    end_expired(coordinator).await?;
    match coordinator.unsettled_until() {
        Some(until) if until > coordinator.chance.instant() => {
            let lease_ends = coordinator.pool().next_deadline();
            return Ok(lease_ends.into_iter().chain([until]).min());
        }
        Some(_) => coordinator.settle().await?,
        None => {}
    }
    while assign(coordinator).await? {}
    preempt(coordinator).await?;
    let (lease_ends, free_slots) = {
        let pool = coordinator.pool();
        (pool.next_deadline(), pool.summary().free_slots)
    };
    // Without a free slot a back-off that ends changes something only for what may preempt.
    let backoff_ends = next_backoff(coordinator, free_slots == 0).await?;
    Ok(lease_ends.into_iter().chain(backoff_ends).min())
}

async fn next_backoff(coordinator: &Coordinator, preempting: bool) -> Result<Option<Instant>, StoreError> {
    let now_ms = coordinator.chance.now_ms();
    let next_ms = coordinator.store.next_backoff_ms(now_ms, preempting).await?;
    Ok(next_ms.map(|ms| coordinator.chance.instant() + Duration::from_millis(ms - now_ms)))
}

async fn end_expired(coordinator: &Coordinator) -> Result<(), StoreError> {
    let expired = coordinator.pool().expired(coordinator.chance.instant());
    if expired.is_empty() {
        return Ok(());
    }
    let lost: Vec<_> = expired.iter().map(|held| lost(coordinator, held)).collect();
    let done = coordinator.store.interrupt(&lost, coordinator.chance.now()).await;
    let mut pool = coordinator.pool();
    for held in &expired {
        match &done {
            Ok(()) => {
                tracing::warn!(experiment = held.lease.experiment, worker = held.worker, "lease ran out");
                // If the worker hears this at all, its child must go.
                pool.stop(held.lease.experiment, StopReason::Stale);
                pool.release(&held.lease);
            }
            Err(_) => pool.not_ended(&held.lease, coordinator.chance.instant()),
        }
    }
    drop(pool);
    coordinator.changed();
    done
}

fn lost(coordinator: &Coordinator, held: &Held) -> Interrupted {
    let ttl = humantime::format_duration(coordinator.config.lease_ttl);
    let message = format!("no heartbeat of worker {} for {ttl}", held.worker);
    Interrupted { lease: held.lease.clone(), failure: worker_lost(message) }
}

/// Gives out leases for one transaction's worth of slots; whether there may be more to give.
async fn assign(coordinator: &Coordinator) -> Result<bool, StoreError> {
    let (workers, shares) = {
        let mut pool = coordinator.pool();
        pool.suspect(coordinator.chance.instant(), coordinator.suspect_after());
        (pool.free(), pool.shares())
    };
    if workers.is_empty() {
        return Ok(false);
    }
    let now = coordinator.chance.now();
    let candidates = coordinator.store.candidates(&workers, &shares, now.ms, MAX_ROUND).await?;
    let mut assignments = Vec::new();
    for found in schedule::assign(&candidates, &workers, &shares).into_iter().take(MAX_ROUND as usize) {
        let token = coordinator
            .chance
            .hex(TOKEN_BYTES)
            .map_err(|e| StoreError::Unexpected(format!("the system has no randomness: {e}")))?;
        assignments.push(Assignment { experiment: found.experiment, worker: found.worker, token });
    }
    if assignments.is_empty() {
        return Ok(false);
    }
    coordinator.pool().granting(assignments.iter().map(|assignment| assignment.experiment));
    let granted = coordinator.store.lease(&assignments, now).await;
    let some = granted.as_ref().is_ok_and(|granted| !granted.is_empty());
    let sent = match granted {
        Ok(granted) => send(coordinator, granted).await,
        Err(error) => Err(error),
    };
    coordinator.pool().granted();
    sent?;
    coordinator.changed();
    Ok(some)
}

/// Frees slots for what may preempt and found none.
async fn preempt(coordinator: &Coordinator) -> Result<(), StoreError> {
    let now = coordinator.chance.now();
    let wanting = coordinator.store.preempting(now.ms).await?;
    if wanting.is_empty() {
        return Ok(());
    }
    let (workers, running) = {
        let pool = coordinator.pool();
        (pool.workers(), pool.holdings())
    };
    let chosen = schedule::preempt(&wanting, &workers, &running);
    if chosen.is_empty() {
        return Ok(());
    }
    let experiments: Vec<u64> = chosen.iter().map(|p| p.experiment).collect();
    let stopping = coordinator.store.preempt(&experiments, now).await?;
    let mut pool = coordinator.pool();
    for preemption in chosen.into_iter().filter(|p| stopping.contains(&p.experiment)) {
        tracing::info!(experiment = preemption.experiment, room_for = preemption.room_for, "preempted");
        pool.preempt(preemption);
    }
    drop(pool);
    coordinator.changed();
    Ok(())
}

/// Tells workers of the leases that are now on disk, and takes back at once what could not be told.
async fn send(coordinator: &Coordinator, granted: Vec<Granted>) -> Result<(), StoreError> {
    let mut untold = Vec::new();
    for lease in granted {
        let (held, worker) = (coordinator.held(&lease), lease.worker.clone());
        tracing::info!(experiment = held.lease.experiment, attempt = held.lease.attempt, worker, "leased");
        let assign = Assign {
            lease: Some(lease.lease.clone()),
            spec_json: lease.spec_json,
            lineage: lease.lineage,
            artifacts_url: coordinator.config.artifacts_url.clone(),
        };
        // Held and sent under one lock: a worker that attaches in between either has it in its new stream or
        // finds it missing from what it holds.
        let mut pool = coordinator.pool();
        pool.hold(held);
        if !pool.send(&worker, to_worker::Message::Assign(assign)) {
            untold.push((lease.lease, worker));
        } else if let Some(why) = pool.held(lease.lease.experiment).and_then(|held| held.stopping) {
            pool.stop(lease.lease.experiment, why.reason());
        }
    }
    if untold.is_empty() {
        return Ok(());
    }
    let interrupted = |(lease, worker): &(_, String)| Interrupted {
        lease: Clone::clone(lease),
        failure: Failure {
            class: FailureClass::Interrupted,
            message: format!("worker {worker} left before it heard of it"),
        },
    };
    let interrupted: Vec<_> = untold.iter().map(interrupted).collect();
    // If this fails, the leases run out by themselves.
    coordinator.store.interrupt(&interrupted, coordinator.chance.now()).await?;
    let mut pool = coordinator.pool();
    for (lease, _) in &untold {
        pool.release(lease);
    }
    Ok(())
}
