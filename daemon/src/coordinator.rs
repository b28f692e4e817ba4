//! What all parts of a running coordinator share, and the order in which disk and memory change.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use cnx_proto::v1::FailureClass;

use crate::chance::Chance;
use crate::config::Config;
use crate::lifecycle::Failure;
use crate::pool::{Held, Pool};
use crate::store::{Granted, Store, StoreError};

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    /// How it was started.
    pub config: Config,
    /// Its database.
    pub store: Store,
    /// Its clock and randomness.
    pub chance: Chance,
    /// Where it listens.
    pub address: SocketAddr,
    /// Since when, Unix time.
    pub started_at_ms: u64,
    /// Cancelled when it stops.
    pub stopping: CancellationToken,
    pool: Mutex<Pool>,
    /// After a restore: nothing is given out before, since leases that the backup does not know may be held.
    unsettled_until: Mutex<Option<Instant>>,
    /// Counts changes; whoever watches waits for the next.
    changes: watch::Sender<u64>,
    /// Rung when something was queued, a slot became free, or a deadline moved nearer.
    bell: Notify,
}

impl Coordinator {
    /// Takes up where the database left off: every running attempt keeps its lease, for a full time to live from
    /// now, since the coordinator's own absence must not count against its workers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn resume(
        config: Config,
        store: Store,
        chance: Chance,
        address: SocketAddr,
        stopping: CancellationToken,
    ) -> Result<Coordinator, StoreError> {
        let coordinator = Coordinator {
            config,
            address,
            started_at_ms: chance.now_ms(),
            stopping,
            pool: Mutex::default(),
            unsettled_until: Mutex::default(),
            changes: watch::Sender::new(0),
            bell: Notify::new(),
            store,
            chance,
        };
        for granted in coordinator.store.leases().await? {
            coordinator.pool().hold(coordinator.held(&granted));
        }
        if coordinator.store.is_unsettled().await? {
            let until = coordinator.chance.instant() + coordinator.config.lease_ttl;
            *coordinator.unsettled() = Some(until);
        }
        Ok(coordinator)
    }

    /// Until when nothing is given out because the database was restored, if so.
    pub fn unsettled_until(&self) -> Option<Instant> {
        *self.unsettled()
    }

    /// Every lease from before the restore has run out by now: notes that, and goes on.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.store.settled().await?;
        *self.unsettled() = None;
        Ok(())
    }

    fn unsettled(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unsettled_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers and leases. Never held across an await.
    pub fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic while it was held left no invariant broken: every change in there is one map operation.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that people may be watching.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Hears of every change from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.subscribe();
        changes.borrow_and_update();
        changes
    }

    /// Something changed that the dispatcher should look at.
    pub fn ring(&self) {
        self.bell.notify_one();
        self.changed();
    }

    /// A worker that said nothing for so long is suspect: three heartbeats did not come. Nothing but what people are told
    /// follows from it.
    pub fn suspect_after(&self) -> Duration {
        self.config.heartbeat * 3
    }

    /// Since when a worker that is suspect was not heard, Unix time.
    pub fn suspect_since_ms(&self, silence: Option<Duration>) -> Option<u64> {
        let silence = silence.filter(|silence| *silence >= self.suspect_after())?;
        Some(self.chance.now_ms().saturating_sub(millis(silence)))
    }

    /// Waits for [`Coordinator::ring`]; a ring that came before is not missed.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// A lease on disk as the pool holds it.
    pub fn held(&self, granted: &Granted) -> Held {
        let now = self.chance.instant();
        Held {
            lease: granted.lease.clone(),
            worker: granted.worker.clone(),
            renewed: now,
            deadline: now + self.config.lease_ttl,
            stopping: granted.stopping,
            room_for: None,
            since_ms: granted.since_ms,
            standing: granted.standing,
            progress: None,
            ending: false,
        }
    }
}

/// The failure of an attempt that somebody ended, for no fault of its own.
pub fn interrupted(message: String) -> Failure {
    Failure { class: FailureClass::Interrupted, message }
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The failure of a lease that ended without an outcome.
pub fn worker_lost(message: String) -> Failure {
    Failure { class: FailureClass::WorkerLost, message }
}
