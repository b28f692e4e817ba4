//! Gives leases and takes them back.

use rusqlite::params;

use cnx_proto::v1::{Hello, Lease};

use super::{Now, Result, Store, StoreError, Tx, row, sql, unsigned, unsigned32};
use crate::lifecycle::{Ending, Event, Failure, State};
use crate::schedule::Candidate;

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
    /// Whether a person cancelled it since.
    pub cancelling: bool,
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
    /// The oldest queued experiments whose back-off is over, at most so many of either kind.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn candidates(&self, cpu: u32, gpu: u32, now_ms: u64) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for (needs_gpu, limit) in [(false, cpu), (true, gpu)] {
            let ids: Vec<i64> = sqlx::query_scalar(
                "SELECT id FROM experiments WHERE state = 'queued' AND needs_gpu = ? AND not_before_ms <= ?
                 ORDER BY id LIMIT ?",
            )
            .bind(needs_gpu)
            .bind(sql(now_ms))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
            found.extend(ids.iter().map(|&id| Candidate { experiment: unsigned(Some(id)), needs_gpu }));
        }
        Ok(found)
    }

    /// When the next back-off ends.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_backoff_ms(&self, now_ms: u64) -> Result<Option<u64>> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(not_before_ms) FROM experiments
             WHERE state = 'queued' AND not_before_ms > 0 AND not_before_ms > ?",
        )
        .bind(sql(now_ms))
        .fetch_one(&self.readers)
        .await?;
        Ok(next.map(|ms| unsigned(Some(ms))))
    }

    /// Commits leases, before any worker hears of them. What was cancelled in between is left out.
    ///
    /// # Errors
    /// When the database cannot be written; then no lease was given.
    pub async fn lease(&self, assignments: &[Assignment], now: Now) -> Result<Vec<Granted>> {
        let assignments = assignments.to_vec();
        self.write(move |tx| {
            let mut granted = Vec::with_capacity(assignments.len());
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
        let rows: Vec<(i64, i64, String, String, bool)> = sqlx::query_as(
            "SELECT e.id, a.attempt, a.token, a.worker, e.cancelling
             FROM experiments e JOIN attempts a ON a.experiment = e.id AND a.attempt = e.attempt
             WHERE e.state = 'running' AND a.ended_at_ms IS NULL",
        )
        .fetch_all(&self.readers)
        .await?;
        let granted = |(id, attempt, token, worker, cancelling)| Granted {
            lease: Lease { experiment: unsigned(Some(id)), attempt: unsigned32(Some(attempt)), token },
            worker,
            spec_json: String::new(),
            lineage: Vec::new(),
            cancelling,
        };
        Ok(rows.into_iter().map(granted).collect())
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
                "INSERT INTO workers (name, host, device, slots, version, first_seen_ms, last_seen_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                 ON CONFLICT (name) DO UPDATE SET host = ?2, device = ?3, slots = ?4, version = ?5, last_seen_ms = ?6",
                params![hello.worker, hello.host, hello.device, hello.slots, hello.version, sql(now.ms)],
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
    let found = tx.first("SELECT spec_json, retry_of FROM experiments WHERE id = ?", [sql(experiment)])?;
    let Some((spec_json, retry_of)): Option<(String, Option<i64>)> = found else { return Ok(None) };
    let lineage = if retry_of.is_some() { lineage(tx, experiment)? } else { vec![experiment] };
    let lease = Lease { experiment, attempt, token };
    Ok(Some(Granted { lease, worker, spec_json, lineage, cancelling: false }))
}

fn interrupt_all(tx: &Tx<'_>, attempts: &[Interrupted], now: Now) -> Result<()> {
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
