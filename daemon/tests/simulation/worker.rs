//! A worker's agent: what `cnx-worker agent` does, step by step, on the real lease clock. Its attempts are in
//! `attempt.rs`, their children in `child.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use cnx_proto::lease_clock::LeaseClock;
use cnx_proto::v1::{
    Assign, FromWorker, Heartbeat, Hello, Lease, Report, StopReason, ToWorker, from_worker, to_worker,
};

use crate::attempt::{Cause, Entry};
use crate::child::Child;
use crate::faults::Fault;
use crate::network::Packet;
use crate::world::{Event, World};

/// A lease, in an order.
pub type Key = (u64, u32, String);

/// The key of a lease.
pub fn key(lease: &Lease) -> Key {
    (lease.experiment, lease.attempt, lease.token.clone())
}

/// As in the agent.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_SILENCE: Duration = Duration::from_secs(10);

/// A machine with a worker on it.
#[derive(Debug)]
pub struct Worker {
    pub name: String,
    pub slots: u32,
    /// Counts the agents that ran here.
    pub life: u64,
    pub agent: Option<Agent>,
    pub children: BTreeMap<Key, Child>,
    /// SIGSTOP: nothing happens in the agent; its children go on.
    pub stopped: bool,
    pub deferred: Vec<Event>,
    /// No packet leaves or reaches it.
    pub cut_off: bool,
    /// The spools, which outlive the agent.
    pub disk: BTreeMap<Key, Vec<Report>>,
    booted_before: Duration,
    /// How many millionths its clock is fast.
    fast_ppm: i64,
}

/// What dies with the process.
#[derive(Debug, Default)]
pub struct Agent {
    pub clock: LeaseClock,
    pub entries: BTreeMap<Key, Entry>,
    pub link: Link,
    pub assigned: u64,
    tried: u32,
    attached_at: Duration,
    /// When it looks at its leases again.
    wakes_at: Option<Duration>,
}

/// The way to the coordinator.
#[derive(Debug)]
pub enum Link {
    /// The leases that the next Hello names.
    Detached(Vec<Lease>),
    Attaching {
        connection: u64,
        held: Vec<Lease>,
        hello_at: Duration,
    },
    Attached {
        connection: u64,
        interval: Duration,
    },
}

impl Default for Link {
    fn default() -> Link {
        Link::Detached(Vec::new())
    }
}

impl Worker {
    /// A machine whose clock is a little fast or slow.
    pub fn new(index: usize, random: &mut fastrand::Rng) -> Worker {
        Worker {
            name: format!("w{index}"),
            slots: random.u32(1..=3),
            life: 0,
            agent: None,
            children: BTreeMap::new(),
            stopped: false,
            deferred: Vec::new(),
            cut_off: false,
            disk: BTreeMap::new(),
            booted_before: Duration::from_secs(random.u64(..1_000_000)),
            fast_ppm: random.i64(-5_000..=5_000),
        }
    }

    /// The time since its boot, by its own clock.
    pub fn since_boot(&self, now: Duration) -> Duration {
        let off = now.mul_f64(self.fast_ppm.unsigned_abs() as f64 / 1e6);
        self.booted_before + if self.fast_ppm < 0 { now - off } else { now + off }
    }

    /// True time from a point by its own clock, or a little later.
    pub fn true_time(&self, since_boot: Duration) -> Duration {
        let own = since_boot.saturating_sub(self.booted_before);
        own.div_f64(1.0 + self.fast_ppm as f64 / 1e6) + Duration::from_micros(50)
    }
}

impl Agent {
    /// The leases to go on with.
    pub fn held(&self) -> Vec<Lease> {
        self.entries.values().filter(|e| !e.stale).map(|e| e.lease.clone()).collect()
    }

    /// The connection it is attached on.
    pub fn connection(&self) -> Option<u64> {
        match self.link {
            Link::Attached { connection, .. } => Some(connection),
            _ => None,
        }
    }
}

impl World {
    /// Runs `does` in the agent that `event` was meant for; later, if it is stopped.
    pub fn worker_does(&mut self, worker: usize, life: u64, event: Event, does: impl FnOnce(&mut World)) {
        let at = &mut self.workers[worker];
        if at.life != life || at.agent.is_none() {
            return;
        }
        if at.stopped {
            at.deferred.push(event);
            return;
        }
        does(self);
    }

    pub fn start_agent(&mut self, worker: usize) {
        let at = &mut self.workers[worker];
        at.life += 1;
        at.stopped = false;
        at.deferred.clear();
        let mut agent = Agent::default();
        // Complete spools are told; the others belong to children that died with the agent before.
        at.disk.retain(|_, reports| reports.last().is_some_and(Entry::is_outcome));
        for reports in at.disk.values() {
            if let Some(entry) = Entry::adopted(reports) {
                agent.entries.insert(key(&entry.lease), entry);
            }
        }
        agent.link = Link::Detached(agent.held());
        let (life, adopted) = (at.life, agent.entries.len());
        at.agent = Some(agent);
        self.note(format_args!("w{worker} starts, {adopted} outcomes to tell"));
        self.after(Duration::ZERO, Event::Attach(worker, life));
    }

    /// SIGKILL: its children die with it.
    pub fn crash_agent(&mut self, worker: usize) {
        let Some(agent) = self.workers[worker].agent.take() else { return };
        self.summary.worker_crashes += 1;
        let gone: Vec<Key> = self.workers[worker].children.keys().cloned().collect();
        for key in gone {
            self.computes_no_more(worker, &key);
            self.workers[worker].children.remove(&key);
        }
        for (key, entry) in &agent.entries {
            // What was not on the disk yet when it died was not sent either.
            let torn = self.random.bool();
            if let Some(reports) = self.workers[worker].disk.get_mut(key)
                && torn
                && reports.last().is_some_and(|last| last.sequence > entry.sent)
            {
                reports.pop();
            }
        }
        match agent.link {
            Link::Attaching { connection, .. } | Link::Attached { connection, .. } => {
                self.break_off(connection)
            }
            Link::Detached(_) => {}
        }
        self.mend_later(Fault::WorkerDies(worker));
    }

    pub fn agent_goes_on(&mut self, worker: usize) {
        if !std::mem::take(&mut self.workers[worker].stopped) {
            return;
        }
        self.note(format_args!("w{worker} goes on"));
        for event in std::mem::take(&mut self.workers[worker].deferred) {
            self.after(Duration::ZERO, event);
        }
        self.reap(worker);
        self.upkeep(worker);
    }

    pub fn attach(&mut self, worker: usize) {
        let now = self.workers[worker].since_boot(self.now);
        let connection = self.network.open(worker);
        let at = &mut self.workers[worker];
        let Some(agent) = &mut at.agent else { return };
        let Link::Detached(held) = &mut agent.link else { return };
        let held = std::mem::take(held);
        agent.link = Link::Attaching { connection, held: held.clone(), hello_at: now };
        let hello = Hello {
            worker: at.name.clone(),
            host: at.name.clone(),
            device: "cpu".into(),
            slots: at.slots,
            version: "simulated".into(),
            held,
            ..Hello::default()
        };
        let life = at.life;
        self.note(format_args!("w{worker} attaches on {connection}"));
        self.send(connection, Packet::Up(FromWorker { message: Some(from_worker::Message::Hello(hello)) }));
        self.after(STEP_TIMEOUT, Event::NotAttached(worker, life, connection));
    }

    pub fn not_attached(&mut self, worker: usize, connection: u64) {
        let Some(agent) = &self.workers[worker].agent else { return };
        if matches!(agent.link, Link::Attaching { connection: on, .. } if on == connection) {
            self.break_off(connection);
            self.detached(worker);
        }
    }

    pub fn worker_loses(&mut self, worker: usize, connection: u64) {
        let Some(agent) = &self.workers[worker].agent else { return };
        let on = match agent.link {
            Link::Detached(_) => return,
            Link::Attaching { connection, .. } | Link::Attached { connection, .. } => connection,
        };
        if on == connection {
            self.detached(worker);
        }
    }

    fn detached(&mut self, worker: usize) {
        let (now, life) = (self.now, self.workers[worker].life);
        let Some(agent) = &mut self.workers[worker].agent else { return };
        if agent.connection().is_some() && now - agent.attached_at > Duration::from_secs(5) {
            agent.tried = 0;
        }
        agent.link = Link::Detached(agent.held());
        let full_ms = (50_u64 << agent.tried.min(16)).min(5_000);
        agent.tried += 1;
        let wait = self.between(full_ms / 2, full_ms);
        self.note(format_args!("w{worker} is detached"));
        self.after(wait, Event::Attach(worker, life));
    }

    pub fn worker_hears(&mut self, worker: usize, connection: u64, message: ToWorker) {
        let Some(agent) = &self.workers[worker].agent else { return };
        let Some(message) = message.message else { return };
        match &agent.link {
            Link::Attaching { connection: on, .. } if *on == connection => match message {
                to_worker::Message::Welcome(welcome) => {
                    self.welcomed(
                        worker,
                        &welcome.stale,
                        welcome.lease_ttl_ms,
                        welcome.heartbeat_interval_ms,
                    );
                }
                _ => {
                    self.break_off(connection);
                    self.detached(worker);
                }
            },
            Link::Attached { connection: on, .. } if *on == connection => self.hear(worker, message),
            _ => return,
        }
        self.upkeep(worker);
    }

    fn welcomed(&mut self, worker: usize, stale: &[Lease], ttl_ms: u64, interval_ms: u32) {
        let now = self.now;
        let life = self.workers[worker].life;
        let Some(agent) = &mut self.workers[worker].agent else { return };
        let Link::Attaching { connection, held, hello_at } = &agent.link else { return };
        let connection = *connection;
        let held: Vec<Lease> = held.iter().filter(|lease| !stale.contains(lease)).cloned().collect();
        agent.clock.welcomed(*hello_at, Duration::from_millis(ttl_ms), &held);
        agent.link = Link::Attached { connection, interval: Duration::from_millis(u64::from(interval_ms)) };
        agent.attached_at = now;
        for entry in agent.entries.values_mut() {
            entry.rewind();
        }
        self.note(format_args!("w{worker} is attached, {} held, {} stale", held.len(), stale.len()));
        for lease in stale {
            self.stale(worker, lease);
        }
        self.pump_all(worker);
        self.after(Duration::ZERO, Event::Beat(worker, life, connection));
    }

    fn hear(&mut self, worker: usize, message: to_worker::Message) {
        match message {
            to_worker::Message::Assign(assign) => self.assigned(worker, assign),
            to_worker::Message::Stop(stop) => {
                let reason = stop.reason();
                let Some(lease) = stop.lease else { return };
                match reason {
                    StopReason::Stale => self.stale(worker, &lease),
                    StopReason::Cancelled => self.ask_to_stop(worker, &key(&lease), Cause::Cancelled),
                    _ => self.ask_to_stop(worker, &key(&lease), Cause::Yield),
                }
            }
            to_worker::Message::Acknowledge(told) => {
                let Some(lease) = told.lease else { return };
                if told.accepted {
                    self.acknowledged(worker, &key(&lease), told.sequence);
                } else {
                    self.stale(worker, &lease);
                }
            }
            to_worker::Message::Heartbeat(reply) => {
                let Some(agent) = &mut self.workers[worker].agent else { return };
                agent.clock.acknowledged(reply.number);
                self.count_from_the_answer(worker);
                for lease in &reply.stale {
                    self.stale(worker, lease);
                }
            }
            _ => {}
        }
    }

    fn assigned(&mut self, worker: usize, assign: Assign) {
        let Some(lease) = assign.lease.clone() else { return };
        let Some(agent) = &mut self.workers[worker].agent else { return };
        if agent.entries.contains_key(&key(&lease)) {
            return;
        }
        let same = |e: &&Entry| e.lease.experiment == lease.experiment;
        let older: Vec<Lease> = agent.entries.values().filter(same).map(|e| e.lease.clone()).collect();
        agent.clock.granted(lease.clone());
        agent.assigned += 1;
        let predecessors = older.iter().map(key).collect();
        agent.entries.insert(key(&lease), Entry::assigned(assign, predecessors, agent.assigned));
        self.workers[worker].disk.insert(key(&lease), Vec::new());
        for older in older.iter().filter(|older| older.attempt <= lease.attempt) {
            self.stale(worker, older);
        }
    }

    pub fn beat(&mut self, worker: usize, connection: u64) {
        let now = self.workers[worker].since_boot(self.now);
        let life = self.workers[worker].life;
        let Some(agent) = &mut self.workers[worker].agent else { return };
        let Link::Attached { connection: on, interval } = agent.link else { return };
        if on != connection {
            return;
        }
        let silence = MIN_SILENCE.max(interval * 3);
        if agent.clock.unanswered_since().is_some_and(|since| now.saturating_sub(since) > silence) {
            self.break_off(connection);
            return self.detached(worker);
        }
        let leases = agent.held();
        let number = agent.clock.sent(now, leases.clone());
        let heartbeat = Heartbeat { number, leases, ..Heartbeat::default() };
        let message = Some(from_worker::Message::Heartbeat(heartbeat));
        self.send(connection, Packet::Up(FromWorker { message }));
        self.after(interval, Event::Beat(worker, life, connection));
    }

    /// Forgets attempts that are over, tells children how long their leases hold, starts what waits for a slot.
    pub fn upkeep(&mut self, worker: usize) {
        let now = self.workers[worker].since_boot(self.now);
        let at = &mut self.workers[worker];
        let Some(agent) = &mut at.agent else { return };
        let (clock, disk) = (&mut agent.clock, &mut at.disk);
        agent.entries.retain(|key, entry| {
            if entry.childless {
                clock.ended(&entry.lease);
            }
            let over = entry.is_over();
            if over {
                clock.ended(&entry.lease);
                disk.remove(key);
            }
            !over
        });
        let expired = agent.clock.take_expired(now);
        agent.clock.take_revived(now);
        let holds: Vec<(Key, Duration)> = agent
            .entries
            .values()
            .filter_map(|e| Some((key(&e.lease), agent.clock.holds(&e.lease)?.until)))
            .collect();
        let next = agent.clock.next_deadline();
        let life = at.life;
        for lease in expired {
            self.note(format_args!("w{worker} lease {} ran out here", crate::words::lease(&lease)));
        }
        for (key, until) in holds {
            self.lease_holds(worker, &key, until);
        }
        self.start_what_waits(worker);
        let next = next.map(|at| self.workers[worker].true_time(at).max(self.now + Duration::from_micros(1)));
        let (true_now, Some(agent)) = (self.now, &mut self.workers[worker].agent) else { return };
        let planned = agent.wakes_at.filter(|at| *at > true_now);
        if let Some(next) = next.filter(|next| planned.is_none_or(|planned| *next < planned)) {
            agent.wakes_at = Some(next);
            self.at(next, Event::Upkeep(worker, life));
        }
    }

    /// A lease is not ours any more: its child is killed, and its reports are forgotten.
    fn stale(&mut self, worker: usize, lease: &Lease) {
        let Some(agent) = &mut self.workers[worker].agent else { return };
        agent.clock.ended(lease);
        if let Some(entry) = agent.entries.get_mut(&key(lease)) {
            entry.stale = true;
            self.ask_to_stop(worker, &key(lease), Cause::Stale);
        }
    }
}
