//! Makes a plan happen, and watches what comes of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use cnx_proto::v1::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::overlap::{Watcher, alive, started};
use super::people::Person;
use super::plan::{AGENTS, Act, Blow, Fault, HEARTBEAT, LEASE_TTL, Plan, Victim};
use super::proxy::Proxy;
use super::record::Record;
use super::verdict::{Disturbance, Report, judge};
use super::work;
use crate::api::Api;
use crate::pool::{PATIENCE, owns};
use crate::{Pool, children_of};

/// Slots of each agent.
const SLOTS: &str = "2";

/// Experiments that are kept unfinished while there is bad luck left: some run, some wait out a back-off.
const UNFINISHED: usize = 8;

/// How long a blow waits for epochs to be done after the one before.
const AFTER_EPOCHS_AT_MOST: Duration = Duration::from_secs(4);

/// Blows that may be brought forward when the next one's victim is down or stopped already.
const LOOK_AHEAD: usize = 6;

/// An experiment that was tried so often is not hit any more: its back-off doubles each time.
const SPARED_FROM: u32 = 7;

/// Without anything new for so long, it is stuck: more than the longest back-off.
const STUCK_AFTER: Duration = Duration::from_secs(400);

const GLANCE: Duration = Duration::from_millis(20);

/// Between two words to who waits.
const NEWS: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides what happens.
    pub seed: u64,
    /// How many SIGKILLs; stops, network faults and people's changes of mind come beside them.
    pub kills: u32,
}

/// Runs the plan of a seed, and beside it the same work undisturbed.
///
/// # Errors
/// What was broken, the seed, what was done when, and where the logs are.
pub fn run(options: Options) -> Result<Report, String> {
    let folder = tempfile::Builder::new().prefix("cnx-chaos-").tempdir().unwrap();
    let mut chaos = Chaos::start(folder, Plan::new(options.seed, options.kills));
    let result =
        chaos.carry_out().and_then(|disturbance| judge(options, &chaos.pool, &chaos.calm, disturbance));
    let result = result.and_then(|report| chaos.kill_all().map(|()| report));
    result.map_err(|why| {
        chaos.pool.keep_folder();
        let folder = chaos.pool.folder().display();
        let schedule = std::fs::read_to_string(chaos.pool.folder().join(SCHEDULE)).unwrap_or_default();
        format!(
            "{schedule}\nchaos: FAILED, seed {}, {} kills: {why}\nwhat was done when is above and in {folder}/{SCHEDULE}; the logs \
             are {folder}/*.log, the state is in {folder}/state",
            options.seed, options.kills
        )
    })
}

const SCHEDULE: &str = "schedule.txt";

/// What takes a blow back.
#[derive(Debug, Clone, Copy)]
enum Undo {
    StartAgent(usize),
    StartCoordinator,
    /// SIGCONT to a process.
    Continue(u32),
    Heal(usize),
}

struct Chaos {
    pool: Pool,
    /// The same work, beside it and undisturbed.
    calm: Pool,
    proxies: Vec<Proxy>,
    record: Arc<Record>,
    watcher: Watcher,
    follower: Option<JoinHandle<()>>,
    errands: Vec<JoinHandle<()>>,
    submitting: Option<JoinHandle<()>>,
    rounds: u32,
    blows: VecDeque<Blow>,
    undo: Vec<(Instant, Undo)>,
    stopped: BTreeSet<u32>,
    disturbed: BTreeSet<usize>,
    counts: BTreeMap<(&'static str, String), u32>,
    restarts: BTreeMap<&'static str, u32>,
    began: Instant,
}

impl Chaos {
    fn start(folder: tempfile::TempDir, plan: Plan) -> Chaos {
        let mut pool = Pool::in_folder(folder);
        pool.start_daemon_with(&daemon_arguments());
        let proxies: Vec<Proxy> = (0..AGENTS).map(|_| Proxy::start(&pool.state())).collect();
        let record = Arc::new(Record::new(&pool.folder().join(SCHEDULE)));
        let follower = std::thread::spawn({
            let (record, api) = (record.clone(), Api::new(&pool.state()));
            move || record.follow(api)
        });
        let logs: Vec<PathBuf> = (0..AGENTS).map(|agent| pool.log_file(&name(agent))).collect();
        let mark = pool.folder().to_owned();
        let watcher = Watcher::start(move |pid| owns(&mark, pid), logs);
        let mut calm = Pool::new();
        calm.start_daemon();
        calm.start_worker();
        let mut chaos = Chaos {
            pool,
            calm,
            proxies,
            record,
            watcher,
            follower: Some(follower),
            errands: Vec::new(),
            submitting: None,
            rounds: 0,
            blows: plan.blows.into(),
            undo: Vec::new(),
            stopped: BTreeSet::new(),
            disturbed: BTreeSet::new(),
            counts: BTreeMap::new(),
            restarts: BTreeMap::new(),
            began: Instant::now(),
        };
        for agent in 0..AGENTS {
            chaos.start_agent(agent);
        }
        chaos
    }

    /// All blows, and until everything is final.
    fn carry_out(&mut self) -> Result<Disturbance, String> {
        let (mut last_blow, mut epochs_then) = (Instant::now(), 0);
        let mut moved = (Instant::now(), String::new());
        let mut told = Instant::now();
        loop {
            if told.elapsed() > NEWS {
                told = Instant::now();
                self.tell();
            }
            self.take_back();
            self.look()?;
            let epochs = self.record.ledger(|ledger| ledger.epochs);
            if let Some(next) = self.blows.front().copied() {
                self.supply();
                let waited = last_blow.elapsed();
                let trained =
                    epochs >= epochs_then + u64::from(next.after_epochs) || waited > AFTER_EPOCHS_AT_MOST;
                if trained && waited >= next.then && self.strike_next() {
                    (last_blow, epochs_then) = (Instant::now(), epochs);
                }
            } else if self.is_over() {
                break;
            }
            let state = self
                .record
                .ledger(|ledger| format!("{} {:?} {}", ledger.epochs, ledger.unfinished(), self.blows.len()));
            if state != moved.1 {
                moved = (Instant::now(), state);
            }
            if moved.0.elapsed() > STUCK_AFTER {
                return Err(format!("nothing moved for {STUCK_AFTER:?}; unfinished: {}", moved.1));
            }
            sleep(GLANCE);
        }
        self.look()?;
        let took = self.began.elapsed();
        self.record.log("everything is final; waiting for the undisturbed run");
        let rounds: Vec<String> = (0..self.rounds).map(work::name).collect();
        let wait: Vec<&str> =
            ["wait", "--timeout", "30m"].into_iter().chain(rounds.iter().map(String::as_str)).collect();
        self.calm.cnx_ok(&wait);
        Ok(Disturbance {
            counts: std::mem::take(&mut self.counts),
            restarts: std::mem::take(&mut self.restarts),
            rounds: self.rounds,
            acknowledged: self.record.acknowledged(),
            answers: self.record.ledger(|ledger| ledger.answers),
            findings: self.watcher.findings(),
            took,
        })
    }

    /// How far it is.
    fn tell(&self) {
        let unfinished = self.record.ledger(|ledger| ledger.unfinished().len());
        eprintln!(
            "  {:4.0} s: {} blows done, {} to come; {} experiments done, {unfinished} not",
            self.began.elapsed().as_secs_f64(),
            self.counts.values().sum::<u32>(),
            self.blows.len(),
            self.record.acknowledged().saturating_sub(unfinished),
        );
    }

    /// Kills agents and coordinator; nobody else of the pool may be left then.
    fn kill_all(&mut self) -> Result<(), String> {
        for agent in 0..AGENTS {
            self.pool.kill_worker_named(&name(agent));
        }
        self.pool.kill_daemon();
        let folder = self.pool.folder().to_owned();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = alive(|pid| owns(&folder, pid));
            match left.is_empty() {
                true => return Ok(()),
                false if Instant::now() > deadline => {
                    return Err(format!("the processes {left:?} outlived their agents"));
                }
                false => sleep(GLANCE),
            }
        }
    }

    /// Whether all that was submitted is final, and nobody is up to anything.
    fn is_over(&mut self) -> bool {
        self.errands.retain(|errand| !errand.is_finished());
        let idle = self.errands.is_empty() && self.submitting.as_ref().is_none_or(JoinHandle::is_finished);
        let told = self
            .record
            .ledger(|ledger| ledger.unfinished().is_empty() && ledger.count() >= self.record.acknowledged());
        idle && self.undo.is_empty() && told
    }

    /// Fails when something is broken that must hold at any time.
    fn look(&mut self) -> Result<(), String> {
        if let Some(ended) = self.pool.ended_by_itself() {
            return Err(ended);
        }
        if let Some(overlap) = self.watcher.findings().overlaps.first() {
            return Err(overlap.clone());
        }
        let failed = self.record.ledger(|ledger| ledger.in_state(State::Failed));
        if !failed.is_empty() {
            return Err(format!("the experiments {failed:?} failed"));
        }
        self.record.ledger(|ledger| ledger.broken.first().cloned()).map_or(Ok(()), Err)
    }

    /// Keeps enough to do.
    fn supply(&mut self) {
        let unfinished = self.record.ledger(|ledger| ledger.unfinished().len());
        let told = self.record.ledger(|ledger| ledger.count()) >= self.record.acknowledged();
        if unfinished < UNFINISHED && told && self.submitting.as_ref().is_none_or(JoinHandle::is_finished) {
            let (file, person) = (work::round(&self.pool, self.rounds), self.person());
            self.calm.cnx_ok(&["submit", &work::round(&self.calm, self.rounds)]);
            self.rounds += 1;
            self.submitting = Some(std::thread::spawn(move || person.submit(&file)));
        }
    }

    fn person(&self) -> Person {
        Person { cli: self.pool.cli(), record: self.record.clone() }
    }

    /// Whether one of the next blows met its victim.
    fn strike_next(&mut self) -> bool {
        for i in 0..self.blows.len().min(LOOK_AHEAD) {
            let Some(blow) = self.blows.get(i).copied() else { break };
            if self.strike(blow.act) {
                self.blows.remove(i);
                *self.counts.entry(blow.act.label()).or_default() += 1;
                return true;
            }
        }
        false
    }

    fn strike(&mut self, act: Act) -> bool {
        match act {
            Act::Kill(Victim::Agent(agent), down) => self.kill_agent(agent, down),
            Act::Kill(Victim::Coordinator, down) => self.kill_coordinator(down),
            Act::Kill(victim, _) => self.signal(victim, Signal::SIGKILL).is_some(),
            Act::Stop(victim, lasts) => match self.signal(victim, Signal::SIGSTOP) {
                Some(pid) => {
                    self.stopped.insert(pid);
                    self.later(lasts, Undo::Continue(pid));
                    true
                }
                None => false,
            },
            Act::Link(agent, fault, lasts) => self.disturb(agent, fault, lasts),
            Act::Pause { pick, lasts } => self.errand(pick, move |person, id| person.pause(id, lasts)),
            Act::Cancel { pick } => self.errand(pick, |person, id| person.cancel_and_retry(id)),
        }
    }

    fn kill_agent(&mut self, agent: usize, down: Duration) -> bool {
        if self.upright(self.pool.pid_of_worker(&name(agent))).is_none() {
            return false;
        }
        self.record.log(&format!("SIGKILL agent {}, down for {down:?}", name(agent)));
        self.pool.kill_worker_named(&name(agent));
        self.later(down, Undo::StartAgent(agent));
        true
    }

    fn kill_coordinator(&mut self, down: Duration) -> bool {
        if self.upright(self.pool.daemon_pid()).is_none() {
            return false;
        }
        self.record.log(&format!("SIGKILL coordinator, down for {down:?}"));
        self.pool.kill_daemon();
        self.later(down, Undo::StartCoordinator);
        true
    }

    /// Sends a signal to a victim that is there and was not stopped; to which process.
    fn signal(&mut self, victim: Victim, signal: Signal) -> Option<u32> {
        let (pid, whom) = match victim {
            Victim::Child { pick } => self.child(pick)?,
            Victim::Agent(agent) => {
                (self.upright(self.pool.pid_of_worker(&name(agent)))?, format!("agent {}", name(agent)))
            }
            Victim::Coordinator => (self.upright(self.pool.daemon_pid())?, "coordinator".to_owned()),
        };
        self.record.log(&format!("{signal} {whom}, process {pid}"));
        send(pid, signal);
        Some(pid)
    }

    /// A child that computes, of an experiment that was not hit too often.
    fn child(&self, pick: u32) -> Option<(u32, String)> {
        let logs: Vec<PathBuf> = (0..AGENTS).map(|agent| self.pool.log_file(&name(agent))).collect();
        let leases = started(&logs);
        let agents = (0..AGENTS).filter_map(|agent| self.pool.pid_of_worker(&name(agent)));
        let children = agents.flat_map(children_of).filter(|pid| !self.stopped.contains(pid));
        let mut fair = Vec::new();
        for pid in children {
            let Some(&(_, (experiment, attempt))) = leases.get(&pid) else { continue };
            if attempt < SPARED_FROM {
                fair.push((pid, format!("child of experiment {experiment}, attempt {attempt}")));
            }
        }
        fair.sort();
        let chosen = (pick as usize).checked_rem(fair.len())?;
        fair.into_iter().nth(chosen)
    }

    fn upright(&self, pid: Option<u32>) -> Option<u32> {
        pid.filter(|pid| !self.stopped.contains(pid))
    }

    fn disturb(&mut self, agent: usize, fault: Fault, lasts: Duration) -> bool {
        let Some(proxy) = self.proxies.get(agent) else { return false };
        if !self.disturbed.insert(agent) {
            return false;
        }
        self.record.log(&format!("network of agent {}: {fault} for {lasts:?}", name(agent)));
        proxy.suffer(fault);
        self.later(lasts, Undo::Heal(agent));
        true
    }

    fn errand(&mut self, pick: u32, what: impl FnOnce(Person, u64) + Send + 'static) -> bool {
        let unfinished = self.record.ledger(|ledger| ledger.unfinished());
        let Some(chosen) = (pick as usize).checked_rem(unfinished.len()) else { return false };
        let Some(&id) = unfinished.get(chosen) else { return false };
        let person = self.person();
        self.errands.push(std::thread::spawn(move || what(person, id)));
        true
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        self.undo.push((Instant::now() + after, undo));
    }

    /// Takes back what has lasted long enough.
    fn take_back(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        for (_, undo) in due {
            match undo {
                Undo::StartAgent(agent) => {
                    self.start_agent(agent);
                    *self.restarts.entry("agent").or_default() += 1;
                }
                Undo::StartCoordinator => {
                    self.record.log("coordinator started");
                    self.pool.spawn_daemon(&daemon_arguments());
                    *self.restarts.entry("coordinator").or_default() += 1;
                }
                Undo::Continue(pid) => {
                    self.record.log(&format!("SIGCONT process {pid}"));
                    self.stopped.remove(&pid);
                    send(pid, Signal::SIGCONT);
                }
                Undo::Heal(agent) => {
                    self.record.log(&format!("network of agent {} is well again", name(agent)));
                    self.disturbed.remove(&agent);
                    if let Some(proxy) = self.proxies.get(agent) {
                        proxy.heal();
                    }
                }
            }
        }
    }

    fn start_agent(&mut self, agent: usize) {
        let Some(url) = self.proxies.get(agent).map(Proxy::url) else { return };
        self.record.log(&format!("agent {} started", name(agent)));
        self.pool.start_worker_with(&name(agent), &["--slots", SLOTS, "--server", &url]);
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        // Whatever was stopped must not stay so, and the thread that asks must not outlive what it asks.
        for &pid in &self.stopped {
            send(pid, Signal::SIGCONT);
        }
        self.record.finish();
        if let Some(follower) = self.follower.take() {
            let _ = follower.join();
        }
    }
}

fn name(agent: usize) -> String {
    format!("agent-{agent}")
}

fn daemon_arguments() -> [&'static str; 4] {
    debug_assert_eq!((LEASE_TTL.as_secs(), HEARTBEAT.as_millis()), (6, 500));
    ["--lease-ttl", "6s", "--heartbeat", "500ms"]
}

fn send(pid: u32, signal: Signal) {
    // It may be gone by now.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}
