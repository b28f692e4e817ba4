//! Gives leases and takes them back.

use rusqlite::params;
use sqlx::FromRow;

use cnx_proto::v1::{Hello, Lease};

use super::{Now, Result, Store, StoreError, Tx, hold, row, sql, unsigned, unsigned32};
use crate::lifecycle::{Ending, Event, Failure, State, Stopping};

/// A lease to be given.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The experiment.
    pub experiment: u64,
    /// Who is to run it.
    pub worker: String,
    /// Random; names the lease from now on.
    pub token: String,
}

/// A lease that is on disk: its worker may be told.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The lease.
    pub lease: Lease,
    /// Who holds it.
    pub worker: String,
    /// What it is to run.
    pub spec_json: String,
    /// Itself, then what it retries, and what that retried.
    pub lineage: Vec<u64>,
    /// What was asked of it since.
    pub stopping: Option<Stopping>,
    /// Since when, Unix time.
    pub since_ms: u64,
    /// What the schedule goes by.
    pub standing: Standing,
}

/// What the schedule goes by while an experiment runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub struct Standing {
    /// A higher one may preempt it.
    pub priority: i32,
    /// The sweep whose share of the slots it counts against; 0: what belongs to none.
    pub share: i64,
    /// Memory that is set aside for it.
    pub memory_gib: u32,
}

/// An attempt to be ended because its lease ended.
#[derive(Debug, Clone)]
pub struct Interrupted {
    /// The lease.
    pub lease: Lease,
    /// What happened.
    pub failure: Failure,
}

/// Retries of retries followed back for checkpoints; older ones have none worth going on from.
const MAX_LINEAGE: i64 = 100;

impl Store {
    /// Commits leases, before any worker hears of them. What was cancelled or paused in between is left out.
    ///
    /// # Errors
    /// When the database cannot be written; then no lease was given.
    pub async fn lease(&self, assignments: &[Assignment], now: Now) -> Result<Vec<Granted>> {
        let assignments = assignments.to_vec();
        self.write(move |tx| {
            let mut granted = Vec::with_capacity(assignments.len());
            if hold::queue_is_paused(tx)? {
                return Ok(granted);
            }
            for assignment in assignments {
                granted.extend(grant(tx, assignment, now)?);
            }
            Ok(granted)
        })
        .await
    }

    /// Every lease that is held: where a restart goes on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn leases(&self) -> Result<Vec<Granted>> {
        let rows: Vec<HeldRow> = sqlx::query_as(
            "SELECT e.id, a.attempt, a.token, a.worker, a.started_at_ms, e.cancelling, e.stopping,
                 e.priority, e.share, d.memory_gib
             FROM experiments e JOIN attempts a ON a.experiment = e.id AND a.attempt = e.attempt
             JOIN demands d ON d.id = e.demand
             WHERE e.state = 'running' AND a.ended_at_ms IS NULL",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.into_iter().map(HeldRow::granted).collect())
    }

    /// Asks these running experiments to make room for others; tells which of them do.
    ///
    /// # Errors
    /// When the database cannot be written; then none of them does.
    pub async fn preempt(&self, experiments: &[u64], now: Now) -> Result<Vec<u64>> {
        let experiments = experiments.to_vec();
        self.write(move |tx| {
            let mut stopping = Vec::with_capacity(experiments.len());
            for id in experiments {
                let what = "preempted: a higher priority wants its slot; its worker is told to stop";
                match row::apply(tx, id, Event::PreemptRequested, what, now) {
                    Ok(_) => stopping.push(id),
                    Err(StoreError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(stopping)
        })
        .await
    }

    /// Ends attempts whose lease is gone, unless they ended already.
    ///
    /// # Errors
    /// When the database cannot be written; then all of them still run.
    pub async fn interrupt(&self, attempts: &[Interrupted], now: Now) -> Result<()> {
        if attempts.is_empty() {
            return Ok(());
        }
        let attempts = attempts.to_vec();
        self.write(move |tx| interrupt_all(tx, &attempts, now)).await
    }

    /// Records a worker that attaches, and ends the attempts that it lost.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn attach(&self, hello: &Hello, lost: &[Interrupted], now: Now) -> Result<()> {
        let (hello, lost) = (hello.clone(), lost.to_vec());
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO workers (name, host, device, slots, version, first_seen_ms, last_seen_ms, memory_gib, labels)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)
                 ON CONFLICT (name) DO UPDATE SET host = ?2, device = ?3, slots = ?4, version = ?5, last_seen_ms = ?6,
                     memory_gib = ?7, labels = ?8",
                params![
                    hello.worker,
                    hello.host,
                    hello.device,
                    hello.slots,
                    hello.version,
                    sql(now.ms),
                    hello.memory_gib,
                    hello.labels.join(" ")
                ],
            )?;
            interrupt_all(tx, &lost, now)
        })
        .await
    }

    /// Records when a worker was last seen.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn detach(&self, worker: &str, now: Now) -> Result<()> {
        let worker = worker.to_owned();
        self.write(move |tx| {
            tx.execute("UPDATE workers SET last_seen_ms = ? WHERE name = ?", params![sql(now.ms), worker])?;
            Ok(())
        })
        .await
    }
}

#[derive(FromRow)]
struct HeldRow {
    id: i64,
    attempt: i64,
    token: String,
    worker: String,
    started_at_ms: i64,
    cancelling: bool,
    stopping: Option<String>,
    #[sqlx(flatten)]
    standing: Standing,
}

impl HeldRow {
    fn granted(self) -> Granted {
        let (experiment, attempt) = (unsigned(Some(self.id)), unsigned32(Some(self.attempt)));
        Granted {
            lease: Lease { experiment, attempt, token: self.token },
            worker: self.worker,
            spec_json: String::new(),
            lineage: Vec::new(),
            stopping: row::stopping(self.cancelling, self.stopping.as_deref()),
            since_ms: unsigned(Some(self.started_at_ms)),
            standing: self.standing,
        }
    }
}

/// The attempt's row, unless the experiment cannot be leased any more.
fn grant(tx: &Tx<'_>, assignment: Assignment, now: Now) -> Result<Option<Granted>> {
    let Assignment { experiment, worker, token } = assignment;
    let attempt = match row::apply(tx, experiment, Event::Leased, &format!("leased to {worker}"), now) {
        Ok(State::Running { attempt, .. }) => attempt,
        Ok(_) | Err(StoreError::Refused(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    tx.execute(
        "INSERT INTO attempts (experiment, attempt, token, worker, started_at_ms) VALUES (?, ?, ?, ?, ?)",
        params![sql(experiment), attempt, token, worker, sql(now.ms)],
    )?;
    let found: Option<(String, Option<i64>, i32, i64, u32)> = tx.first(
        "SELECT e.spec_json, e.retry_of, e.priority, e.share, d.memory_gib
         FROM experiments e JOIN demands d ON d.id = e.demand WHERE e.id = ?",
        [sql(experiment)],
    )?;
    let Some((spec_json, retry_of, priority, share, memory_gib)) = found else { return Ok(None) };
    let standing = Standing { priority, share, memory_gib };
    let lineage = if retry_of.is_some() { lineage(tx, experiment)? } else { vec![experiment] };
    let lease = Lease { experiment, attempt, token };
    Ok(Some(Granted { lease, worker, spec_json, lineage, stopping: None, since_ms: now.ms, standing }))
}

pub(super) fn interrupt_all(tx: &Tx<'_>, attempts: &[Interrupted], now: Now) -> Result<()> {
    for Interrupted { lease, failure } in attempts {
        if !holds(tx, lease)? {
            continue;
        }
        let event = Event::Ended(Ending::Failed(failure.clone()));
        row::apply(tx, lease.experiment, event, &failure.to_string(), now)?;
    }
    Ok(())
}

/// The guard of every change to a running attempt: no row, no right.
fn holds(tx: &Tx<'_>, lease: &Lease) -> Result<bool> {
    let found: Option<(i64,)> = tx.first(
        "SELECT 1 FROM attempts WHERE experiment = ? AND attempt = ? AND token = ? AND ended_at_ms IS NULL",
        params![sql(lease.experiment), lease.attempt, lease.token],
    )?;
    Ok(found.is_some())
}

/// Itself, then what it retries, newest first.
pub(super) fn lineage(tx: &Tx<'_>, experiment: u64) -> Result<Vec<u64>> {
    let ids: Vec<(i64,)> = tx.all(
        "WITH RECURSIVE line (id, retry_of, depth) AS (
             SELECT id, retry_of, 0 FROM experiments WHERE id = ?1
             UNION ALL
             SELECT e.id, e.retry_of, line.depth + 1 FROM line JOIN experiments e ON e.id = line.retry_of
             WHERE line.depth < ?2)
         SELECT id FROM line ORDER BY depth",
        params![sql(experiment), MAX_LINEAGE],
    )?;
    Ok(ids.into_iter().map(|(id,)| unsigned(Some(id))).collect())
}
