//! Copies of a database: taken while somebody writes to it, and put back.
//!
//! A copy is one moment of the database (`VACUUM INTO`, one read transaction), so it needs nothing of a running
//! coordinator, and takes nothing from it but some reading. It is whole or absent: written beside its place, looked over,
//! synced, and put there in one step.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::inspect::open_read_only;
use super::lease::interrupt_all;
use super::{Interrupted, Now, OpenError, Result, Store, StoreError, sql, unsigned};
use crate::coordinator::interrupted;

/// Where it cannot be known which IDs were given after the backup was taken, so many are left out: more than a queue holds.
const UNKNOWN_IDS: u64 = 1_000_000;

/// Why a copy was not made, or not put back. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Choose another place, or say that it may be replaced.
    #[error("{0} is there already; choose another name, or replace it with --force")]
    Exists(String),
    /// Name a database of cnx.
    #[error("{0} is no database of cnx: {1}")]
    NoDatabase(String, String),
    /// Say that it may be replaced, or choose another folder.
    #[error(
        "there is a database already, {0}; replace it with --force (it is kept beside), or restore into another folder with \
         --state"
    )]
    Taken(String),
    /// Take another one.
    #[error("{0} is damaged: {1}")]
    Damaged(String, String),
    /// Look at disk and permissions.
    #[error("{0}: {1}")]
    Failed(String, String),
    /// The store says what to do.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Likewise.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A copy that was made.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// How many experiments are in it.
    pub experiments: u64,
}

/// A database that was put back.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The copy.
    pub copied: Copied,
    /// Attempts that ran when it was taken, and are queued again.
    pub interrupted: u64,
    /// IDs go on from here.
    pub next_id: u64,
    /// No lease from before can be held any more: it dispatches at once.
    pub settled: bool,
    /// Where the database went that was there before.
    pub moved_aside: Option<PathBuf>,
}

/// What the database knew that is replaced.
#[derive(Debug, Clone, Copy)]
struct Known {
    last_id: u64,
    running: u64,
}

/// Copies the database `from` to the file `to`, readable by its owner only.
///
/// # Errors
/// When `to` is there and may not be replaced, `from` is damaged, or the disk is full.
pub fn back_up(from: &Path, to: &Path, replace: bool) -> std::result::Result<Copied, CopyError> {
    if !replace && fs::symlink_metadata(to).is_ok() {
        return Err(CopyError::Exists(to.display().to_string()));
    }
    let folder = folder(to);
    let beside = tempfile::Builder::new().prefix(".cnx-backup-").suffix(".part").tempfile_in(&folder);
    let beside = beside.map_err(|e| failed("cannot write into", &folder, &io::Error::from(e.kind())))?;
    let copied = copy(from, beside.path())?;
    let placed = match replace {
        true => beside.persist(to),
        false => beside.persist_noclobber(to),
    };
    match placed {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(CopyError::Exists(to.display().to_string()));
        }
        Err(error) => return Err(failed("cannot write", to, &error.error)),
    }
    sync_folder(&folder)?;
    Ok(copied)
}

/// Puts a backup in the place of the database `to`, whose folder nobody else uses. What ran when it was taken goes back to the
/// queue, and IDs go on beyond all that may have been given since: beyond those of the database that is there, if it
/// can be read, and `highest_artifact`; else far beyond. Unless that database shows that no lease is held, the coordinator will
/// wait for as long as one lasts before it gives any.
///
/// # Errors
/// When there is a database and it may not be replaced, or the backup cannot be used; then all is as it was.
pub async fn restore(
    from: &Path,
    to: &Path,
    highest_artifact: u64,
    replace: bool,
    now: Now,
) -> std::result::Result<Restored, CopyError> {
    let there = fs::symlink_metadata(to).is_ok();
    if there && !replace {
        return Err(CopyError::Taken(to.display().to_string()));
    }
    let folder = folder(to);
    let beside = tempfile::Builder::new().prefix(".cnx-restore-").suffix(".part").tempfile_in(&folder);
    let beside = beside.map_err(|e| failed("cannot write into", &folder, &io::Error::from(e.kind())))?;
    let copied = copy(from, beside.path())?;
    let known = if there { known(to).ok() } else { None };
    let _litter = Litter(beside.path().to_owned());
    let store = Store::open(beside.path()).await?;
    let settled = known.is_some_and(|known| known.running == 0);
    let done = store.begin_anew(known, highest_artifact, settled, now).await;
    store.close().await;
    let (interrupted, next_id) = done?;
    sync(beside.path())?;
    let moved_aside = if there { Some(set_aside(to, now)?) } else { None };
    beside.persist(to).map_err(|e| failed("cannot write", to, &e.error))?;
    sync_folder(&folder)?;
    Ok(Restored { copied, interrupted, next_id, settled, moved_aside })
}

/// What SQLite may leave beside a copy that was opened; gone when dropped.
struct Litter(PathBuf);

impl Drop for Litter {
    fn drop(&mut self) {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&self.0, suffix));
        }
    }
}

/// One moment of `from`, looked over and on disk.
fn copy(from: &Path, to: &Path) -> std::result::Result<Copied, CopyError> {
    let no_database =
        |e: &dyn std::fmt::Display| CopyError::NoDatabase(from.display().to_string(), e.to_string());
    if !from.is_file() {
        return Err(no_database(&"there is no such file"));
    }
    let source = open_read_only(from).map_err(|e| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            CopyError::Damaged(from.display().to_string(), e.to_string())
        }
        _ => no_database(&e),
    })?;
    let known: std::result::Result<i64, _> = source.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('experiments', '_sqlx_migrations')",
        [],
        |r| r.get(0),
    );
    if known.map_err(|e| no_database(&e))? != 2 {
        return Err(no_database(&"it has none of its tables"));
    }
    let told = source.execute("VACUUM INTO ?", [path_text(to)?]);
    told.map_err(|e| match StoreError::from(e) {
        StoreError::Full => failed("the disk is full", to, &"free some space, or name another place"),
        other => CopyError::Damaged(from.display().to_string(), other.to_string()),
    })?;
    drop(source);
    let copied = look_over(to)?;
    sync(to)?;
    Ok(copied)
}

fn look_over(copy: &Path) -> std::result::Result<Copied, CopyError> {
    let damaged = |e: &dyn std::fmt::Display| CopyError::Damaged("the copy".to_owned(), e.to_string());
    let connection = open_read_only(copy).map_err(|e| damaged(&e))?;
    let one = |query: &str| connection.query_row(query, [], |row| row.get::<_, String>(0));
    let found = one("PRAGMA integrity_check(1)").map_err(|e| damaged(&e))?;
    if found != "ok" {
        return Err(damaged(&found));
    }
    let dangling = one("SELECT count(*) || '' FROM pragma_foreign_key_check").map_err(|e| damaged(&e))?;
    if dangling != "0" {
        return Err(damaged(&format!("{dangling} of its references lead nowhere")));
    }
    let experiments: i64 = connection
        .query_row("SELECT count(*) FROM experiments", [], |row| row.get(0))
        .map_err(|e| damaged(&e))?;
    let bytes = fs::metadata(copy).map_err(|e| failed("cannot read", copy, &e))?.len();
    Ok(Copied { bytes, experiments: unsigned(Some(experiments)) })
}

/// The highest ID that a database ever gave, and how many leases it has given that may be held.
fn known(database: &Path) -> Result<Known> {
    let connection = open_read_only(database)?;
    let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, Option<i64>>(0));
    let running = number("SELECT count(*) FROM attempts WHERE ended_at_ms IS NULL")?;
    Ok(Known { last_id: unsigned(number(LAST_ID)?), running: unsigned(running) })
}

const LAST_ID: &str = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'experiments'";

/// Moves a database out of the way, with its log if that cannot be folded in. It stays in its place too until another one
/// replaces it, so that at no time there is none.
fn set_aside(database: &Path, now: Now) -> std::result::Result<PathBuf, CopyError> {
    let aside = with_suffix(database, &format!(".before-restore-{}", now.ms));
    let folded = Connection::open(database).and_then(|connection| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    });
    let cannot = |e: io::Error| failed("cannot move aside", database, &e);
    for suffix in ["-wal", "-shm"] {
        let beside = with_suffix(database, suffix);
        let kept = match folded {
            Ok(0) => fs::remove_file(&beside),
            _ => fs::rename(&beside, with_suffix(&aside, suffix)),
        };
        match kept {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
    }
    fs::hard_link(database, &aside).or_else(|_| fs::copy(database, &aside).map(drop)).map_err(cannot)?;
    Ok(aside)
}

impl Store {
    /// What a restored database must know: its leases are void, and IDs go on beyond what is known or, where nothing is, far
    /// beyond what it knows itself. Tells how many attempts were interrupted, and the next ID.
    async fn begin_anew(
        &self,
        known: Option<Known>,
        highest_artifact: u64,
        settled: bool,
        now: Now,
    ) -> Result<(u64, u64)> {
        let running = self.leases().await?;
        let void: Vec<Interrupted> = running
            .into_iter()
            .map(|granted| Interrupted {
                lease: granted.lease,
                failure: interrupted("the database was restored from a backup".to_owned()),
            })
            .collect();
        self.write(move |tx| {
            let newest: Option<(Option<i64>,)> = tx.first("SELECT max(at_ms) FROM events", [])?;
            interrupt_all(tx, &void, now)?;
            let own: Option<(Option<i64>,)> = tx.first(LAST_ID, [])?;
            let own = unsigned(own.and_then(|(own,)| own));
            let last = match known {
                Some(known) => known.last_id.max(highest_artifact).max(own),
                None => own.max(highest_artifact) + UNKNOWN_IDS,
            };
            tx.execute("DELETE FROM sqlite_sequence WHERE name = 'experiments'", [])?;
            tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('experiments', ?)", [sql(last)])?;
            tx.execute(
                "INSERT INTO restores (at_ms, newest_ms, settled) VALUES (?, ?, ?)",
                params![sql(now.ms), newest.and_then(|(ms,)| ms), settled],
            )?;
            Ok((void.len() as u64, last + 1))
        })
        .await
    }

    /// Whether the database was restored, and leases that it does not know may still be held.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_unsettled(&self) -> Result<bool> {
        let unsettled: i64 = sqlx::query_scalar("SELECT count(*) FROM restores WHERE NOT settled")
            .fetch_one(&self.readers)
            .await?;
        Ok(unsettled > 0)
    }

    /// No lease from before the restore is held any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn settled(&self) -> Result<()> {
        self.write(|tx| tx.execute("UPDATE restores SET settled = 1 WHERE NOT settled", []).map(drop)).await
    }
}

fn path_text(path: &Path) -> std::result::Result<&str, CopyError> {
    path.to_str().ok_or_else(|| failed("cannot write", path, &"SQLite needs a name in UTF-8"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn sync(file: &Path) -> std::result::Result<(), CopyError> {
    File::open(file).and_then(|file| file.sync_all()).map_err(|e| failed("cannot write", file, &e))
}

fn sync_folder(folder: &Path) -> std::result::Result<(), CopyError> {
    sync(folder)
}

fn failed(what: &str, path: &Path, why: &dyn std::fmt::Display) -> CopyError {
    CopyError::Failed(format!("{what} {}", path.display()), why.to_string())
}
