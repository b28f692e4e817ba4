//! Who is connected and who holds what, in memory: a mirror of the running attempts in the database, with the
//! deadlines and progress that need no disk. Pure but for the channels it hands messages to; time comes in.
//!
//! A lease enters after its commit and leaves after the commit that ended it. Where the two disagree for a moment,
//! the database decides: every report is fenced there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use cnx_proto::v1::{Hello, Lease, Progress, Report, Stop, StopReason, ToWorker, to_worker};

use crate::lifecycle::Stopping;
use crate::limits::Said;
use crate::schedule::{self, Capacity, Holding, Preemption, Shares};
use crate::store::Standing;

/// Messages on their way to a worker; one that lags behind by so many is cut off and attaches anew.
pub const MAX_BACKLOG: usize = 1024;

/// Messages to a worker.
pub type Outbound = mpsc::Sender<Result<ToWorker, Status>>;

/// Connected workers and leases.
#[derive(Debug, Default)]
pub struct Pool {
    workers: BTreeMap<String, Worker>,
    leases: BTreeMap<u64, Held>,
    /// Experiments whose lease is on its way to the disk, and why they are to stop, if that came up
    /// meanwhile.
    granting: BTreeMap<u64, Option<Stopping>>,
    streams: u64,
    /// By worker: the newest of its streams that was its stream.
    newest: BTreeMap<String, u64>,
    /// What the running attempt of each experiment has said since this coordinator started.
    said: BTreeMap<u64, Said>,
}

/// A worker's open stream.
#[derive(Debug)]
struct Worker {
    has: Capacity,
    slots: u32,
    /// Tells this stream from an earlier one of the same name.
    stream: u64,
    outbound: Outbound,
    /// Ends the stream.
    cut: CancellationToken,
    /// It is stopping: nothing more is assigned on this stream.
    draining: bool,
    /// When it last said anything.
    heard: Instant,
    /// That was too long ago: nothing is assigned to it until it is heard again.
    suspect: bool,
}

impl Worker {
    fn free(&self, busy: u32) -> u32 {
        if self.draining || self.suspect { 0 } else { self.slots.saturating_sub(busy) }
    }
}

/// A lease that is held.
#[derive(Debug, Clone)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// By whom.
    pub worker: String,
    /// When it was given or last renewed.
    pub renewed: Instant,
    /// When it runs out unless renewed.
    pub deadline: Instant,
    /// It is to stop, and why.
    pub stopping: Option<Stopping>,
    /// Since when, Unix time.
    pub since_ms: u64,
    /// For whom it was preempted.
    pub room_for: Option<u64>,
    /// What the schedule goes by.
    pub standing: Standing,
    /// The newest that its worker told.
    pub progress: Option<Progress>,
    /// It ran out and is being ended: no renewal comes in time.
    pub ending: bool,
}

/// The numbers that status shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Connected workers.
    pub workers: u32,
    /// Slots of connected workers that run something.
    pub busy_slots: u32,
    /// Slots of connected workers that wait for work.
    pub free_slots: u32,
}

impl Pool {
    /// The number of a new stream: higher than of those before it.
    pub fn open(&mut self) -> u64 {
        self.streams += 1;
        self.streams
    }

    /// The leases that a worker should hold and did not name. Its earlier stream, if any, ends: nothing is assigned to
    /// it until [`Pool::join`]. None if a later stream came before: then this one was given up by its worker long ago,
    /// and what it says is only late.
    pub fn claim(&mut self, hello: &Hello, stream: u64) -> Option<Vec<Lease>> {
        let newest = self.newest.entry(hello.worker.clone()).or_default();
        if *newest > stream {
            return None;
        }
        *newest = stream;
        if let Some(earlier) = self.workers.remove(&hello.worker) {
            earlier.cut.cancel();
        }
        let lost =
            self.leases.values().filter(|h| h.worker == hello.worker && !hello.held.contains(&h.lease));
        Some(lost.map(|h| h.lease.clone()).collect())
    }

    /// Connects a worker on a stream that `cut` ends, unless a later one came in between; whether it did. Leases
    /// that are to stop are told so.
    pub fn join(
        &mut self,
        hello: &Hello,
        stream: u64,
        outbound: Outbound,
        cut: CancellationToken,
        now: Instant,
    ) -> bool {
        if self.newest.get(&hello.worker).is_some_and(|newest| *newest > stream) {
            return false;
        }
        let worker = Worker {
            has: Capacity::new(&hello.device, hello.memory_gib, hello.labels.clone()),
            slots: hello.slots,
            stream,
            outbound,
            cut,
            draining: false,
            heard: now,
            suspect: false,
        };
        self.workers.insert(hello.worker.clone(), worker);
        let own = self.leases.values().filter(|h| h.worker == hello.worker);
        let stopping = own.filter_map(|h| Some((h.lease.experiment, h.stopping?)));
        for (experiment, why) in stopping.collect::<Vec<_>>() {
            self.stop(experiment, why.reason());
        }
        true
    }

    /// Disconnects a worker, unless a newer stream took over; whether it did.
    pub fn leave(&mut self, worker: &str, stream: u64) -> bool {
        let current = self.workers.get(worker).is_some_and(|w| w.stream == stream);
        if current {
            self.workers.remove(worker);
        }
        current
    }

    /// Assigns nothing more on this stream: its worker is stopping.
    pub fn drain(&mut self, worker: &str, stream: u64) {
        if let Some(worker) = self.workers.get_mut(worker).filter(|w| w.stream == stream) {
            worker.draining = true;
        }
    }

    /// A worker said something on this stream; whether it was suspect.
    pub fn heard(&mut self, worker: &str, stream: u64, now: Instant) -> bool {
        let Some(worker) = self.workers.get_mut(worker).filter(|w| w.stream == stream) else { return false };
        worker.heard = now;
        std::mem::take(&mut worker.suspect)
    }

    /// Assigns nothing to workers that were not heard for so long, until they are: they would sit on a lease.
    pub fn suspect(&mut self, now: Instant, silence: Duration) {
        for worker in self.workers.values_mut() {
            worker.suspect = now.saturating_duration_since(worker.heard) >= silence;
        }
    }

    /// How long ago a worker was last heard: what it said while it is connected, else when it last renewed a lease. None
    /// if it is away and holds nothing, since then nothing depends on it.
    pub fn silence(&self, worker: &str, now: Instant) -> Option<Duration> {
        let heard = match self.workers.get(worker) {
            Some(connected) => Some(connected.heard),
            None => self.leases.values().filter(|h| h.worker == worker).map(|h| h.renewed).max(),
        };
        heard.map(|heard| now.saturating_duration_since(heard))
    }

    /// The coordinator itself stood still for so long: that does not count against any worker.
    pub fn excuse(&mut self, standstill: Duration) {
        for held in self.leases.values_mut() {
            held.renewed += standstill;
            held.deadline += standstill;
        }
        for worker in self.workers.values_mut() {
            worker.heard += standstill;
        }
    }

    /// Renews leases of a worker; tells those that are not its own.
    pub fn renew(&mut self, worker: &str, leases: &[Lease], now: Instant, ttl: Duration) -> Vec<Lease> {
        let mut stale = Vec::new();
        for lease in leases {
            match self.leases.get_mut(&lease.experiment) {
                Some(held) if held.lease == *lease && held.worker == worker && !held.ending => {
                    held.renewed = now;
                    held.deadline = now + ttl;
                }
                _ => stale.push(lease.clone()),
            }
        }
        stale
    }

    /// Leases of these are about to be committed. Who stops one between its commit and [`Pool::hold`] finds no lease
    /// here yet; that is remembered until [`Pool::granted`].
    pub fn granting(&mut self, experiments: impl IntoIterator<Item = u64>) {
        self.granting = experiments.into_iter().map(|experiment| (experiment, None)).collect();
    }

    /// All of them are held, or will not be.
    pub fn granted(&mut self) {
        self.granting.clear();
    }

    /// Takes in a lease that is on disk.
    pub fn hold(&mut self, mut held: Held) {
        held.stopping = self.granting.remove(&held.lease.experiment).flatten().or(held.stopping);
        self.said.remove(&held.lease.experiment);
        self.leases.insert(held.lease.experiment, held);
    }

    /// Lets go of a lease that ended, unless a later attempt holds the experiment.
    pub fn release(&mut self, lease: &Lease) {
        if self.leases.get(&lease.experiment).is_some_and(|held| held.lease == *lease) {
            self.leases.remove(&lease.experiment);
            self.said.remove(&lease.experiment);
        }
    }

    /// Counts what is reported of a lease that this worker holds. Of any other the database decides.
    ///
    /// # Errors
    /// When its attempt has said too much.
    pub fn admit(&mut self, worker: &str, report: &mut Report) -> Result<(), String> {
        let Some(lease) = &report.lease else { return Ok(()) };
        match self.leases.get(&lease.experiment) {
            Some(held) if held.lease == *lease && held.worker == worker => {
                self.said.entry(lease.experiment).or_default().admit(report)
            }
            _ => Ok(()),
        }
    }

    /// Notes progress, if the lease is this worker's.
    pub fn progress(&mut self, worker: &str, lease: &Lease, progress: Progress) -> bool {
        match self.leases.get_mut(&lease.experiment) {
            Some(held) if held.lease == *lease && held.worker == worker => {
                held.progress = Some(progress);
                true
            }
            _ => false,
        }
    }

    /// The lease of an experiment.
    pub fn held(&self, experiment: u64) -> Option<&Held> {
        self.leases.get(&experiment)
    }

    /// All leases, by experiment.
    pub fn all_held(&self) -> impl Iterator<Item = &Held> {
        self.leases.values()
    }

    /// The leases of a worker.
    pub fn leases_of(&self, worker: &str) -> Vec<Lease> {
        self.leases.values().filter(|h| h.worker == worker).map(|h| h.lease.clone()).collect()
    }

    /// Whether a worker is connected.
    pub fn is_connected(&self, worker: &str) -> bool {
        self.workers.contains_key(worker)
    }

    /// Takes note that an experiment is to stop, and tells its worker.
    pub fn ask_to_stop(&mut self, experiment: u64, why: Stopping) {
        // Both: beside the lease that is being granted, one that just ended may still be here.
        if let Some(stopping) = self.granting.get_mut(&experiment) {
            *stopping = Some(why);
        }
        if let Some(held) = self.leases.get_mut(&experiment) {
            held.stopping = Some(why);
        }
        self.stop(experiment, why.reason());
    }

    /// Takes note that an experiment makes room for another, and tells its worker.
    pub fn preempt(&mut self, preemption: Preemption) {
        if let Some(held) = self.leases.get_mut(&preemption.experiment) {
            held.room_for = Some(preemption.room_for);
        }
        self.ask_to_stop(preemption.experiment, Stopping::Yield);
    }

    /// Leases that ran out; they are being ended from now on.
    pub fn expired(&mut self, now: Instant) -> Vec<Held> {
        let mut out = Vec::new();
        for held in self.leases.values_mut().filter(|h| !h.ending && h.deadline <= now) {
            held.ending = true;
            out.push(held.clone());
        }
        out
    }

    /// Ending a lease failed (the disk): tried again at `deadline`.
    pub fn not_ended(&mut self, lease: &Lease, deadline: Instant) {
        if let Some(held) = self.leases.get_mut(&lease.experiment).filter(|h| h.lease == *lease) {
            held.ending = false;
            held.deadline = deadline;
        }
    }

    /// When the next lease runs out.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.leases.values().filter(|h| !h.ending).map(|h| h.deadline).min()
    }

    /// Tells the worker of an experiment to stop it.
    pub fn stop(&mut self, experiment: u64, reason: StopReason) {
        let Some(held) = self.leases.get(&experiment) else { return };
        let stop = Stop { lease: Some(held.lease.clone()), reason: reason.into() };
        let worker = held.worker.clone();
        // Not connected: it hears of it when it attaches.
        self.send(&worker, to_worker::Message::Stop(stop));
    }

    /// Hands a message to a worker; whether it is on its way. A worker that lags too far behind is cut off.
    pub fn send(&mut self, worker: &str, message: to_worker::Message) -> bool {
        let Some(connected) = self.workers.get(worker) else { return false };
        let sent = connected.outbound.try_send(Ok(ToWorker { message: Some(message) })).is_ok();
        if !sent {
            connected.cut.cancel();
            self.workers.remove(worker);
        }
        sent
    }

    /// The connected workers, as the schedule sees them.
    pub fn workers(&self) -> Vec<schedule::Worker> {
        self.seen(|_| true)
    }

    /// Those with slots that wait for work. There may be a thousand that have none.
    pub fn free(&self) -> Vec<schedule::Worker> {
        self.seen(|free_slots| free_slots > 0)
    }

    fn seen(&self, wanted: impl Fn(u32) -> bool) -> Vec<schedule::Worker> {
        let busy = self.busy();
        let view = |(name, worker): (&String, &Worker)| {
            let (slots, memory_gib) = busy.get(name.as_str()).copied().unwrap_or_default();
            let free_slots = worker.free(slots);
            wanted(free_slots).then(|| schedule::Worker {
                name: name.clone(),
                has: worker.has.clone(),
                slots: worker.slots,
                free_slots,
                free_memory_gib: worker.has.memory_gib.saturating_sub(memory_gib),
                draining: worker.draining,
                suspect: worker.suspect,
            })
        };
        self.workers.iter().filter_map(view).collect()
    }

    /// How many experiments of each sweep run.
    pub fn shares(&self) -> Shares {
        let mut shares = Shares::new();
        for held in self.leases.values() {
            *shares.entry(u64::try_from(held.standing.share).unwrap_or(0)).or_default() += 1;
        }
        shares
    }

    /// What runs on connected workers that are heard: those could stop it.
    pub fn holdings(&self) -> Vec<Holding> {
        let connected = self.leases.values().filter(|h| !h.ending && self.heeds(&h.worker));
        let holding = |held: &Held| Holding {
            experiment: held.lease.experiment,
            priority: held.standing.priority,
            worker: held.worker.clone(),
            memory_gib: held.standing.memory_gib,
            since_ms: held.since_ms,
            stopping: held.stopping.is_some(),
            room_for: held.room_for,
        };
        connected.map(holding).collect()
    }

    fn heeds(&self, worker: &str) -> bool {
        self.workers.get(worker).is_some_and(|w| !w.suspect)
    }

    /// The numbers that status shows.
    pub fn summary(&self) -> Summary {
        let busy = self.busy();
        let mut sum = Summary::default();
        for (name, worker) in &self.workers {
            let (busy, _) = busy.get(name.as_str()).copied().unwrap_or_default();
            sum.workers += 1;
            sum.busy_slots += busy;
            sum.free_slots += worker.free(busy);
        }
        sum
    }

    /// Slots and memory that are taken, by worker.
    fn busy(&self) -> BTreeMap<&str, (u32, u32)> {
        let mut busy: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for held in self.leases.values() {
            let (slots, memory_gib) = busy.entry(held.worker.as_str()).or_default();
            *slots += 1;
            *memory_gib = memory_gib.saturating_add(held.standing.memory_gib);
        }
        busy
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
