//! All SQL: one transaction a method, acknowledged only after its commit.
//!
//! One thread writes (WAL, synchronous=FULL), and puts all changes that wait for it into one commit: [`group`]. A change
//! is a function of a [`write::Tx`], handed to [`Store::write`]; what it borrows it must own, since it runs elsewhere.
//! Some connections read beside it. The tables are told in `migrations/`; what a state admits is decided in
//! [`crate::lifecycle`], not here. Time and chance come in as [`Now`].
//!
//! [`submit`], [`change`] (cancel, retry), [`hold`] (pause, resume, priority), [`lease`] (give and end), [`report`] (what
//! workers say) write; [`depend`] is who runs after whom. [`ready`] (what can run now), [`select`] (who is meant) and
//! [`query`] read; [`inspect`] and [`copy`] work beside all this, on files; [`row`] is the one place where a state becomes columns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

mod change;
mod copy;
mod depend;
mod error;
mod group;
mod hold;
mod inspect;
mod lease;
mod page;
pub mod query;
#[cfg(test)]
mod queue_tests;
mod ready;
mod report;
mod row;
mod select;
mod submit;
#[cfg(test)]
mod tests;
mod write;

pub use change::{Changed, Retry};
pub use copy::{Copied, CopyError, Restored, back_up, restore};
pub use error::StoreError;
use group::Writer;
pub use group::{CommitPoint, Trap};
pub use inspect::{FileRow, Inspector, RunningRow, WaitingRow, WorkerRow};
pub use lease::{Assignment, Granted, Interrupted, Standing};
pub use page::{Page, Part};
pub use report::Verdict;
pub use select::Selection;
pub use submit::{NewExperiment, Submission};
use write::Tx;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Connections that only read. SQLite lets them run beside the writer.
const READERS: u32 = 4;

/// A database up to this size is checked page by page at the start; a larger one would keep people waiting.
const CHECKED_BYTES: u64 = 64 << 20;

/// When a transaction happens, and its share of chance.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Unix time.
    pub ms: u64,
    /// 0 … 1, for back-offs.
    pub jitter: f64,
}

/// The database of a coordinator.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    readers: SqlitePool,
}

/// What the store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens the database, makes it if it is missing, and brings its tables up to date.
    ///
    /// # Errors
    /// When it cannot be read or written, is damaged, or is of a newer version.
    pub async fn open(file: &Path) -> std::result::Result<Store, OpenError> {
        Store::open_with_trap(file, None).await
    }

    /// The same, with a trap at each commit: how tests crash a coordinator at the worst moments.
    ///
    /// # Errors
    /// See [`Store::open`].
    pub async fn open_with_trap(file: &Path, trap: Option<Trap>) -> std::result::Result<Store, OpenError> {
        let explain = |reason: String| OpenError { file: file.to_owned(), reason };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let damaged = |e: sqlx::Error| explain(opening_failed(&e));
        let first = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await;
        let first = first.map_err(damaged)?;
        check_pages(file, &first).await.map_err(explain)?;
        // Otherwise a database that can only be read would be found out by the first who wants something saved: SQLite opens
        // it all the same.
        if group::is_read_only(file).unwrap_or(false) {
            return Err(explain(read_only("attempt to open it for writing failed")));
        }
        MIGRATIONS.run(&first).await.map_err(|e| explain(migration_failed(&e)))?;
        let readers = SqlitePoolOptions::new().max_connections(READERS);
        let readers = readers.connect_with(options.read_only(true).create_if_missing(false)).await;
        let readers = readers.map_err(damaged)?;
        first.close().await;
        let writer = Writer::start(file, trap).map_err(|e| explain(format!("cannot be opened: {e}")))?;
        Ok(Store { writer, readers })
    }

    /// Writes the log back into the database file and closes it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Runs a change on the thread that writes, and answers after its commit. Once begun it runs to its end, even if the
    /// caller gives up waiting.
    async fn write<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.writer.change(change).await
    }
}

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the database {} {reason}", file.display())]
pub struct OpenError {
    file: PathBuf,
    reason: String,
}

fn opening_failed(error: &sqlx::Error) -> String {
    match error::primary_code(error) {
        Some(error::NOT_A_DATABASE | error::CORRUPT) => damaged(&error.to_string()),
        Some(error::FULL) => format!("cannot be opened: the disk is full ({error}); free some space"),
        Some(error::READ_ONLY) => read_only(&error.to_string()),
        _ => format!("cannot be opened: {error}"),
    }
}

fn read_only(how: &str) -> String {
    format!(
        "is read-only ({how}); make it and its folder writable for this user (chown, or mount it so), or give another \
         state folder with --state"
    )
}

fn damaged(how: &str) -> String {
    format!(
        "is damaged ({how}); nothing was changed. Restore a copy of it, or move it away (with its -wal and -shm \
         files) to start with an empty queue"
    )
}

fn migration_failed(error: &MigrateError) -> String {
    match error {
        MigrateError::VersionMissing(version) => format!(
            "was written by a newer cnxd (its migration {version:04} is unknown here); start that version, or a newer one"
        ),
        MigrateError::VersionMismatch(version) => format!(
            "was made by another build of cnxd (migration {version:04} differs); start that build, or use another state folder"
        ),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => opening_failed(error),
        other => format!("could not be brought up to date: {other}"),
    }
}

async fn check_pages(file: &Path, writer: &SqlitePool) -> std::result::Result<(), String> {
    if std::fs::metadata(file).map(|m| m.len()).unwrap_or(0) > CHECKED_BYTES {
        return Ok(());
    }
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(writer)
        .await
        .map_err(|error| opening_failed(&error))?;
    if found == "ok" { Ok(()) } else { Err(damaged(found.trim())) }
}

/// SQLite's whole numbers are signed; nothing that is counted here comes near the limit.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from SQLite; NULL reads 0, as on the wire.
fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// The same where the wire has 32 bits.
fn unsigned32(number: Option<i64>) -> u32 {
    u32::try_from(unsigned(number)).unwrap_or(u32::MAX)
}
