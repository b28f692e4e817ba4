//! The thread that writes, and how callers share its commits.
//!
//! A commit costs a wait for the disk, however much is in it. So all changes that wait when the thread is free go into
//! one transaction, each within a savepoint of its own: one that is refused takes back only itself. Every caller is
//! answered after the commit. A lone caller waits for nobody; while its commit is on the way to the disk, the next group
//! gathers by itself.
//!
//! When the database itself fails (a full disk, a failed commit), everything in the group failed, and the connection is
//! replaced. After a failed write SQLite may have ended the transaction or not, and a connection whose state has to be
//! guessed is worth less than the millisecond that a new one costs.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::write::Tx;
use super::{Result, StoreError};

/// Changes that wait for the thread. Whoever comes then waits to be let in, and does not read its stream meanwhile: so
/// workers feel it, and nothing grows.
const BACKLOG: usize = 1024;

/// Most changes in one transaction, and the time after which it takes no more: nobody waits long for their answer
/// because others go on coming.
const MAX_GROUP: usize = 512;
const MAX_GROUP_TIME: Duration = Duration::from_millis(5);

/// Prepared statements kept; more than there are.
const STATEMENTS: usize = 256;

/// How long another process (a backup, somebody's sqlite3) may hold the lock.
const BUSY: Duration = Duration::from_secs(10);

/// Moments around a commit at which a process can die, or things can happen in another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPoint {
    /// A caller handed in a change; told in the caller's own task, the verdict does not matter.
    Queued,
    /// The thread has a change and is about to begin a group.
    Begin,
    /// All is written, nothing is durable.
    Before,
    /// All is durable, nobody was answered.
    After,
}

/// Called at each [`CommitPoint`]; `true` ends the writer there as a crash would: no commit after it, no answer.
#[derive(Clone)]
pub struct Trap {
    verdict: Arc<dyn Fn(CommitPoint) -> bool + Send + Sync>,
    timeless: bool,
}

impl Trap {
    /// A trap that calls `verdict`, which may also hold the thread up.
    pub fn new(verdict: impl Fn(CommitPoint) -> bool + Send + Sync + 'static) -> Trap {
        Trap { verdict: Arc::new(verdict), timeless: false }
    }

    /// Groups are bounded by their number only: what is in them does not depend on the clock.
    pub fn timeless(self) -> Trap {
        Trap { timeless: true, ..self }
    }
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trap")
    }
}

/// Hands changes to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    calls: mpsc::Sender<Message>,
    trap: Option<Trap>,
}

enum Message {
    Change(Box<dyn Change>),
    Close(oneshot::Sender<()>),
}

/// A caller's change, its result, and the way to answer.
trait Change: Send {
    fn run(&mut self, tx: &Tx<'_>) -> Ran;
    fn answer(self: Box<Self>, committed: Result<()>);
}

/// What running a change means for its group.
enum Ran {
    Keep,
    Undo,
    /// The database failed: so did everything in the group.
    Failed(StoreError),
}

struct Pending<T, F> {
    change: Option<F>,
    result: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
}

impl<T, F> Change for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Tx<'_>) -> Result<T> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> Ran {
        let Some(change) = self.change.take() else { return Ran::Undo };
        // A defect in one change must not end the thread, and with it the coordinator.
        let result = catch_unwind(AssertUnwindSafe(|| change(tx))).unwrap_or_else(|panic| {
            Err(StoreError::Unexpected(format!("a defect in cnxd: {}", words(panic.as_ref()))))
        });
        let ran = match &result {
            Err(error) if error.is_of_the_database() => return Ran::Failed(error.clone()),
            Ok(_) if !tx.is_undone() => Ran::Keep,
            _ => Ran::Undo,
        };
        self.result = Some(result);
        ran
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        // A caller that gave up waiting hears nothing.
        let _ = match (committed, self.result) {
            (Ok(()), Some(result)) => self.caller.send(result),
            (Ok(()), None) => self.caller.send(Err(StoreError::Closed)),
            (Err(error), _) => self.caller.send(Err(error)),
        };
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

impl Writer {
    /// Starts the thread on a database whose tables are up to date.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub(super) fn start(file: &Path, trap: Option<Trap>) -> Result<Writer> {
        let (calls, messages) = mpsc::channel(BACKLOG);
        let thread = Thread { file: file.to_owned(), connection: Some(open(file)?), trap: trap.clone() };
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || thread.run(messages))
            .map_err(|e| StoreError::Database(format!("no thread to write: {e}")))?;
        Ok(Writer { calls, trap })
    }

    /// Runs a change, and answers after it is on disk. It runs to its end even if the caller gives up.
    pub(super) async fn change<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let pending = Pending { change: Some(change), result: None, caller };
        let sent = self.calls.send(Message::Change(Box::new(pending))).await;
        sent.map_err(|_| StoreError::Closed)?;
        if let Some(trap) = &self.trap {
            (trap.verdict)(CommitPoint::Queued);
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Finishes what waits, writes the log back into the database file, and ends the thread.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.calls.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

struct Thread {
    file: PathBuf,
    /// None after a failure: the next group opens another.
    connection: Option<Connection>,
    trap: Option<Trap>,
}

/// Whether the thread goes on.
enum Next {
    Group,
    Close(oneshot::Sender<()>),
    Crash,
}

impl Thread {
    fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(first) = messages.blocking_recv() {
            match self.group(first, &mut messages) {
                Next::Group => {}
                Next::Crash => return,
                Next::Close(done) => {
                    self.fold_in_log();
                    drop(self);
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// One transaction: the first message, and those that wait already.
    fn group(&mut self, first: Message, messages: &mut mpsc::Receiver<Message>) -> Next {
        if self.dies_at(CommitPoint::Begin) {
            return Next::Crash;
        }
        let mut group: Vec<Box<dyn Change>> = Vec::new();
        let mut next = Next::Group;
        let mut waiting = Some(first);
        let started = Instant::now();
        let timeless = self.trap.as_ref().is_some_and(|trap| trap.timeless);
        let mut written = self.begin();
        while let Some(message) = waiting.take() {
            let mut change = match message {
                Message::Change(change) => change,
                Message::Close(done) => {
                    next = Next::Close(done);
                    break;
                }
            };
            written = written.and_then(|()| self.within_savepoint(change.as_mut()));
            group.push(change);
            let in_time = timeless || started.elapsed() < MAX_GROUP_TIME;
            if written.is_ok() && group.len() < MAX_GROUP && in_time {
                waiting = messages.try_recv().ok();
            }
        }
        let written = match written.and_then(|()| self.commit()) {
            Ok(Committed::Yes) => Ok(()),
            Ok(Committed::Crashed) => return Next::Crash,
            Err(error) => {
                self.connection = None;
                Err(error)
            }
        };
        for change in group {
            change.answer(written.clone());
        }
        next
    }

    fn begin(&mut self) -> Result<()> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.file)?,
        };
        self.connection.insert(connection).prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    fn within_savepoint(&self, change: &mut dyn Change) -> Result<()> {
        let connection = self.connection.as_ref().ok_or(StoreError::Closed)?;
        connection.prepare_cached("SAVEPOINT one")?.execute([])?;
        match change.run(&Tx::new(connection)) {
            Ran::Keep => {}
            Ran::Undo => {
                connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
            }
            Ran::Failed(error) => return Err(error),
        }
        connection.prepare_cached("RELEASE one")?.execute([])?;
        Ok(())
    }

    fn commit(&mut self) -> Result<Committed> {
        if self.dies_at(CommitPoint::Before) {
            return Ok(Committed::Crashed);
        }
        let connection = self.connection.as_ref().ok_or(StoreError::Closed)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(if self.dies_at(CommitPoint::After) { Committed::Crashed } else { Committed::Yes })
    }

    fn dies_at(&self, point: CommitPoint) -> bool {
        self.trap.as_ref().is_some_and(|trap| (trap.verdict)(point))
    }

    fn fold_in_log(&self) {
        let Some(connection) = &self.connection else { return };
        let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!("the write-ahead log could not be folded in; the next start does it: {error}");
        }
    }
}

enum Committed {
    Yes,
    /// The trap said so.
    Crashed,
}

/// Whether SQLite can open it for reading only, which it does without a word.
pub(super) fn is_read_only(file: &Path) -> Result<bool> {
    Ok(open(file)?.is_readonly(rusqlite::MAIN_DB)?)
}

fn open(file: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    Ok(connection)
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
