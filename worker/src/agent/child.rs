//! One child process: `cnx-worker run`, which does all that needs libtorch.
//!
//! It reads a length-delimited `Assign` from its standard input, and then, whenever its lease is renewed, a `Hold`; it writes length-delimited
//! `Report`s to its standard output and human lines to its standard error. It leads its own process group, so that
//! whatever it starts dies with it, and the kernel kills it when the agent dies (where the kernel can: on Linux;
//! elsewhere it notices the end of its input).

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use cnx_access::Role;
use cnx_proto::lease_clock::Holds;
use cnx_proto::v1::{Assign, Hold, Report};
use prost::Message;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::boot_clock;
use super::log_lines;
use super::outcome::Exit;
use super::spool::MAX_REPORT_BYTES;
use crate::device;

/// Reports and lines that wait to be taken in; a full queue holds the child back by its pipe.
const QUEUE: usize = 64;

/// How long a pipe may stay open after the child's exit (a process that left the group may hold it).
const DRAIN: Duration = Duration::from_secs(2);

/// What a child says.
#[derive(Debug)]
pub enum Said {
    /// A report, as written.
    Report(Box<Report>),
    /// A line of its standard error.
    Line(String),
    /// Something that is not a report, and why; nothing it says after that can be understood.
    Garbage(String),
}

/// What happens to a child.
#[derive(Debug)]
pub enum Event {
    /// It said these, in order.
    Said(Vec<Said>),
    /// It is gone, waited for, and everything it said was handed out.
    Ended(Exit),
}

/// Starts children on a thread of its own: the kernel's parent-death signal goes by the *thread* that forked, and
/// threads of the runtime come and go.
#[derive(Debug, Clone)]
pub struct Spawner(std::sync::mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<tokio::process::Child>>,
}

impl Spawner {
    /// Starts the thread, which ends with the last `Spawner`. Needs a runtime.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> io::Result<Spawner> {
        let runtime = tokio::runtime::Handle::current();
        let (requests, inbox) = std::sync::mpsc::channel::<Request>();
        std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _in_runtime = runtime.enter();
            for mut request in inbox {
                // Nobody waits any more: the child is dropped, and killed by that.
                let _ = request.reply.send(request.command.spawn());
            }
        })?;
        Ok(Spawner(requests))
    }

    /// Starts `command` (program and arguments) as the child for `assign`, which hears how long its lease `holds`.
    ///
    /// # Errors
    /// When it cannot be started, with the program's name.
    pub async fn spawn(
        &self,
        command: &[OsString],
        assign: &Assign,
        holds: watch::Receiver<Holds>,
    ) -> anyhow::Result<Child> {
        let (program, arguments) = command.split_first().context("the child's command is empty")?;
        let started = || format!("cannot start {}", program.display());
        let mut command = Command::new(program);
        command
            .args(arguments)
            // What trains has nothing to say to the coordinator by itself.
            .env_remove(Role::Worker.variable())
            .env_remove(Role::Person.variable())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        spin_briefly(&mut command);
        repeat_on_gpus(&mut command);
        die_with_this_process(&mut command);
        let (reply, child) = oneshot::channel();
        self.0.send(Request { command, reply }).ok().with_context(started)?;
        let process = child.await.with_context(started)?.with_context(started)?;
        Child::new(process, assign, holds).with_context(started)
    }
}

/// libgomp reads its environment when libtorch is loaded, so whoever spawns the child decides how its threads wait for
/// each other. By default they spin for so long that as soon as anything else (a loader thread, another slot, a
/// compiler) wants the same cores, waiting costs a multiple of the work itself; not spinning at all halves the speed
/// of an idle machine. A thousand turns keep nine tenths of the one and four fifths of the other. What the user
/// has set stands.
fn spin_briefly(command: &mut Command) {
    if ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].iter().all(|set| std::env::var_os(set).is_none()) {
        command.env("GOMP_SPINCOUNT", "1000");
    }
}

/// cuBLAS reads its environment when it is first used: with a workspace of fixed size its sums have one order. What the user has
/// set stands.
fn repeat_on_gpus(command: &mut Command) {
    if std::env::var_os(device::WORKSPACE).is_none() {
        command.env(device::WORKSPACE, device::REPEATABLE[0]);
    }
}

/// Asks the kernel to kill the child when the spawning thread (that is, this process) dies.
#[cfg(target_os = "linux")]
fn die_with_this_process(command: &mut Command) {
    let parent = rustix::process::getpid();
    let in_child = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The agent may have died between the fork and the line above.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls, and neither allocates nor locks.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(in_child);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_this_process(_command: &mut Command) {}

/// The child and all that it started.
#[derive(Debug, Clone)]
struct Group {
    leader: Pid,
    /// Once it was waited for, the number may be another process's.
    gone: Arc<Mutex<bool>>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        self.signal_if(signal, || true);
    }

    /// No other signal is sent between the question and this one: what is frozen at the end of a lease is not woken by
    /// somebody who looked at the clock before.
    fn signal_if(&self, signal: Signal, still: impl FnOnce() -> bool) {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if !*gone && still() {
            let _ = rustix::process::kill_process_group(self.leader, signal);
        }
    }

    /// The leader alone: what it started does not know what is asked of it.
    fn terminate(&self) {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if !*gone {
            let _ = rustix::process::kill_process(self.leader, Signal::TERM);
        }
    }

    /// The leader was waited for a moment ago. What it started would hold the pipes open.
    fn bury(&self) {
        self.signal(Signal::KILL);
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    group: Group,
    said: mpsc::Receiver<Said>,
    ended: Option<(Exit, Instant)>,
    _pipes: [AbortOnDropHandle<()>; 3],
}

impl Child {
    fn new(
        mut process: tokio::process::Child,
        assign: &Assign,
        holds: watch::Receiver<Holds>,
    ) -> anyhow::Result<Child> {
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let group = Group { leader: pid.context("it ended at once")?, gone: Arc::default() };
        let (assign, for_waking) = (assign.encode_length_delimited_to_vec(), group.clone());
        let mut stdin = process.stdin.take().context("no standard input")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let stderr = process.stderr.take().context("no standard error")?;
        let (say, said) = mpsc::channel(QUEUE);
        let spawn = |future| AbortOnDropHandle::new(tokio::spawn(future));
        let pipes = [
            AbortOnDropHandle::new(tokio::spawn(async move {
                // A child that ended before it read all this shows in its exit.
                let _ = give(&mut stdin, &assign, holds, for_waking).await;
                // The end of the pipe would tell it that the agent is gone.
                std::future::pending::<()>().await;
            })),
            AbortOnDropHandle::new(tokio::spawn(read_reports(stdout, say.clone()))),
            spawn(log_lines::read(stderr, say)),
        ];
        Ok(Child { process, group, said, ended: None, _pipes: pipes })
    }

    /// Its process ID, which is its group's too.
    pub fn pid(&self) -> i32 {
        self.group.leader.as_raw_nonzero().get()
    }

    /// Asks it to stop: it leaves a checkpoint and says so.
    pub fn terminate(&self) {
        self.group.terminate();
    }

    /// Lets it and all that it started do nothing more until they are woken.
    pub fn freeze(&self, still: impl FnOnce() -> bool) {
        self.group.signal_if(Signal::STOP, still);
    }

    /// Wakes what was frozen.
    pub fn wake(&self) {
        self.group.signal(Signal::CONT);
    }

    /// Kills it and all that it started, frozen or not.
    pub fn kill(&self) {
        self.group.signal(Signal::KILL);
    }

    /// What happens next. Safe to cancel. Not to be called again after `Ended`.
    pub async fn next(&mut self) -> Event {
        let mut batch = Vec::new();
        loop {
            let drain_until = self.ended.as_ref().map(|(_, at)| *at + DRAIN);
            tokio::select! {
                biased;
                count = self.said.recv_many(&mut batch, QUEUE) => {
                    if count > 0 {
                        return Event::Said(batch);
                    }
                    // Both pipes are closed: there is nothing left but the exit.
                    let exit = match self.ended.take() {
                        Some((exit, _)) => exit,
                        None => self.wait().await,
                    };
                    return Event::Ended(exit);
                }
                exit = Self::exit(&mut self.process), if self.ended.is_none() => {
                    self.group.bury();
                    self.ended = Some((exit, Instant::now()));
                }
                () = tokio::time::sleep_until(drain_until.unwrap_or_else(Instant::now)), if drain_until.is_some() => {
                    self.said.close();
                }
            }
        }
    }

    async fn wait(&mut self) -> Exit {
        let exit = Self::exit(&mut self.process).await;
        self.group.bury();
        exit
    }

    async fn exit(process: &mut tokio::process::Child) -> Exit {
        match process.wait().await {
            Ok(status) => exit_of(status),
            Err(error) => Exit::NotStarted(format!("it cannot be waited for: {error}")),
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

/// Writes the assignment, and then, each time that the lease is renewed, until when it holds.
///
/// A child whose lease had run out may be frozen, by the agent or by itself: it is woken once it can read that the lease
/// holds again, and once more at the next renewal, in case it froze itself in just that moment.
async fn give(
    stdin: &mut ChildStdin,
    assign: &[u8],
    mut holds: watch::Receiver<Holds>,
    group: Group,
) -> io::Result<()> {
    let mut told = *holds.borrow_and_update();
    let mut wakes = 0;
    stdin.write_all(assign).await?;
    loop {
        stdin.write_all(&Hold::from(told).encode_length_delimited_to_vec()).await?;
        stdin.flush().await?;
        if wakes > 0 {
            group.signal_if(Signal::CONT, || boot_clock::now() < told.until);
            wakes -= 1;
        }
        if holds.changed().await.is_err() {
            return Ok(());
        }
        if boot_clock::now() >= told.until {
            wakes = 2;
        }
        told = *holds.borrow_and_update();
    }
}

async fn read_reports(stdout: impl AsyncRead + Unpin, say: mpsc::Sender<Said>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let said = match read_report(&mut stdout).await {
            Ok(Some(report)) => Said::Report(Box::new(report)),
            Ok(None) => return,
            Err(error) => {
                let _ = say.send(Said::Garbage(error.to_string())).await;
                // Read on, so that the child is not stuck in a write before it is stopped.
                let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
                return;
            }
        };
        if say.send(said).await.is_err() {
            return;
        }
    }
}

/// One length-delimited report; `None` at the end of the stream. A frame that the end tore is an end too: the exit
/// of the child says more about it.
async fn read_report(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Report>> {
    let mut length: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = match input.read_u8().await {
            Ok(byte) => byte,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if length > MAX_REPORT_BYTES as u64 {
        return Err(io::Error::other(format!(
            "expected a report of at most {MAX_REPORT_BYTES} bytes on the child's standard output, found a length of \
             {length}; nothing but reports may be printed there"
        )));
    }
    let mut payload = vec![0; usize::try_from(length).unwrap_or(MAX_REPORT_BYTES)];
    match input.read_exact(&mut payload).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let report = Report::decode(payload.as_slice());
    let report = report.map_err(|error| {
        io::Error::other(format!(
            "expected a report on the child's standard output, found {length} other bytes: {error}"
        ))
    })?;
    if report.body.is_none() {
        return Err(io::Error::other("expected a report on the child's standard output, found an empty one"));
    }
    Ok(Some(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::v1::{Outcome, report::Body};

    fn report() -> Report {
        Report { body: Some(Body::Outcome(Outcome::default())), ..Report::default() }
    }

    #[tokio::test]
    async fn reports_are_read_up_to_the_end_or_a_torn_frame() {
        let mut bytes = report().encode_length_delimited_to_vec();
        bytes.extend(report().encode_length_delimited_to_vec());
        bytes.pop();
        let mut input = bytes.as_slice();
        assert_eq!(read_report(&mut input).await.expect("a report"), Some(report()));
        assert_eq!(read_report(&mut input).await.expect("the end"), None);
    }

    #[tokio::test]
    async fn what_is_not_a_report_is_refused() {
        let text = "Epoch 1: loss 2.3\n".repeat(8);
        for mut input in [text.as_bytes(), &[255; 20], &[0]] {
            assert!(read_report(&mut input).await.is_err(), "{input:?}");
        }
    }
}
