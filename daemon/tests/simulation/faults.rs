//! What goes wrong, how often, and how it is put right. Each seed draws its own weather, so that some runs are full of
//! crashes, some of cut cables, and some of nothing but slow messages.

use std::time::Duration;

use crate::world::{Event, World};

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct Weather {
    pub workers: usize,
    pub submissions: u32,
    pub lease_ttl: Duration,
    pub heartbeat: Duration,
    /// Longest time between two things that people do.
    pub idle_ms: u64,
    /// Longest epoch of a child.
    pub epoch_ms: u64,
    /// When nothing goes wrong any more.
    pub calm_at: Duration,
    /// Of 100,000 messages.
    pub lost: u32,
    pub twice: u32,
    pub slow: u32,
    pub slowest_ms: u64,
    /// Of 100,000 commits: crashes before, and after.
    pub dies_before: u32,
    pub dies_after: u32,
    /// Of 100 attempts.
    pub fails: u32,
    /// Mean time between faults of each kind in milliseconds; 0: none.
    pub every: Vec<(Fault, u64)>,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    DaemonDies,
    /// SIGSTOP, or a suspended machine.
    DaemonStops,
    /// Somebody sets the coordinator's wall clock.
    ClockJumps,
    WorkerDies(usize),
    WorkerStops(usize),
    /// A pulled cable.
    CutOff(usize),
    Breaks(usize),
    /// Somebody or something kills a child.
    ChildDies(usize),
    ChildStops(usize),
}

/// A defect put in on purpose, which some check has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The coordinator acknowledges a report before its commit.
    AcknowledgesBeforeCommit,
    /// The coordinator answers a submission before its commit.
    AnswersBeforeCommit,
    /// The coordinator believes that a lease ran out in half its time.
    ExpiresEarly,
    /// The coordinator does not look at attempt and token of what workers report.
    SkipsTheFence,
    /// The coordinator ends the leases of a worker when its connection ends.
    RelaunchesTheSilent,
    /// A worker does not stop when its lease runs out.
    WorksOn,
    /// A worker tells the outcome before the child is gone.
    TellsTooEarly,
    /// A worker counts its lease from the answer to a heartbeat rather than from its sending, without a margin.
    CountsFromTheAnswer,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 8] = [
        Mutation::AcknowledgesBeforeCommit,
        Mutation::AnswersBeforeCommit,
        Mutation::ExpiresEarly,
        Mutation::SkipsTheFence,
        Mutation::RelaunchesTheSilent,
        Mutation::WorksOn,
        Mutation::TellsTooEarly,
        Mutation::CountsFromTheAnswer,
    ];
}

impl Weather {
    /// Draws the weather of a seed.
    pub fn draw(random: &mut fastrand::Rng) -> Weather {
        let workers = random.usize(1..=5);
        let ttl_ms = [4_000, 20_000, 60_000][random.usize(..3)];
        let mut rate = |often: u32, rarely: u32| match random.u32(..3) {
            0 => 0,
            1 => rarely,
            _ => often,
        };
        let (lost, twice, slow) = (rate(2_000, 200), rate(5_000, 500), rate(20_000, 2_000));
        let (dies_before, dies_after) = (rate(3_000, 300), rate(3_000, 300));
        let fails = rate(40, 10);
        let calm_at = Duration::from_millis(random.u64(30_000..240_000));
        let mut every = Vec::new();
        let mut kinds =
            vec![(Fault::DaemonDies, 40_000), (Fault::DaemonStops, 60_000), (Fault::ClockJumps, 60_000)];
        for worker in 0..workers {
            kinds.extend([
                (Fault::WorkerDies(worker), 60_000),
                (Fault::WorkerStops(worker), 80_000),
                (Fault::CutOff(worker), 50_000),
                (Fault::Breaks(worker), 20_000),
                (Fault::ChildDies(worker), 40_000),
                (Fault::ChildStops(worker), 80_000),
            ]);
        }
        for (fault, mean_ms) in kinds {
            let factor = [0, 1, 1, 4][random.usize(..4)];
            if factor > 0 {
                every.push((fault, mean_ms * factor));
            }
        }
        Weather {
            workers,
            submissions: random.u32(2..12),
            lease_ttl: Duration::from_millis(ttl_ms),
            heartbeat: Duration::from_millis(ttl_ms / random.u64(4..12)),
            idle_ms: random.u64(1_000..20_000),
            epoch_ms: random.u64(200..5_000),
            calm_at,
            lost,
            twice,
            slow,
            slowest_ms: [50, 1_000, ttl_ms][random.usize(..3)],
            dies_before,
            dies_after,
            fails,
            every,
        }
    }
}

impl World {
    /// The first fault of each kind.
    pub fn plan_faults(&mut self) {
        for (fault, mean_ms) in self.weather.every.clone() {
            let delay = self.between(0, 2 * mean_ms);
            self.after(delay, Event::Fault(fault));
        }
    }

    /// Something goes wrong; and will again.
    pub fn fault(&mut self, fault: Fault) {
        if self.is_calm() {
            return;
        }
        let mean_ms =
            self.weather.every.iter().find(|(kind, _)| *kind == fault).map_or(10_000, |(_, ms)| *ms);
        let next = self.between(mean_ms / 4, 2 * mean_ms);
        self.after(next, Event::Fault(fault));
        self.note(format_args!("{fault:?}"));
        match fault {
            Fault::DaemonDies => self.crash_daemon(),
            Fault::DaemonStops => {
                self.daemon.stopped = true;
                self.mend_later(fault);
            }
            Fault::ClockJumps => {
                let unix_ms = self.random.u64(1_700_000_000_000..1_700_000_600_000);
                self.daemon.clock.set_unix_ms(unix_ms);
            }
            Fault::WorkerDies(worker) => self.crash_agent(worker),
            Fault::WorkerStops(worker) => {
                self.workers[worker].stopped = true;
                self.mend_later(fault);
            }
            Fault::CutOff(worker) => {
                self.workers[worker].cut_off = true;
                self.mend_later(fault);
            }
            Fault::Breaks(worker) => {
                let mut open = self.network.open_ones();
                open.retain(|&connection| self.network.worker(connection) == Some(worker));
                if let Some(&connection) = open.last() {
                    self.break_off(connection);
                }
            }
            Fault::ChildDies(worker) => self.kill_some_child(worker),
            Fault::ChildStops(worker) => self.stop_some_child(worker),
        }
    }

    /// Half of what breaks is put right soon, half after longer than a lease lives.
    pub fn mend_later(&mut self, fault: Fault) {
        let ttl_ms = self.weather.lease_ttl.as_millis() as u64;
        let delay =
            if self.random.bool() { self.between(1, ttl_ms / 2) } else { self.between(1, ttl_ms * 3) };
        self.after(delay, Event::Mend(fault));
    }

    /// It is put right.
    pub fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::DaemonDies if !self.daemon.is_up() => self.start_daemon(),
            Fault::DaemonStops if self.daemon.stopped => {
                self.note(format_args!("coordinator goes on"));
                self.daemon.stopped = false;
                for event in std::mem::take(&mut self.daemon.deferred) {
                    self.after(Duration::ZERO, event);
                }
            }
            Fault::WorkerDies(worker) if self.workers[worker].agent.is_none() => self.start_agent(worker),
            Fault::WorkerStops(worker) => self.agent_goes_on(worker),
            Fault::CutOff(worker) => self.workers[worker].cut_off = false,
            Fault::ChildStops(worker) => self.children_go_on(worker),
            _ => {}
        }
    }

    /// From now on nothing goes wrong any more: whatever is broken is put right.
    pub fn calm(&mut self) {
        self.note(format_args!("calm"));
        self.mend(Fault::DaemonStops);
        self.mend(Fault::DaemonDies);
        for worker in 0..self.workers.len() {
            self.mend(Fault::CutOff(worker));
            self.mend(Fault::WorkerStops(worker));
            self.mend(Fault::WorkerDies(worker));
            self.mend(Fault::ChildStops(worker));
        }
        // What lost a message is dead; somebody's keep-alive finds out.
        for connection in self.network.open_ones() {
            if self.random.bool() {
                self.break_off(connection);
            }
        }
    }
}
