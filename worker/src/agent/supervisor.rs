//! The agent's one decision maker: hears the coordinator, starts and stops attempts, keeps the lease clock.
//!
//! It goes back and forth between two loops, [`Supervisor::detached`] and [`Supervisor::attached`]; the attempts
//! (see [`super::attempt`]) go on through both.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cnx_proto::escape::printable;
use cnx_proto::lease_clock::{Holds, LeaseClock};
use cnx_proto::v1::from_worker::Message as Say;
use cnx_proto::v1::to_worker::Message as Heard;
use cnx_proto::v1::{Acknowledge, Assign, FromWorker, Heartbeat, Lease, Stop, StopReason, ToWorker};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::attach::{AttachError, Backoff, Connection, attach, explain};
use super::attempt::{Attempt, Command, Link, Room, name};
use super::boot_clock;
use super::child::Spawner;
use super::config::Config;
use super::outbox::Outbox;
use super::outcome::StopCause;
use super::refusal;

/// Commands that wait for one attempt: more than the acknowledgements that can be on the road.
const MAILBOX: usize = 256;

/// How long a stopping agent tries to tell the last outcomes.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The least time that an unanswered heartbeat is waited for.
const MIN_SILENCE: Duration = Duration::from_secs(10);

/// Supervises every attempt of this agent.
#[derive(Debug)]
pub struct Supervisor {
    room: Room,
    link: watch::Sender<Link>,
    clock: LeaseClock,
    attempts: HashMap<Lease, Entry>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    stopping: bool,
    /// When a stopping agent gives up on telling the last outcomes.
    leave_at: Option<Instant>,
    refused: u32,
}

#[derive(Debug)]
struct Entry {
    mailbox: mpsc::Sender<Command>,
    holds: watch::Sender<Holds>,
    childless: CancellationToken,
    stale: bool,
}

/// Why a connection ended.
enum Left {
    Lost(String),
    Done,
}

impl Supervisor {
    /// A supervisor that attaches with `config` and stops in good order when `stop` is cancelled.
    ///
    /// # Errors
    /// When the thread that starts children cannot be started.
    pub fn new(config: Config, stop: CancellationToken) -> std::io::Result<Supervisor> {
        let (link, linked) = watch::channel(None);
        let room = Room {
            spawner: Spawner::start()?,
            slots: Arc::new(Semaphore::new(config.slots as usize)),
            link: linked,
            // Until a coordinator is known to be of this machine only.
            confined: Arc::new(AtomicBool::new(true)),
            changed: Arc::new(Notify::new()),
            config: Arc::new(config),
        };
        Ok(Supervisor {
            room,
            link,
            clock: LeaseClock::default(),
            attempts: HashMap::new(),
            tasks: JoinSet::new(),
            stop,
            stopping: false,
            leave_at: None,
            refused: 0,
        })
    }

    /// Takes over an attempt that is over, whose reports an earlier agent could not tell.
    pub fn adopt(&mut self, lease: Lease, outbox: Outbox) {
        let attempt = self.enter(&lease);
        self.tasks.spawn(attempt.tell(outbox));
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// When the first coordinator that answers refuses the token.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        let mut was_attached = false;
        while let Some(connection) = self.detached(&mut backoff, was_attached).await? {
            was_attached = true;
            let attached_at = Instant::now();
            let left = self.attached(connection).await;
            self.link.send_replace(None);
            match left {
                Left::Done => return Ok(()),
                Left::Lost(why) => {
                    let going_on = if self.living() > 0 { "; training goes on" } else { "" };
                    tracing::warn!("detached: {why}{going_on}");
                }
            }
            // A coordinator that welcomes us only to hang up at once must not be hammered.
            if attached_at.elapsed() > Duration::from_secs(5) {
                backoff.reset();
            }
        }
        Ok(())
    }

    /// Until attached; `None` when the agent is done.
    async fn detached(
        &mut self,
        backoff: &mut Backoff,
        was_attached: bool,
    ) -> anyhow::Result<Option<Connection>> {
        let mut told = String::new();
        loop {
            let at_once = !was_attached && told.is_empty();
            let wait = if at_once { Duration::ZERO } else { backoff.next(fastrand::f64()) };
            let config = self.room.config.clone();
            let held = self.held();
            let attempt = async move {
                tokio::time::sleep(wait).await;
                attach(&config, held).await
            };
            tokio::pin!(attempt);
            let result = loop {
                self.upkeep();
                if self.stopping && self.living() == 0 {
                    self.say_untold();
                    return Ok(None);
                }
                tokio::select! {
                    result = &mut attempt => break result,
                    () = self.wake() => {}
                }
            };
            match result {
                Ok(connection) => return Ok(Some(connection)),
                Err(AttachError::Refused(why)) if !was_attached => anyhow::bail!("{why}"),
                Err(error) => {
                    let why = error.to_string();
                    if why != told {
                        tracing::warn!("not attached, trying again: {why}");
                        told = why;
                    }
                }
            }
        }
    }

    /// Until the connection is lost, or the agent is done.
    async fn attached(&mut self, mut connection: Connection) -> Left {
        let interval = self.welcome(&connection).await;
        let mut beat = tokio::time::interval(interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = MIN_SILENCE.max(interval * 3);
        let mut drain_told = false;
        loop {
            self.upkeep();
            if self.stopping && !drain_told {
                drain_told = true;
                self.beat(&connection);
            }
            if self.done() {
                self.say_untold();
                return Left::Done;
            }
            tokio::select! {
                heard = connection.inbound.message() => match heard {
                    Ok(Some(ToWorker { message: Some(message) })) => self.hear(message, &connection).await,
                    Ok(Some(_)) => tracing::debug!("the coordinator said something that this version does not know"),
                    Ok(None) => return Left::Lost(format!("the coordinator at {} hung up", connection.url)),
                    Err(status) => return Left::Lost(format!("{}: {}", connection.url, explain(&status))),
                },
                _ = beat.tick() => {
                    let now = boot_clock::now();
                    if self.clock.unanswered_since().is_some_and(|since| now.saturating_sub(since) > silence) {
                        return Left::Lost(format!("the coordinator at {} did not answer for {silence:?}", connection.url));
                    }
                    self.beat(&connection);
                }
                () = self.wake() => {}
            }
        }
    }

    /// Takes in the verdict on what Hello named, and lets the attempts speak. Returns the heartbeat interval.
    async fn welcome(&mut self, connection: &Connection) -> Duration {
        let welcome = &connection.welcome;
        let held: Vec<Lease> =
            connection.held.iter().filter(|lease| !welcome.stale.contains(lease)).cloned().collect();
        self.clock.welcomed(connection.hello_at, Duration::from_millis(welcome.lease_ttl_ms), &held);
        for lease in &welcome.stale {
            self.stale(lease, "the coordinator gave it to another attempt, or does not know it").await;
        }
        self.room.confined.store(connection.confined, Ordering::Relaxed);
        self.link.send_replace(Some(connection.reports.clone()));
        let stale = welcome.stale.len();
        tracing::info!(
            "attached to {} as {}; {} held, {stale} stale",
            connection.url,
            self.room.config.name,
            held.len()
        );
        Duration::from_millis(u64::from(welcome.heartbeat_interval_ms.clamp(10, 60_000)))
    }

    async fn hear(&mut self, message: Heard, connection: &Connection) {
        match message {
            Heard::Welcome(_) => tracing::debug!("a second welcome"),
            Heard::Assign(assign) => self.assign(assign, connection).await,
            Heard::Stop(Stop { lease: Some(lease), reason }) => match StopReason::try_from(reason) {
                Ok(StopReason::Stale) => self.stale(&lease, "the coordinator said so").await,
                Ok(StopReason::Paused) => {
                    tracing::info!("{}: to be paused", name(&lease));
                    self.tell(&lease, Command::Stop(StopCause::Paused)).await;
                }
                Ok(StopReason::Preempted) => {
                    tracing::info!("{}: preempted by a higher priority", name(&lease));
                    self.tell(&lease, Command::Stop(StopCause::Preempted)).await;
                }
                // An unknown reason is one of a newer version; the lease is still ours to report on.
                _ => {
                    tracing::info!("{}: cancelled", name(&lease));
                    self.tell(&lease, Command::Stop(StopCause::Cancelled)).await;
                }
            },
            Heard::Acknowledge(Acknowledge { lease: Some(lease), sequence, accepted, reason }) => {
                if accepted {
                    self.tell(&lease, Command::Acknowledged(sequence)).await;
                } else {
                    let reason = printable(&reason);
                    self.stale(&lease, &format!("report {sequence} was refused: {reason}")).await;
                }
            }
            Heard::Heartbeat(reply) => {
                self.clock.acknowledged(reply.number);
                for lease in &reply.stale {
                    self.stale(lease, "it is not ours any more").await;
                }
            }
            Heard::Stop(_) | Heard::Acknowledge(_) => tracing::debug!("a message without a lease"),
        }
    }

    async fn assign(&mut self, assign: Assign, connection: &Connection) {
        let Some(lease) = assign.lease.clone() else {
            return tracing::error!("the coordinator assigned something without a lease; ignored");
        };
        if self.attempts.contains_key(&lease) {
            return tracing::debug!("{}: assigned again; it runs already", name(&lease));
        }
        if self.stopping {
            return refusal::hand_back(&lease, &mut self.refused, &connection.reports);
        }
        let same = |other: &&Lease| other.experiment == lease.experiment && **other != lease;
        let older: Vec<Lease> = self.attempts.keys().filter(same).cloned().collect();
        let mut predecessors = Vec::new();
        for older in older {
            predecessors.extend(self.attempts.get(&older).map(|entry| entry.childless.clone()));
            if older.attempt <= lease.attempt {
                self.stale(&older, "a later attempt was assigned").await;
            }
        }
        tracing::info!("{}: assigned", name(&lease));
        self.clock.granted(lease.clone());
        let attempt = self.enter(&lease);
        self.tasks.spawn(attempt.run(assign, predecessors));
    }

    fn enter(&mut self, lease: &Lease) -> Attempt {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let childless = CancellationToken::new();
        let (holds, held) = watch::channel(self.clock.holds(lease).unwrap_or_default());
        let entry = Entry { mailbox, holds, childless: childless.clone(), stale: false };
        self.attempts.insert(lease.clone(), entry);
        Attempt::new(self.room.clone(), lease.clone(), inbox, held, childless)
    }

    async fn tell(&self, lease: &Lease, command: Command) {
        if let Some(entry) = self.attempts.get(lease) {
            // It ended a moment ago: then it has nothing to do about it either.
            let _ = entry.mailbox.send(command).await;
        }
    }

    /// A lease is not ours any more: its child is killed, and its reports are forgotten.
    async fn stale(&mut self, lease: &Lease, why: &str) {
        self.clock.ended(lease);
        if let Some(entry) = self.attempts.get_mut(lease) {
            entry.stale = true;
            if entry.childless.is_cancelled() {
                tracing::info!("{}: nothing more to tell: {why}", name(lease));
            } else {
                tracing::warn!("{}: stopping it: {why}", name(lease));
            }
            self.tell(lease, Command::Stop(StopCause::Stale)).await;
        }
    }

    fn beat(&mut self, connection: &Connection) {
        // Without room in the queue the coordinator is far behind, and one more heartbeat would not help.
        let Ok(permit) = connection.heartbeats.try_reserve() else { return };
        let leases = self.held();
        let number = self.clock.sent(boot_clock::now(), leases.clone());
        let heartbeat = Heartbeat { number, leases, draining: self.stopping };
        permit.send(FromWorker { message: Some(Say::Heartbeat(heartbeat)) });
    }

    /// The leases to go on with: a child lives, or reports wait to be told.
    fn held(&self) -> Vec<Lease> {
        self.attempts.iter().filter(|(_, entry)| !entry.stale).map(|(lease, _)| lease.clone()).collect()
    }

    /// Attempts with a child.
    fn living(&self) -> usize {
        self.attempts.values().filter(|entry| !entry.childless.is_cancelled()).count()
    }

    /// Waits until there may be something to do for `upkeep`.
    async fn wake(&mut self) {
        let now = boot_clock::now();
        let lease_end = self.clock.next_deadline().map(|at| Instant::now() + at.saturating_sub(now));
        // Sleeping counts less than the lease clock while the machine is suspended: look again now and then.
        let look_again = lease_end.map(|at| at.min(Instant::now() + Duration::from_secs(10)));
        let next = [look_again, self.leave_at].into_iter().flatten().min();
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled(), if !self.stopping => {}
            () = self.room.changed.notified() => {}
            Some(ended) = self.tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!("the supervision of an attempt failed, its child is killed: {error}");
                }
            }
            () = sleep => {}
        }
    }

    /// Does what became due: forgets attempts that are over, tells the others how long their leases hold, begins to stop.
    fn upkeep(&mut self) {
        let clock = &mut self.clock;
        self.attempts.retain(|lease, entry| {
            let over = entry.mailbox.is_closed();
            if over || entry.childless.is_cancelled() {
                // What only waits to be told cannot run twice: its time may run out.
                clock.ended(lease);
            }
            !over
        });
        for (lease, entry) in &self.attempts {
            let Some(holds) = self.clock.holds(lease) else { continue };
            entry.holds.send_if_modified(|told| std::mem::replace(told, holds) != holds);
        }
        let now = boot_clock::now();
        for lease in self.clock.take_expired(now) {
            tracing::warn!(
                "{}: its lease ran out while no coordinator answered; it is parked until that proves to be still its own",
                name(&lease)
            );
        }
        for lease in self.clock.take_revived(now) {
            tracing::info!("{}: its lease is still its own; it goes on", name(&lease));
        }
        if self.stop.is_cancelled() && !self.stopping {
            self.stopping = true;
            tracing::info!("stopping; {} running", self.living());
            let all: Vec<Lease> = self.attempts.keys().cloned().collect();
            for lease in all {
                self.ask_to_stop(&lease, StopCause::Shutdown);
            }
        }
        if self.stopping && self.living() == 0 && self.leave_at.is_none() {
            self.leave_at = Some(Instant::now() + LAST_WORDS);
        }
    }

    fn ask_to_stop(&self, lease: &Lease, cause: StopCause) {
        let Some(entry) = self.attempts.get(lease) else { return };
        if entry.mailbox.try_send(Command::Stop(cause)).is_err() {
            tracing::error!("{}: cannot be told to stop: it does not listen", name(lease));
        }
    }

    fn done(&self) -> bool {
        self.stopping
            && self.living() == 0
            && (self.attempts.is_empty() || self.leave_at.is_some_and(|at| at <= Instant::now()))
    }

    fn say_untold(&self) {
        if !self.attempts.is_empty() {
            tracing::warn!(
                "{} outcomes could not be told; they are kept in {} and told by the next agent named {}",
                self.attempts.len(),
                self.room.config.spool_folder().display(),
                self.room.config.name
            );
        }
    }
}
