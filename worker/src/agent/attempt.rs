//! One lease, from its assignment until the coordinator has its last report: an actor that owns the child process
//! and the outbox, and is told what to do by the supervisor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cnx_proto::lease_clock::Holds;
use cnx_proto::v1::from_worker::Message;
use cnx_proto::v1::{Assign, FromWorker, Lease, LogLine, Outcome, Phase, Report, report::Body};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::boot_clock;
use super::child::{Child, Event, Said, Spawner};
use super::config::Config;
use super::outbox::Outbox;
use super::outcome::{Ending, Exit, StopCause, decide, summary};
use super::spool::Spool;

/// The way to the coordinator; `None` while there is none. A changed value is a new connection.
pub type Link = Option<mpsc::Sender<FromWorker>>;

/// Between two progress reports of one lease.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How often a lease is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Lines of the child's log that an unexplained end quotes.
const LAST_LINES: usize = 10;

/// What the supervisor tells an attempt.
#[derive(Debug)]
pub enum Command {
    /// The coordinator has this report on its disk.
    Acknowledged(u64),
    /// Stop the child.
    Stop(StopCause),
}

/// What every attempt needs.
#[derive(Debug, Clone)]
pub struct Room {
    /// The agent's.
    pub config: Arc<Config>,
    /// Starts the child.
    pub spawner: Spawner,
    /// One permit a slot; held until the child's exit is confirmed and its outcome kept.
    pub slots: Arc<Semaphore>,
    /// The way to the coordinator.
    pub link: watch::Receiver<Link>,
    /// Whether the coordinator that assigned last may serve other machines too.
    pub confined: Arc<AtomicBool>,
    /// Woken when a child is gone.
    pub changed: Arc<Notify>,
}

/// The actor.
#[derive(Debug)]
pub struct Attempt {
    room: Room,
    lease: Lease,
    mailbox: mpsc::Receiver<Command>,
    /// Cancelled when no child lives.
    childless: CancellationToken,
    /// How long the lease holds.
    holds: watch::Receiver<Holds>,
    outbox: Outbox,
    tx: Link,
    child: Option<Child>,
    /// The child says that it computes nothing until the lease holds again.
    parked: bool,
    /// The child was frozen since the lease was last renewed.
    frozen: bool,
    reported: Option<Outcome>,
    cause: Option<StopCause>,
    spool_error: Option<String>,
    bad_reports: Option<String>,
    last_lines: VecDeque<String>,
    kill_at: Option<Instant>,
    progress: Option<Report>,
    progress_at: Instant,
    /// The lease is not ours: everything about it is to be forgotten.
    forget: bool,
}

impl Attempt {
    /// The attempt of `lease`, which is told things through `mailbox` and `holds`, and cancels `childless`.
    pub fn new(
        room: Room,
        lease: Lease,
        mailbox: mpsc::Receiver<Command>,
        holds: watch::Receiver<Holds>,
        childless: CancellationToken,
    ) -> Attempt {
        Attempt {
            room,
            lease,
            mailbox,
            childless,
            holds,
            outbox: Outbox::default(),
            tx: None,
            child: None,
            parked: false,
            frozen: false,
            reported: None,
            cause: None,
            spool_error: None,
            bad_reports: None,
            last_lines: VecDeque::new(),
            kill_at: None,
            progress: None,
            progress_at: Instant::now(),
            forget: false,
        }
    }

    /// Runs the assignment, once the children of `predecessors` are gone and a slot is free.
    pub async fn run(mut self, assign: Assign, predecessors: Vec<CancellationToken>) {
        match Spool::create(&self.room.config.spool_folder(), &self.lease) {
            Ok(spool) => self.outbox = Outbox::new(spool, 1, 0),
            Err(error) => self.spool_failed(&error),
        }
        let slot = self.wait_for_turn(predecessors).await;
        if slot.is_some() {
            self.start(assign).await;
        } else {
            self.finish(Exit::NotStarted("it was stopped before".to_owned())).await;
        }
        self.serve(slot).await;
    }

    /// Tells what an earlier agent left of an attempt that is over.
    pub async fn tell(mut self, outbox: Outbox) {
        self.outbox = outbox;
        self.childless.cancel();
        self.serve(None).await;
    }

    async fn wait_for_turn(&mut self, predecessors: Vec<CancellationToken>) -> Option<OwnedSemaphorePermit> {
        let (slots, mut holds) = (self.room.slots.clone(), self.holds.clone());
        let turn = async move {
            for childless in predecessors {
                childless.cancelled().await;
            }
            let slot = slots.acquire_owned().await.ok();
            // It may have run out meanwhile.
            holds.wait_for(|holds| boot_clock::now() < holds.until).await.ok()?;
            slot
        };
        tokio::pin!(turn);
        while self.cause.is_none() {
            tokio::select! {
                slot = &mut turn => return slot,
                command = next_command(&mut self.mailbox) => self.obey(command),
            }
        }
        None
    }

    async fn start(&mut self, assign: Assign) {
        let name = self.name();
        let command = self.room.config.child_command(self.room.confined.load(Ordering::Relaxed));
        match self.room.spawner.spawn(&command, &assign, self.holds.clone()).await {
            Ok(child) => {
                tracing::info!("{name}: started as process {}", child.pid());
                self.child = Some(child);
            }
            Err(error) => self.finish(Exit::NotStarted(format!("{error:#}"))).await,
        }
    }

    /// Until there is no child and nothing left to tell.
    async fn serve(mut self, mut slot: Option<OwnedSemaphorePermit>) {
        self.tx.clone_from(&self.room.link.borrow_and_update());
        self.outbox.rewind();
        loop {
            if self.child.is_none() {
                slot.take();
                if !self.childless.is_cancelled() {
                    self.childless.cancel();
                    self.room.changed.notify_one();
                }
                if self.forget || self.outbox.is_empty() {
                    break;
                }
            }
            let progress_due = self.progress.is_some() && self.tx.is_some();
            let (may_compute, time_to_freeze) = (self.may_compute(), self.time_to_freeze());
            tokio::select! {
                command = next_command(&mut self.mailbox) => self.obey(command),
                changed = self.room.link.changed() => {
                    self.tx = if changed.is_ok() { self.room.link.borrow_and_update().clone() } else { None };
                    self.outbox.rewind();
                }
                event = next_event(&mut self.child) => match event {
                    Event::Said(said) => self.take_in(said).await,
                    Event::Ended(exit) => {
                        self.child = None;
                        self.finish(exit).await;
                    }
                },
                permit = reserve(self.tx.clone()), if self.outbox.has_next() => match permit {
                    Some(permit) => match self.outbox.next_report() {
                        Ok(report) => {
                            permit.send(from_worker(report));
                        }
                        Err(error) => self.spool_unreadable(&error),
                    },
                    None => self.tx = None,
                },
                () = tokio::time::sleep_until(self.progress_at), if progress_due => self.send_progress(),
                renewed = self.holds.changed(), if self.child.is_some() => match renewed {
                    Ok(()) => self.frozen = false,
                    // Without a supervisor this task is about to be dropped.
                    Err(_) => std::future::pending().await,
                },
                () = tokio::time::sleep(time_to_freeze), if may_compute => self.freeze(),
                () = until(self.kill_at) => {
                    self.kill_at = None;
                    if let Some(child) = &self.child {
                        tracing::warn!("{}: the child did not stop within {:?}; killing it", self.name(), self.room.config.grace);
                        child.kill();
                    }
                }
            }
        }
        self.outbox.remove();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Acknowledged(sequence) => self.outbox.acknowledge(sequence),
            Command::Stop(cause) => self.stop(cause),
        }
    }

    fn stop(&mut self, cause: StopCause) {
        if self.childless.is_cancelled() {
            // It is over and only being told: nothing but staleness matters any more.
            self.forget |= cause == StopCause::Stale;
            return;
        }
        self.cause = self.cause.max(Some(cause));
        let Some(child) = &self.child else { return };
        if cause == StopCause::Stale {
            child.kill();
        } else if self.frozen && !self.parked {
            // To end in good order it would have to compute.
            tracing::warn!("{}: the child is frozen in the middle of its work; killing it", self.name());
            child.kill();
        } else if self.kill_at.is_none() {
            child.terminate();
            // What is parked has its checkpoint, and only has to say so.
            if self.frozen {
                child.wake();
            }
            self.kill_at = Some(Instant::now() + self.room.config.grace);
        }
    }

    /// Whether there is a child that may compute something. What is parked and ends does not.
    fn may_compute(&self) -> bool {
        self.child.is_some() && !(self.parked && self.cause.is_some())
    }

    /// Until when it may. Looks again now and then: this sleep counts less than the lease clock while the machine is suspended,
    /// and somebody else may wake what is frozen.
    fn time_to_freeze(&self) -> Duration {
        if self.frozen {
            return LOOK_AGAIN;
        }
        let forced_at = self.holds.borrow().forced_at;
        forced_at.saturating_sub(boot_clock::now()).min(LOOK_AGAIN)
    }

    /// Sees to it that the child computes nothing beyond its lease, whatever it does.
    fn freeze(&mut self) {
        let Some(child) = &self.child else { return };
        if boot_clock::now() < self.holds.borrow().forced_at {
            return;
        }
        let first = !std::mem::replace(&mut self.frozen, true);
        if self.cause.is_some() {
            tracing::warn!("{}: the child did not stop before its lease was over; killing it", self.name());
            child.kill();
            return;
        }
        // Looked at once more where nobody wakes it meanwhile: the lease may have been renewed just now.
        child.freeze(|| boot_clock::now() >= self.holds.borrow().forced_at);
        if first && !self.parked {
            tracing::warn!(
                "{}: the child did not park before its lease was over; it is frozen until the lease holds again",
                self.name()
            );
        }
    }

    /// Sorts what the child said, and keeps the durable part of it on disk.
    async fn take_in(&mut self, said: Vec<Said>) {
        let mut durable = Vec::new();
        for said in said {
            match said {
                Said::Report(report) => self.sort(*report, &mut durable),
                Said::Line(text) => {
                    if self.last_lines.len() == LAST_LINES {
                        self.last_lines.pop_front();
                    }
                    self.last_lines.push_back(text.clone());
                    let line = LogLine { at_ms: unix_ms(), attempt: self.lease.attempt, text };
                    durable.push(self.report(line.at_ms, Body::Log(line)));
                }
                Said::Garbage(why) => {
                    self.bad_reports.get_or_insert(why);
                    if let Some(child) = &self.child {
                        child.kill();
                    }
                }
            }
        }
        self.keep(durable).await;
    }

    fn sort(&mut self, mut report: Report, durable: &mut Vec<Report>) {
        report.lease = Some(self.lease.clone());
        report.sequence = 0;
        match report.body {
            Some(Body::Progress(progress)) => {
                self.parked = progress.phase() == Phase::Parked;
                self.progress = Some(report);
            }
            // Kept back until the exit is confirmed: the coordinator may fill the slot as soon as it knows.
            Some(Body::Outcome(outcome)) => {
                self.reported.get_or_insert(outcome);
                self.kill_at.get_or_insert(Instant::now() + self.room.config.grace);
            }
            _ => durable.push(report),
        }
    }

    async fn keep(&mut self, reports: Vec<Report>) {
        if reports.is_empty() || self.spool_error.is_some() {
            return;
        }
        if let Err(error) = self.push(reports).await {
            self.spool_failed(&error);
        }
    }

    /// Puts durable reports on the disk. The disk may be slow, so this happens beside the runtime.
    async fn push(&mut self, mut reports: Vec<Report>) -> std::io::Result<()> {
        let mut outbox = std::mem::take(&mut self.outbox);
        let kept = tokio::task::spawn_blocking(move || {
            let kept = outbox.push(&mut reports);
            (outbox, kept)
        });
        match kept.await {
            Ok((outbox, kept)) => {
                self.outbox = outbox;
                kept
            }
            Err(error) => {
                // A defect: the outbox is gone, and with it the count of the reports.
                self.forget = true;
                self.cause = Some(StopCause::Stale);
                Err(std::io::Error::other(error))
            }
        }
    }

    /// The attempt cannot go on without its reports: it will be reported as failed, and told anew by the next one.
    fn spool_failed(&mut self, error: &std::io::Error) {
        tracing::error!("{}: its reports cannot be kept, stopping it: {error}", self.name());
        self.spool_error = Some(error.to_string());
        self.stop(StopCause::SpoolFailed);
    }

    /// Damage to the spool while it is in use: the coordinator must not see a gap, so the lease is given up.
    fn spool_unreadable(&mut self, error: &std::io::Error) {
        tracing::error!("{}: its reports cannot be read back, giving it up: {error}", self.name());
        self.forget = true;
        self.stop(StopCause::Stale);
    }

    /// The child is gone, or never was: decide what that means, and keep it to be told.
    async fn finish(&mut self, exit: Exit) {
        self.kill_at = None;
        self.progress = None;
        let exit = self.bad_reports.take().map_or(exit, Exit::BadReports);
        let name = self.name();
        let how = exit.to_string();
        let outcome = decide(Ending {
            exit,
            reported: self.reported.take(),
            cause: self.cause,
            last_lines: self.last_lines.make_contiguous(),
            spool_error: self.spool_error.clone(),
        });
        let Some(outcome) = outcome else {
            tracing::info!("{name}: ended ({how}); the lease is not ours any more, nothing is reported");
            self.forget = true;
            return;
        };
        tracing::info!("{name}: {} ({how})", summary(&outcome));
        let report = self.report(unix_ms(), Body::Outcome(outcome));
        if let Err(error) = self.push(vec![report.clone()]).await {
            tracing::error!("{name}: its outcome is kept in memory only: {error}");
            self.outbox.push_unspooled(report);
        }
    }

    fn send_progress(&mut self) {
        self.progress_at = Instant::now() + PROGRESS_INTERVAL;
        let Some(permit) = self.tx.as_ref().and_then(|tx| tx.try_reserve().ok()) else { return };
        if let Some(report) = self.progress.take() {
            permit.send(from_worker(report));
        }
    }

    fn report(&self, at_ms: u64, body: Body) -> Report {
        Report { lease: Some(self.lease.clone()), sequence: 0, at_ms, body: Some(body) }
    }

    fn name(&self) -> String {
        name(&self.lease)
    }
}

/// A lease in the agent's log.
pub fn name(lease: &Lease) -> String {
    format!("experiment {}, attempt {}", lease.experiment, lease.attempt)
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn from_worker(report: Report) -> FromWorker {
    FromWorker { message: Some(Message::Report(report)) }
}

/// The next command. Without a supervisor there is none, and this task is about to be dropped: nothing may happen to
/// its spool, which the next agent goes on from.
async fn next_command(mailbox: &mut mpsc::Receiver<Command>) -> Command {
    match mailbox.recv().await {
        Some(command) => command,
        None => std::future::pending().await,
    }
}

async fn next_event(child: &mut Option<Child>) -> Event {
    match child {
        Some(child) => child.next().await,
        None => std::future::pending().await,
    }
}

/// Room for one message; `None` when the connection is gone.
async fn reserve(tx: Link) -> Option<mpsc::OwnedPermit<FromWorker>> {
    match tx {
        Some(tx) => tx.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
