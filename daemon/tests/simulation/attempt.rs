//! One lease at a worker, from its assignment until the coordinator has its last report: what the agent's attempt,
//! outbox and spool do.

use std::collections::BTreeSet;

use cnx_proto::v1::outcome::Kind;
use cnx_proto::v1::{Assign, FailureClass, FromWorker, Lease, Outcome, Report, from_worker, report::Body};

use crate::child::Exit;
use crate::faults::Mutation;
use crate::network::Packet;
use crate::worker::{Key, key};
use crate::world::World;

/// Durable reports on the road at once, a lease.
const WINDOW: u64 = 64;

/// Why a child was stopped. Later ones override earlier ones, as in the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Paused, or preempted.
    Yield,
    Cancelled,
    Stale,
}

/// One lease.
#[derive(Debug, Default)]
pub struct Entry {
    pub lease: Lease,
    /// What is to be started, until it is.
    assign: Option<Assign>,
    /// Their children must be gone first.
    predecessors: Vec<Key>,
    order: u64,
    pub childless: bool,
    pub stale: bool,
    forget: bool,
    cause: Option<Cause>,
    reported: Option<Outcome>,
    last: u64,
    acknowledged: u64,
    ahead: BTreeSet<u64>,
    pub sent: u64,
}

impl Entry {
    /// Of an assignment.
    pub fn assigned(assign: Assign, predecessors: Vec<Key>, order: u64) -> Entry {
        let lease = assign.lease.clone().unwrap_or_default();
        Entry { lease, assign: Some(assign), predecessors, order, ..Entry::default() }
    }

    /// Of a spool that an earlier agent left.
    pub fn adopted(reports: &[Report]) -> Option<Entry> {
        let (first, last) = (reports.first()?, reports.last()?);
        let told = first.sequence - 1;
        Some(Entry {
            lease: first.lease.clone()?,
            childless: true,
            last: last.sequence,
            acknowledged: told,
            sent: told,
            ..Entry::default()
        })
    }

    /// Whether this is the last report of an attempt.
    pub fn is_outcome(report: &Report) -> bool {
        matches!(report.body, Some(Body::Outcome(_)))
    }

    /// A new connection: what is not acknowledged is told again.
    pub fn rewind(&mut self) {
        self.sent = self.acknowledged;
        self.ahead.clear();
    }

    /// Nothing lives and nothing is left to tell.
    pub fn is_over(&self) -> bool {
        self.childless && (self.forget || self.acknowledged == self.last)
    }
}

impl World {
    /// The coordinator has a report on its disk.
    pub fn acknowledged(&mut self, worker: usize, key: &Key, sequence: u64) {
        let at = &mut self.workers[worker];
        let Some(entry) = at.agent.as_mut().and_then(|agent| agent.entries.get_mut(key)) else { return };
        if sequence <= entry.acknowledged || sequence > entry.sent {
            return;
        }
        entry.ahead.insert(sequence);
        while entry.ahead.remove(&(entry.acknowledged + 1)) {
            entry.acknowledged += 1;
        }
        if entry.acknowledged == entry.last
            && let Some(spool) = at.disk.get_mut(key)
        {
            spool.clear();
        }
        self.pump(worker, key);
    }

    /// Sends what may be sent of every attempt.
    pub fn pump_all(&mut self, worker: usize) {
        let Some(agent) = &self.workers[worker].agent else { return };
        for key in agent.entries.keys().cloned().collect::<Vec<_>>() {
            self.pump(worker, &key);
        }
    }

    fn pump(&mut self, worker: usize, key: &Key) {
        let at = &mut self.workers[worker];
        let Some(agent) = &mut at.agent else { return };
        let Some(connection) = agent.connection() else { return };
        let (Some(entry), Some(spool)) = (agent.entries.get_mut(key), at.disk.get(key)) else { return };
        let mut out = Vec::new();
        while entry.sent < entry.last && entry.sent < entry.acknowledged + WINDOW {
            entry.sent += 1;
            out.extend(spool.iter().find(|report| report.sequence == entry.sent).cloned());
        }
        for report in out {
            let message = Some(from_worker::Message::Report(report));
            self.send(connection, Packet::Up(FromWorker { message }));
        }
    }

    /// Keeps reports on the worker's disk, then tells them.
    fn keep(&mut self, worker: usize, key: &Key, bodies: Vec<Body>) {
        let at_ms = self.now.as_millis() as u64;
        let at = &mut self.workers[worker];
        let Some(entry) = at.agent.as_mut().and_then(|agent| agent.entries.get_mut(key)) else { return };
        let spool = at.disk.entry(key.clone()).or_default();
        for body in bodies {
            entry.last += 1;
            spool.push(Report {
                lease: Some(entry.lease.clone()),
                sequence: entry.last,
                at_ms,
                body: Some(body),
            });
        }
        self.pump(worker, key);
    }

    /// Starts children of what waits for a slot, in the order of assignment.
    pub fn start_what_waits(&mut self, worker: usize) {
        loop {
            let at = &self.workers[worker];
            let Some(agent) = &at.agent else { return };
            if at.children.len() >= at.slots as usize {
                return;
            }
            let now = at.since_boot(self.now);
            let ready = |entry: &&crate::attempt::Entry| {
                let gone = |key: &Key| agent.entries.get(key).is_none_or(|e| e.childless);
                let holds = agent.clock.holds(&entry.lease).is_some_and(|holds| now < holds.until);
                entry.assign.is_some() && holds && entry.predecessors.iter().all(gone)
            };
            let Some(next) = agent.entries.values().filter(ready).min_by_key(|e| e.order) else { return };
            let (next, until) = (key(&next.lease), agent.clock.holds(&next.lease).map(|holds| holds.until));
            let agent = self.workers[worker].agent.as_mut();
            let entry = agent.and_then(|agent| agent.entries.get_mut(&next));
            let Some(assign) = entry.and_then(|entry| entry.assign.take()) else { return };
            self.spawn(worker, next, &assign, until.unwrap_or_default());
        }
    }

    /// Stops a child, or what was to become one.
    pub fn ask_to_stop(&mut self, worker: usize, key: &Key, cause: Cause) {
        let agent = self.workers[worker].agent.as_mut();
        let Some(entry) = agent.and_then(|agent| agent.entries.get_mut(key)) else { return };
        if entry.childless {
            entry.forget |= cause == Cause::Stale;
            return;
        }
        entry.cause = entry.cause.max(Some(cause));
        if entry.assign.take().is_some() {
            return self.finish(worker, key, Exit::NotStarted);
        }
        if cause == Cause::Stale { self.kill(worker, key) } else { self.terminate(worker, key) }
    }

    /// Takes in what children said and how they ended.
    pub fn reap(&mut self, worker: usize) {
        let keys: Vec<Key> = self.workers[worker].children.keys().cloned().collect();
        for key in keys {
            self.take_in(worker, &key);
        }
        self.start_what_waits(worker);
    }

    /// Sorts what a child said; its outcome is kept back until it is gone.
    pub fn take_in(&mut self, worker: usize, key: &Key) {
        let at = &mut self.workers[worker];
        if at.stopped {
            return;
        }
        let Some(child) = at.children.get_mut(key) else { return };
        let (said, exit) = (std::mem::take(&mut child.said), child.exit);
        let Some(entry) = at.agent.as_mut().and_then(|agent| agent.entries.get_mut(key)) else { return };
        let mut durable = Vec::new();
        let mut early = None;
        for body in said {
            match body {
                Body::Outcome(outcome) => {
                    entry.reported.get_or_insert(outcome.clone());
                    early = Some(outcome);
                }
                body => durable.push(body),
            }
        }
        if self.mutation == Some(Mutation::TellsTooEarly) {
            durable.extend(early.map(Body::Outcome));
        }
        self.keep(worker, key, durable);
        if let Some(exit) = exit {
            self.workers[worker].children.remove(key);
            self.finish(worker, key, exit);
        }
    }

    /// The child is gone, or never was: what that means is kept, to be told.
    fn finish(&mut self, worker: usize, key: &Key, exit: Exit) {
        let agent = self.workers[worker].agent.as_mut();
        let Some(entry) = agent.and_then(|agent| agent.entries.get_mut(key)) else { return };
        entry.childless = true;
        let outcome = decide(exit, entry.reported.take(), entry.cause);
        match outcome {
            None => entry.forget = true,
            Some(outcome) => self.keep(worker, key, vec![Body::Outcome(outcome)]),
        }
        self.note(format_args!("w{worker} {}.{} is without a child: {exit:?}", key.0, key.1));
        self.upkeep(worker);
    }
}

/// As `decide` of the agent's `outcome.rs`.
fn decide(exit: Exit, reported: Option<Outcome>, cause: Option<Cause>) -> Option<Outcome> {
    let failed = |class: FailureClass| {
        let message = "simulated".to_owned();
        Some(Outcome { kind: Kind::Failed.into(), failure: class.into(), message })
    };
    let succeeded = |outcome: &Outcome| outcome.kind() == Kind::Succeeded;
    match (reported, cause) {
        (_, Some(Cause::Stale)) => None,
        (Some(outcome), _) if succeeded(&outcome) => Some(outcome),
        (_, Some(Cause::Cancelled)) => Some(Outcome { kind: Kind::Cancelled.into(), ..Outcome::default() }),
        (Some(outcome), _) => Some(outcome),
        (None, Some(Cause::Yield)) => failed(FailureClass::Interrupted),
        (None, None) if exit == Exit::Signal => failed(FailureClass::Signal),
        (None, None) => failed(FailureClass::Internal),
    }
}
