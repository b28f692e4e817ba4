//! The coordinator's process: the real coordinator on the real database, with whatever it does at the same time driven
//! one thing after the other. Everything that it does runs until it waits for a commit; then others go on, until the
//! world lets the group commit, or the process die before or after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use clap::Parser as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use cnx_daemon::chance::{Chance, Manual};
use cnx_daemon::config::{Arguments, Config};
use cnx_daemon::coordinator::Coordinator;
use cnx_daemon::dispatch;
use cnx_daemon::pool::{MAX_BACKLOG, Outbound};
use cnx_daemon::session::{self, MAX_BATCH, Session};
use cnx_daemon::store::{CommitPoint, Store, StoreError};
use cnx_proto::v1::{FromWorker, Report, ToWorker, from_worker, to_worker};

use crate::faults::{Fault, Mutation, Weather};
use crate::gate::Gate;
use crate::network::Packet;
use crate::people::Outcome;
use crate::world::{Event, World};

/// A worker's stream, known by its connection.
pub type LineId = u64;
/// Something under way.
pub type OpId = u64;

/// The machine of the coordinator.
pub struct Daemon {
    /// Its clock.
    pub clock: Arc<Manual>,
    /// Its database.
    pub file: PathBuf,
    /// SIGSTOP.
    pub stopped: bool,
    pub deferred: Vec<Event>,
    config: Config,
    life: u64,
    process: Option<Process>,
}

/// What dies with the process.
struct Process {
    // In the order in which they are to be dropped.
    ops: BTreeMap<OpId, Pin<Box<dyn Future<Output = Done>>>>,
    lines: BTreeMap<LineId, Line>,
    coordinator: Arc<Coordinator>,
    gate: Arc<Gate>,
    runtime: Runtime,
    started: u64,
    /// Those that wait for a commit.
    waiting: BTreeSet<OpId>,
    /// A person's call is under way, and this is it.
    person: Option<OpId>,
    /// The dispatcher is at work, and whether it has to look again after it.
    round: Option<bool>,
    /// When it looks again by itself.
    looks_at: Option<Duration>,
}

/// The coordinator's end of a connection.
struct Line {
    inbox: VecDeque<FromWorker>,
    session: Option<Session>,
    cut: Option<CancellationToken>,
    outbound: Outbound,
    messages: mpsc::Receiver<Result<ToWorker, Status>>,
    /// Something of it is under way, or it will be served.
    busy: bool,
    over: bool,
}

/// What came of something under way.
pub enum Done {
    Round(Result<Option<Instant>, StoreError>),
    Handled(LineId, Session, Vec<Report>, Result<Vec<to_worker::Message>, Status>),
    Closed(LineId),
    Relaunched,
    Person(u64, Result<Outcome, Status>),
}

impl Daemon {
    /// A machine with an empty state folder.
    pub fn new(folder: &Path, weather: &Weather, seed: u64, mutation: Option<Mutation>) -> Daemon {
        let halved = if mutation == Some(Mutation::ExpiresEarly) { 2 } else { 1 };
        let ttl = format!("{}ms", weather.lease_ttl.as_millis() / halved);
        let heartbeat = format!("{}ms", weather.heartbeat.as_millis() / halved);
        let folder_text = folder.to_string_lossy().into_owned();
        let line = ["cnxd", "--state", &folder_text, "--lease-ttl", &ttl, "--heartbeat", &heartbeat];
        let config = Arguments::parse_from(line).config().unwrap();
        Daemon {
            clock: Manual::new(seed, 1_700_000_000_000),
            file: config.state.database(),
            stopped: false,
            deferred: Vec::new(),
            config,
            life: 0,
            process: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether this life of it goes on.
    pub fn lives(&self, life: u64) -> bool {
        self.life == life && self.is_up()
    }
}

impl World {
    /// Runs `does` in the coordinator; later, if it is stopped.
    pub fn daemon_does(&mut self, event: Event, does: impl FnOnce(&mut World)) {
        if self.daemon.stopped {
            self.daemon.deferred.push(event);
        } else {
            does(self);
        }
    }

    pub fn start_daemon(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gate = Arc::new(Gate::default());
        let (config, chance) = (self.daemon.config.clone(), Chance::Manual(Arc::clone(&self.daemon.clock)));
        let opened = runtime.block_on(async {
            let store = Store::open_with_trap(&self.daemon.file, Some(gate.trap())).await;
            let store = store.map_err(|e| e.to_string())?;
            let address = ([127, 0, 0, 1], 7420).into();
            let stopping = CancellationToken::new();
            Coordinator::resume(config, store, chance, address, stopping).await.map_err(|e| e.to_string())
        });
        let coordinator = match opened {
            Ok(coordinator) => Arc::new(coordinator),
            Err(why) => return self.wrong(format!("the coordinator cannot start: {why}")),
        };
        self.daemon.life += 1;
        self.daemon.stopped = false;
        self.daemon.deferred.clear();
        self.daemon.process = Some(Process {
            ops: BTreeMap::new(),
            lines: BTreeMap::new(),
            coordinator,
            gate,
            runtime,
            started: 0,
            waiting: BTreeSet::new(),
            person: None,
            round: None,
            looks_at: None,
        });
        self.note(format_args!("coordinator starts"));
        self.check_database(false);
        self.after(Duration::ZERO, Event::Look(self.daemon.life));
    }

    /// SIGKILL: memory is gone, the disk stays.
    pub fn crash_daemon(&mut self) {
        if !self.daemon.is_up() {
            return;
        }
        self.summary.crashes += 1;
        let lines: Vec<LineId> =
            self.process().map(|p| p.lines.keys().copied().collect()).unwrap_or_default();
        self.stop_daemon();
        for line in lines {
            self.break_off(line);
        }
        self.mend_later(Fault::DaemonDies);
    }

    pub fn stop_daemon(&mut self) {
        if let Some(process) = self.daemon.process.take() {
            process.gate.die();
            let Process { ops, lines, coordinator, runtime, .. } = process;
            drop((ops, lines, coordinator));
            runtime.shutdown_background();
        }
        self.daemon.stopped = false;
        self.daemon.deferred.clear();
    }

    fn process(&mut self) -> Option<&mut Process> {
        self.daemon.process.as_mut()
    }

    /// Of the coordinator, while it runs.
    pub fn coordinator(&mut self) -> Option<Arc<Coordinator>> {
        self.process().map(|process| Arc::clone(&process.coordinator))
    }

    /// Begins something; it goes on when it is driven.
    pub fn begin(&mut self, future: impl Future<Output = Done> + 'static) -> OpId {
        let delay = self.between(0, 1);
        let life = self.daemon.life;
        let Some(process) = self.process() else { return 0 };
        process.started += 1;
        let op = process.started;
        process.ops.insert(op, Box::pin(future));
        self.after(delay, Event::Drive(life, op));
        op
    }

    /// A person's call is under way, at most one at a time: its task is the runtime's, not ours.
    pub fn begin_person(&mut self, future: impl Future<Output = Done> + 'static) {
        let op = self.begin(future);
        if let Some(process) = self.process() {
            process.person = Some(op);
        }
    }

    pub fn serves_a_person(&mut self) -> bool {
        self.process().is_some_and(|process| process.person.is_some())
    }

    /// Runs something until it is done, or waits for a commit.
    pub fn drive(&mut self, op: OpId) {
        let Some(process) = self.process() else { return };
        let Some(mut future) = process.ops.remove(&op) else { return };
        let gate = Arc::clone(&process.gate);
        let done =
            process.runtime.block_on(std::future::poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if gate.took_in(context.waker()) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }));
        match done {
            Some(done) => {
                if process.person == Some(op) {
                    process.person = None;
                }
                self.done(done);
            }
            None => {
                process.ops.insert(op, future);
                process.waiting.insert(op);
                if process.waiting.len() == 1 {
                    let stalls = self.random.u32(..40) == 0;
                    let delay = if stalls { self.between(0, 300) } else { self.between(0, 3) };
                    self.after(delay, Event::Commit(self.daemon.life));
                }
            }
        }
        self.pour_out();
        if self.process().is_some_and(|process| process.ops.is_empty()) {
            self.check_mirror();
        }
    }

    /// Everything that waits commits, in one group; or the coordinator dies of it.
    pub fn commit(&mut self) {
        let (before, after) = (self.weather.dies_before, self.weather.dies_after);
        let dies = match self.random.u32(..100_000) {
            n if self.is_calm() || n >= before + after => None,
            n if n < before => Some(CommitPoint::Before),
            _ => Some(CommitPoint::After),
        };
        let Some(process) = self.process() else { return };
        let group = std::mem::take(&mut process.waiting);
        process.gate.commit(dies);
        let person = process.person.filter(|op| group.contains(op));
        self.note(format_args!("commit of {} dies {dies:?}", group.len()));
        if dies.is_some() {
            return self.crash_daemon();
        }
        let life = self.daemon.life;
        for &op in group.iter().filter(|op| Some(**op) != person) {
            // A task that is ready may have to wait for its turn.
            let stalls = self.random.u32(..10) == 0;
            let delay = if stalls { self.between(0, 100) } else { self.between(0, 2) };
            self.after(delay, Event::Drive(life, op));
        }
        if let Some(op) = person {
            self.drive(op);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Round(Ok(wakes_at)) => {
                let clock = Chance::Manual(Arc::clone(&self.daemon.clock));
                let wait = wakes_at.map(|at| at.saturating_duration_since(clock.instant()));
                let again = self.process().and_then(|p| p.round.take()).unwrap_or_default();
                match wait {
                    _ if again => self.look_in(Duration::ZERO),
                    Some(wait) => self.look_in(wait + Duration::from_micros(1)),
                    None => {}
                }
            }
            Done::Round(Err(error)) => self.wrong(format!("a round failed: {error}")),
            Done::Handled(line, session, reports, answers) => self.handled(line, session, &reports, answers),
            Done::Closed(line) => {
                if let Some(process) = self.process() {
                    process.lines.remove(&line);
                }
                self.break_off(line);
                self.relaunch_early(line);
            }
            Done::Relaunched => {}
            Done::Person(call, outcome) => self.answer(call, outcome),
        }
    }

    fn handled(
        &mut self,
        line: LineId,
        session: Session,
        reports: &[Report],
        answers: Result<Vec<to_worker::Message>, Status>,
    ) {
        let failed = answers.as_ref().err().map(Status::to_string);
        self.told(reports, answers.as_deref().unwrap_or_default());
        let Some(open) = self.line(line) else { return };
        open.session = Some(session);
        open.busy = false;
        open.over |= failed.is_some();
        for answer in answers.unwrap_or_default() {
            // No room: the worker reads too slowly, and is cut off in a moment.
            let _ = open.outbound.try_send(Ok(ToWorker { message: Some(answer) }));
        }
        self.serve_soon(line);
    }

    fn line(&mut self, line: LineId) -> Option<&mut Line> {
        self.process()?.lines.get_mut(&line)
    }

    /// A message reached the coordinator's machine.
    pub fn daemon_hears(&mut self, line: LineId, message: FromWorker) {
        if !self.daemon.is_up() {
            return self.break_off(line);
        }
        let message = self.mutate_report(message);
        let hello = matches!(message.message, Some(from_worker::Message::Hello(_)));
        let Some(process) = self.process() else { return };
        if hello {
            let (outbound, messages) = mpsc::channel(MAX_BACKLOG);
            let inbox = VecDeque::new();
            let new = Line { inbox, session: None, cut: None, outbound, messages, busy: false, over: false };
            process.lines.entry(line).or_insert(new);
        }
        // Of a process that died since: the machine answers with a reset.
        let Some(open) = process.lines.get_mut(&line) else { return self.break_off(line) };
        open.inbox.push_back(message);
        self.serve_soon(line);
    }

    /// A connection is over.
    pub fn daemon_loses(&mut self, line: LineId) {
        if let Some(open) = self.line(line) {
            open.over = true;
            self.serve_soon(line);
        }
    }

    fn serve_soon(&mut self, line: LineId) {
        let delay = self.between(0, 2);
        let life = self.daemon.life;
        let Some(open) = self.line(line) else { return };
        if !std::mem::replace(&mut open.busy, true) {
            self.after(delay, Event::Serve(life, line));
        }
    }

    /// What the loop of a stream does: all that has arrived at once, then the end.
    pub fn serve(&mut self, line: LineId) {
        let mutated = self.mutation == Some(Mutation::AcknowledgesBeforeCommit);
        let hurries = self.random.bool();
        let Some(coordinator) = self.coordinator() else { return };
        let Some(open) = self.line(line) else { return };
        let cut = open.cut.as_ref().is_some_and(CancellationToken::is_cancelled);
        let ends = (open.over && open.inbox.is_empty()) || (cut && hurries);
        if ends {
            match open.session.take() {
                Some(session) => {
                    self.begin(async move {
                        session.close(&coordinator).await;
                        Done::Closed(line)
                    });
                }
                None => self.done(Done::Closed(line)),
            }
            return;
        }
        if open.inbox.is_empty() {
            open.busy = false;
            return;
        }
        let Some(mut session) = open.session.take() else {
            let first = open.inbox.pop_front().and_then(|m| m.message);
            let Ok(hello) = session::greeting(first) else { return self.done(Done::Closed(line)) };
            let session = Session::open(&coordinator, hello, open.outbound.clone());
            open.cut = Some(session.cut.clone());
            open.session = Some(session);
            open.busy = false;
            self.serve_soon(line);
            return self.pour_out();
        };
        let many = open.inbox.len().min(MAX_BATCH);
        let batch: Vec<FromWorker> = open.inbox.drain(..many).collect();
        let durable = |m: &FromWorker| match &m.message {
            Some(from_worker::Message::Report(report)) if report.sequence > 0 => Some(report.clone()),
            _ => None,
        };
        let reports: Vec<Report> = batch.iter().filter_map(durable).collect();
        if mutated {
            self.acknowledge_early(line, &reports);
        }
        self.begin(async move {
            let answers = session.handle(&coordinator, batch).await;
            Done::Handled(line, session, reports, answers)
        });
    }

    /// The dispatcher looks at everything.
    pub fn look(&mut self) {
        let Some(coordinator) = self.coordinator() else { return };
        let now = self.now;
        let Some(process) = self.process() else { return };
        if process.looks_at.is_some_and(|at| at <= now) {
            process.looks_at = None;
        }
        match &mut process.round {
            Some(again) => *again = true,
            None => {
                process.round = Some(false);
                self.begin(async move { Done::Round(dispatch::round(&coordinator).await) });
            }
        }
    }

    fn look_in(&mut self, wait: Duration) {
        let (at, life) = (self.now + wait, self.daemon.life);
        let Some(process) = self.process() else { return };
        if process.looks_at.is_none_or(|planned| at < planned) {
            process.looks_at = Some(at);
            self.at(at, Event::Look(life));
        }
    }

    /// Hands what the coordinator said to the network, and hears its bell.
    fn pour_out(&mut self) {
        let Some(process) = self.process() else { return };
        let mut out = Vec::new();
        let mut cut = Vec::new();
        for (&line, open) in &mut process.lines {
            while let Ok(Ok(message)) = open.messages.try_recv() {
                out.push((line, message));
            }
            if open.cut.as_ref().is_some_and(CancellationToken::is_cancelled) && !open.busy {
                cut.push(line);
            }
        }
        let rung = {
            let mut bell = std::pin::pin!(process.coordinator.rung());
            bell.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        for (line, message) in out {
            let message = self.mutate_answer(message);
            self.said(&message);
            self.send(line, Packet::Down(message));
        }
        for line in cut {
            self.serve_soon(line);
        }
        if rung {
            let delay = self.between(0, 1);
            self.look_in(delay);
        }
    }
}
