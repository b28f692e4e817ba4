//! The world of one seed: true time, what is to happen, and the order in which it does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::check::Ledger;
use crate::child::Exit;
use crate::daemon::{Daemon, LineId, OpId};
use crate::faults::{Fault, Mutation, Weather};
use crate::network::{Network, Packet, Way};
use crate::people::{Call, People};
use crate::trace::Trace;
use crate::worker::{Key, Worker};

/// What is to happen. What concerns a process names the life of it that it was meant for: after a crash it is nothing.
#[derive(Debug, Clone)]
pub enum Event {
    /// A packet reaches the other end of a connection.
    Arrive(u64, Way, Packet),
    /// An attempt to attach came to nothing.
    NotAttached(usize, u64, u64),
    /// A worker's agent attaches.
    Attach(usize, u64),
    /// A worker's agent sends a heartbeat on a connection.
    Beat(usize, u64, u64),
    /// A worker's agent looks at its leases.
    Upkeep(usize, u64),
    /// A child does its next step.
    Step(usize, Key, u64),
    /// A child is gone.
    Gone(usize, Key, u64, Exit),
    /// A child's lease may have run out.
    Lapse(usize, Key, u64),
    /// The coordinator goes on with something.
    Drive(u64, OpId),
    /// The coordinator's stream has messages, or is over.
    Serve(u64, LineId),
    /// The dispatcher looks again.
    Look(u64),
    /// What waits commits.
    Commit(u64),
    /// A person does something.
    Person,
    /// A person's call reaches the coordinator.
    Called(Call),
    /// A person has waited long enough.
    Impatient(u64),
    /// A person's answer arrives.
    Answered(u64),
    /// Something goes wrong.
    Fault(Fault),
    /// What went wrong is put right.
    Mend(Fault),
    /// From now on nothing goes wrong any more.
    Calm,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Events that happened.
    pub events: u64,
    /// Of all that was traced.
    pub hash: u64,
    /// Experiments that were submitted.
    pub experiments: u64,
    /// Attempts of them.
    pub attempts: u64,
    /// Times that the coordinator crashed.
    pub crashes: u64,
    /// Times that a worker crashed.
    pub worker_crashes: u64,
    /// Reports that were acknowledged.
    pub acknowledged: u64,
    /// Reports that were refused.
    pub refused: u64,
}

/// Everything.
pub struct World {
    /// True time.
    pub now: Duration,
    pub random: fastrand::Rng,
    pub weather: Weather,
    pub mutation: Option<Mutation>,
    pub trace: Trace,
    pub daemon: Daemon,
    pub workers: Vec<Worker>,
    pub network: Network,
    pub people: People,
    pub ledger: Ledger,
    pub summary: Summary,
    agenda: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    /// The first thing that must never be.
    pub violation: Option<String>,
}

/// More events than this without an end are one that does not come.
const MOST_EVENTS: u64 = 400_000;

/// How long everything may take to end once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

impl Summary {
    /// Adds another run's.
    pub fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.experiments += other.experiments;
        self.attempts += other.attempts;
        self.crashes += other.crashes;
        self.worker_crashes += other.worker_crashes;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
    }
}

impl World {
    /// The world of `seed`, with its database in `folder`.
    pub fn new(seed: u64, folder: &Path, mutation: Option<Mutation>) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let weather = Weather::draw(&mut random);
        let daemon = Daemon::new(folder, &weather, random.u64(..), mutation);
        let workers = (0..weather.workers).map(|index| Worker::new(index, &mut random)).collect();
        World {
            now: Duration::ZERO,
            weather,
            mutation,
            trace: Trace::default(),
            daemon,
            workers,
            network: Network::default(),
            people: People::default(),
            ledger: Ledger::default(),
            summary: Summary::default(),
            agenda: BTreeMap::new(),
            scheduled: 0,
            violation: None,
            random,
        }
    }

    /// Runs to the end: faults until it calms, then until everything is final.
    ///
    /// # Errors
    /// What must never be, and was.
    pub fn run(mut self) -> Result<Summary, Failure> {
        let weather = format!("{:?}", self.weather);
        self.note(format_args!("{weather}"));
        self.start_daemon();
        for worker in 0..self.workers.len() {
            self.start_agent(worker);
        }
        self.after(Duration::ZERO, Event::Person);
        self.plan_faults();
        let calm_at = self.weather.calm_at;
        self.at(calm_at, Event::Calm);
        while self.violation.is_none() {
            let Some(((at, _), event)) = self.agenda.pop_first() else { break };
            self.daemon.clock.advance(at - self.now);
            self.now = at;
            self.summary.events += 1;
            if self.now > calm_at && self.over() {
                break;
            }
            if self.now > calm_at + PATIENCE || self.summary.events > MOST_EVENTS {
                let open = self.what_is_open();
                self.wrong(format!("not everything ended: {open}"));
                break;
            }
            self.handle(event);
        }
        if self.violation.is_none() {
            self.check_database(true);
        }
        self.stop_daemon();
        self.summary.hash = self.trace.hash();
        match self.violation.take() {
            None => Ok(self.summary),
            Some(what) => Err(Failure { what, tail: self.trace.tail(), events: self.summary.events }),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(connection, way, packet) => self.arrive(connection, way, packet),
            Event::Drive(life, op) if self.daemon.lives(life) => self.daemon_does(event, |w| w.drive(op)),
            Event::Serve(life, line) if self.daemon.lives(life) => self.daemon_does(event, |w| w.serve(line)),
            Event::Look(life) if self.daemon.lives(life) => self.daemon_does(event, World::look),
            Event::Commit(life) if self.daemon.lives(life) => self.daemon_does(event, World::commit),
            Event::Drive(..) | Event::Serve(..) | Event::Look(_) | Event::Commit(_) => {}
            Event::NotAttached(worker, life, attempt) => {
                self.worker_does(worker, life, event, |w| w.not_attached(worker, attempt));
            }
            Event::Attach(worker, life) => self.worker_does(worker, life, event, |w| w.attach(worker)),
            Event::Beat(worker, life, connection) => {
                self.worker_does(worker, life, event, |w| w.beat(worker, connection));
            }
            Event::Upkeep(worker, life) => self.worker_does(worker, life, event, |w| w.upkeep(worker)),
            Event::Step(worker, key, child) => self.child_step(worker, &key, child),
            Event::Gone(worker, key, child, exit) => self.child_gone(worker, &key, child, exit),
            Event::Lapse(worker, key, child) => self.child_lapses(worker, &key, child),
            Event::Person => self.person(),
            Event::Called(call) => self.called(call),
            Event::Impatient(call) => self.impatient(call),
            Event::Answered(call) => self.answered(call),
            Event::Fault(fault) => self.fault(fault),
            Event::Mend(fault) => self.mend(fault),
            Event::Calm => self.calm(),
        }
    }

    /// Something happens `delay` from now.
    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Something happens at a point of true time.
    pub fn at(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.agenda.insert((at.max(self.now), self.scheduled), event);
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    /// Something that must never be.
    pub fn wrong(&mut self, what: String) {
        self.note(format_args!("WRONG: {what}"));
        self.violation.get_or_insert(what);
    }

    /// True so often in a hundred thousand.
    pub fn chance(&mut self, of_100k: u32) -> bool {
        self.random.u32(..100_000) < of_100k
    }

    /// A random time between two.
    pub fn between(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_micros(self.random.u64(low_ms * 1000..=high_ms * 1000))
    }

    /// Whether nothing goes wrong any more.
    pub fn is_calm(&self) -> bool {
        self.now >= self.weather.calm_at
    }
}

/// A run that showed what must never be.
#[derive(Debug)]
pub struct Failure {
    /// What that was.
    pub what: String,
    /// The last lines of the trace.
    pub tail: String,
    /// Events until then.
    pub events: u64,
}
