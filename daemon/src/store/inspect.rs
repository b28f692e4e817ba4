//! Looks at a database from beside it, for `cnx doctor`: reads only, on a connection of its own, whether a coordinator
//! runs on it or not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use url::Url;

use cnx_proto::v1::Finding;

use super::ready::demand;
use super::{Result, StoreError, sql, unsigned};
use crate::doctor::finding::{NAMED, counted, problem, size, well};
use crate::schedule::{Capacity, Demand};

const AREA: &str = "database";

/// How long somebody else may hold the lock.
const BUSY: Duration = Duration::from_secs(10);

/// Larger databases are checked page by page, but not each index against its table: that would take minutes.
const FULLY_CHECKED_BYTES: u64 = 1 << 30;

/// A write-ahead log that grew so large is not being folded in.
const LARGE_LOG_BYTES: u64 = 1 << 30;

const RESTORE: &str = "Stop the coordinator and restore the newest backup: cnx restore FILE --force (what is there now is \
                       kept beside it).";
const DEFECT: &str = "This is a defect of cnx, or somebody wrote into the database. Take a backup (cnx backup), report it, and leave these \
     experiments alone; submitting them again with --force works around it.";

/// What must hold between rows, beyond what the tables themselves enforce: a sentence of what is wrong, and a query for
/// the rows where it is.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "the number of experiments in a state is kept wrongly",
        "SELECT k.state FROM state_counts k WHERE k.count <>
             (SELECT count(*) FROM experiments WHERE iif(paused, 'paused', state) = k.state)",
    ),
    (
        "a running experiment has no running attempt of its number",
        "SELECT e.id FROM experiments e WHERE e.state = 'running' AND NOT EXISTS (SELECT 1 FROM attempts a
             WHERE a.experiment = e.id AND a.attempt = e.attempt AND a.ended_at_ms IS NULL)",
    ),
    (
        "an attempt runs whose experiment does not",
        "SELECT a.experiment FROM attempts a JOIN experiments e ON e.id = a.experiment
         WHERE a.ended_at_ms IS NULL AND (e.state <> 'running' OR e.attempt <> a.attempt)",
    ),
    (
        "an attempt has a higher number than its experiment's newest",
        "SELECT a.experiment FROM attempts a JOIN experiments e ON e.id = a.experiment WHERE a.attempt > e.attempt",
    ),
    (
        "an attempt is over without an outcome, or has one and is not over",
        "SELECT experiment FROM attempts WHERE (ended_at_ms IS NULL) <> (outcome = 'running')",
    ),
    (
        "the number of others that an experiment waits for is kept wrongly",
        "SELECT e.id FROM experiments e WHERE e.state = 'queued' AND e.waits_for <> (SELECT count(*) FROM dependencies d
             JOIN experiments n ON n.id = d.needs WHERE d.experiment = e.id AND n.state <> 'succeeded')",
    ),
    (
        "an experiment waits for one that failed or was cancelled",
        "SELECT e.id FROM experiments e JOIN dependencies d ON d.experiment = e.id JOIN experiments n ON n.id = d.needs
         WHERE e.state = 'queued' AND n.state IN ('failed', 'cancelled')",
    ),
    (
        "an experiment that another waits for does not know it",
        "SELECT DISTINCT n.id FROM dependencies d JOIN experiments n ON n.id = d.needs WHERE NOT n.needed",
    ),
    (
        "an experiment is final without a time, or has one and is not final",
        "SELECT id FROM experiments WHERE (finished_at_ms IS NOT NULL) <> (state IN ('succeeded', 'failed', 'cancelled'))",
    ),
    (
        "an experiment failed without a reason",
        "SELECT id FROM experiments WHERE state = 'failed' AND failure IS NULL",
    ),
    (
        "an experiment that does not wait is paused, or one that does not run is being stopped",
        "SELECT id FROM experiments WHERE (paused AND state <> 'queued')
             OR ((cancelling OR stopping IS NOT NULL) AND state <> 'running')",
    ),
    (
        "an experiment asks for a worker that is not described, or counts for a sweep that does not exist",
        "SELECT e.id FROM experiments e WHERE NOT EXISTS (SELECT 1 FROM demands d WHERE d.id = e.demand)
             OR (e.share <> 0 AND NOT EXISTS (SELECT 1 FROM sweeps s WHERE s.id = e.share))",
    ),
];

/// A database that is looked at.
#[derive(Debug)]
pub struct Inspector {
    connection: Connection,
    file: PathBuf,
}

/// An attempt that runs, by its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningRow {
    /// The experiment.
    pub experiment: u64,
    /// The attempt.
    pub attempt: u32,
    /// Who has it.
    pub worker: String,
}

/// Experiments that wait and are ready, by what they need of a worker.
#[derive(Debug, Clone)]
pub struct WaitingRow {
    /// What they need.
    pub demand: Demand,
    /// How many.
    pub count: u64,
    /// The oldest of them.
    pub oldest: u64,
}

/// A worker that attached at some time.
#[derive(Debug, Clone)]
pub struct WorkerRow {
    /// Its name.
    pub name: String,
    /// Of cnx-worker.
    pub version: String,
    /// What it had when it last attached.
    pub has: Capacity,
}

/// An artifact's row.
#[derive(Debug, Clone)]
pub struct FileRow {
    /// Below the artifacts URL.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Inspector {
    /// Opens a database for reading only.
    ///
    /// # Errors
    /// When it is missing or no database.
    pub fn open(file: &Path) -> Result<Inspector> {
        Ok(Inspector { connection: open_read_only(file)?, file: file.to_owned() })
    }

    /// Pages, indexes, references, and what must hold between rows.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.pages()];
        findings.push(self.references().unwrap_or_else(|error| unreadable(&error)));
        let broken: Vec<Finding> =
            INVARIANTS.iter().filter_map(|(wrong, query)| self.broken(wrong, query)).collect();
        match broken.is_empty() {
            true => {
                findings.push(well(AREA, format!("all {} rules between its rows hold", INVARIANTS.len())))
            }
            false => findings.extend(broken),
        }
        findings.push(self.log());
        findings
    }

    fn pages(&self) -> Finding {
        let bytes = std::fs::metadata(&self.file).map_or(0, |m| m.len());
        let (pragma, how) = match bytes <= FULLY_CHECKED_BYTES {
            true => ("PRAGMA integrity_check(5)", "every page and index is sound"),
            false => ("PRAGMA quick_check(5)", "every page is sound"),
        };
        match self.texts(pragma) {
            Ok(found) if found == ["ok"] => {
                well(AREA, format!("{how} ({})", size(self.bytes().unwrap_or(bytes))))
            }
            Ok(found) => problem(AREA, "it is damaged", found, RESTORE),
            Err(error) => unreadable(&error),
        }
    }

    /// Its size, with what is still in the log.
    fn bytes(&self) -> Result<u64> {
        let query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        Ok(unsigned(self.connection.query_row(query, [], |row| row.get(0))?))
    }

    fn references(&self) -> Result<Finding> {
        let broken = self.texts(
            "SELECT \"table\" || ' row ' || coalesce(rowid, '?') || ' names a missing ' || parent
                                 FROM pragma_foreign_key_check LIMIT 100",
        )?;
        Ok(match broken.is_empty() {
            true => well(AREA, "every reference between its tables leads somewhere"),
            false => problem(
                AREA,
                format!("{} to rows that are not there", counted(broken.len() as u64, "reference")),
                named(broken),
                RESTORE,
            ),
        })
    }

    fn broken(&self, wrong: &str, query: &str) -> Option<Finding> {
        match self.texts(&format!("SELECT * FROM ({query}) LIMIT 1000")) {
            Ok(which) if which.is_empty() => None,
            Ok(which) => Some(problem(AREA, format!("{wrong} ({})", which.len()), named(which), DEFECT)),
            Err(error) => Some(unreadable(&error)),
        }
    }

    fn log(&self) -> Finding {
        let mut name = self.file.as_os_str().to_owned();
        name.push("-wal");
        let bytes = std::fs::metadata(name).map_or(0, |m| m.len());
        match bytes < LARGE_LOG_BYTES {
            true => well(AREA, format!("its write-ahead log is short ({})", size(bytes))),
            false => problem(
                AREA,
                format!("its write-ahead log has grown to {}", size(bytes)),
                Vec::new(),
                "Something reads the database without an end (a backup, somebody's sqlite3). End that; the log shrinks when \
                 the coordinator is restarted.",
            ),
        }
    }

    /// What runs, by experiment.
    ///
    /// # Errors
    /// When it cannot be read; so do all methods here.
    pub fn running(&self) -> Result<Vec<RunningRow>> {
        self.rows(
            "SELECT experiment, attempt, worker FROM attempts WHERE ended_at_ms IS NULL ORDER BY experiment",
            |row| {
                Ok(RunningRow {
                    experiment: unsigned(row.get(0)?),
                    attempt: row.get(1)?,
                    worker: row.get(2)?,
                })
            },
        )
    }

    /// What waits and is ready, by what it needs.
    ///
    /// # Errors
    /// See [`Inspector::running`].
    pub fn waiting(&self) -> Result<Vec<WaitingRow>> {
        let query = "SELECT d.gpus, d.memory_gib, d.labels, count(*), min(e.id) FROM experiments e JOIN demands d ON d.id = e.demand
             WHERE e.state = 'queued' AND e.paused = 0 AND e.waits_for = 0 GROUP BY e.demand ORDER BY min(e.id)";
        self.rows(query, |row| {
            let labels: String = row.get(2)?;
            let demand = demand(row.get(0)?, row.get(1)?, &labels);
            Ok(WaitingRow { demand, count: unsigned(row.get(3)?), oldest: unsigned(row.get(4)?) })
        })
    }

    /// Every worker that ever attached, by name.
    ///
    /// # Errors
    /// See [`Inspector::running`].
    pub fn workers(&self) -> Result<Vec<WorkerRow>> {
        self.rows("SELECT name, version, device, memory_gib, labels FROM workers ORDER BY name", |row| {
            let (device, labels): (String, String) = (row.get(2)?, row.get(4)?);
            Ok(WorkerRow {
                name: row.get(0)?,
                version: row.get(1)?,
                has: Capacity::new(
                    &device,
                    row.get(3)?,
                    labels.split_whitespace().map(str::to_owned).collect(),
                ),
            })
        })
    }

    /// Calls `each` with every artifact that should have its file. Those of experiments that run are left out: they come and
    /// go.
    ///
    /// # Errors
    /// See [`Inspector::running`].
    pub fn each_file(&self, mut each: impl FnMut(FileRow)) -> Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT a.name, a.bytes FROM artifacts a JOIN experiments e ON e.id = a.experiment
             WHERE NOT a.deleted AND e.state <> 'running'",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(FileRow { name: row.get(0)?, bytes: unsigned(row.get(1)?) });
        }
        Ok(())
    }

    /// Whether an artifact of that name should have a file.
    ///
    /// # Errors
    /// See [`Inspector::running`].
    pub fn knows_file(&self, name: &str) -> Result<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM artifacts WHERE name = ? AND NOT deleted")?;
        Ok(statement.exists([name])?)
    }

    /// Whether an experiment runs; none if there is none of that ID.
    ///
    /// # Errors
    /// See [`Inspector::running`].
    pub fn runs(&self, experiment: u64) -> Result<Option<bool>> {
        let mut statement =
            self.connection.prepare_cached("SELECT state = 'running' FROM experiments WHERE id = ?")?;
        Ok(statement.query_row([sql(experiment)], |row| row.get(0)).optional()?)
    }

    /// Unix time of the newest event; none if nothing ever happened.
    ///
    /// # Errors
    /// See [`Inspector::running`].
    pub fn newest_event_ms(&self) -> Result<Option<u64>> {
        let query = "SELECT at_ms FROM events ORDER BY id DESC LIMIT 1";
        let newest: Option<i64> = self.connection.query_row(query, [], |row| row.get(0)).optional()?;
        Ok(newest.map(|ms| unsigned(Some(ms))))
    }

    fn rows<T>(&self, query: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        let mut statement = self.connection.prepare(query)?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<T>>>()?)
    }

    fn texts(&self, query: &str) -> Result<Vec<String>> {
        use rusqlite::types::Value;
        self.rows(query, |row| {
            Ok(match row.get(0)? {
                Value::Text(text) => text,
                Value::Integer(number) => number.to_string(),
                other => format!("{other:?}"),
            })
        })
    }
}

fn named(mut which: Vec<String>) -> Vec<String> {
    let more = which.len().saturating_sub(NAMED);
    which.truncate(NAMED);
    if more > 0 {
        which.push(format!("and {more} more"));
    }
    which
}

fn unreadable(error: &StoreError) -> Finding {
    problem(AREA, format!("it cannot be read: {error}"), Vec::new(), RESTORE)
}

/// Opens a database so that nothing of it is changed, not even its log folded in.
pub(super) fn open_read_only(file: &Path) -> rusqlite::Result<Connection> {
    let open = |file: &Path, flags| -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let opened = open(file, OpenFlags::empty());
    // In a folder that cannot be written, SQLite can make no memory to share beside it. If it has no log, it needs none.
    let immutable = || {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let has_log = std::fs::metadata(log).is_ok_and(|m| m.len() > 0);
        let url = Url::from_file_path(std::path::absolute(file).ok()?).ok()?;
        (!has_log).then(|| PathBuf::from(format!("{url}?immutable=1")))
    };
    match opened {
        Err(error) if file.is_file() && cannot_share(&error) => match immutable() {
            Some(url) => open(&url, OpenFlags::SQLITE_OPEN_URI),
            None => Err(error),
        },
        opened => opened,
    }
}

fn cannot_share(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly))
}
