//! What is read. Nothing here changes a row.

use prost::Message;
use sqlx::{FromRow, Row, SqlitePool};

use cnx_proto::v1::{
    Artifact, ArtifactKind, Attempt, Environment, EpochMetrics, Event, Experiment, FailureClass, Figures,
    LogLine, ResultRow, State, WorkerInfo,
};

use super::{Result, Selection, Store, StoreError, row, sql, unsigned, unsigned32};

/// How many experiments wait, run and are paused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Queued.
    pub queued: u64,
    /// Running.
    pub running: u64,
    /// Paused.
    pub paused: u64,
}

/// Records of one kind in an answer, the newest; an experiment has far fewer unless something goes round in circles.
const MOST_RECORDS: u32 = 1000;
const MOST_EPOCHS: u32 = 20_000;

/// What the database knows of an experiment besides its curve.
#[derive(Debug)]
pub struct Records {
    /// Newest last.
    pub attempts: Vec<Attempt>,
    /// By epoch.
    pub epochs: Vec<EpochMetrics>,
    /// Those whose file was not deleted, by epoch.
    pub artifacts: Vec<Artifact>,
    /// Oldest first.
    pub events: Vec<Event>,
    /// If it has them.
    pub figures: Option<Figures>,
}

/// A log line and its place in the log.
#[derive(Debug)]
pub struct NumberedLine {
    /// Increases within the log.
    pub number: u64,
    /// The line.
    pub line: LogLine,
}

/// One row of `status`, each subquery answered by an index.
macro_rules! status {
    ($filter:literal) => {
        concat!(
            "SELECT e.id, e.name, iif(e.paused, 'paused', e.state) AS state, e.spec_json, e.attempt, e.retry_of, e.submitted_at_ms,
                e.started_at_ms, e.finished_at_ms, e.failure, e.message, e.cancelling, e.not_before_ms,
                e.priority, e.stopping,
                (SELECT group_concat(id) FROM (SELECT n.id FROM dependencies d JOIN experiments n ON n.id = d.needs
                 WHERE e.waits_for > 0 AND d.experiment = e.id AND n.state <> 'succeeded' LIMIT 100)) AS after,
                a.worker, a.resumed_at_epoch,
                (SELECT max(epoch) FROM epochs WHERE experiment = e.id) AS epochs_done,
                (SELECT top1_error FROM epochs WHERE experiment = e.id ORDER BY epoch DESC LIMIT 1) AS top1_error,
                (SELECT figures FROM figures WHERE experiment = e.id
                 AND NOT EXISTS (SELECT 1 FROM epochs WHERE experiment = e.id)) AS figures_of_job,
                (SELECT group_concat(s.name) FROM sweep_members m JOIN sweeps s ON s.id = m.sweep
                 WHERE m.experiment = e.id) AS sweeps
             FROM experiments e LEFT JOIN attempts a ON a.experiment = e.id AND a.attempt = e.attempt ",
            $filter,
            " ORDER BY e.id DESC LIMIT ?"
        )
    };
}

#[derive(FromRow)]
struct StatusRow {
    id: i64,
    name: String,
    state: String,
    spec_json: String,
    attempt: i64,
    retry_of: Option<i64>,
    submitted_at_ms: i64,
    started_at_ms: Option<i64>,
    finished_at_ms: Option<i64>,
    failure: Option<String>,
    message: Option<String>,
    cancelling: bool,
    not_before_ms: i64,
    priority: i32,
    stopping: Option<String>,
    after: Option<String>,
    worker: Option<String>,
    resumed_at_epoch: Option<i64>,
    epochs_done: Option<i64>,
    top1_error: Option<f64>,
    figures_of_job: Option<Vec<u8>>,
    sweeps: Option<String>,
}

impl StatusRow {
    fn encode(self) -> Experiment {
        let state = State::from_label(&self.state).unwrap_or_default();
        let failure = self.failure.as_deref().and_then(FailureClass::from_label).unwrap_or_default();
        Experiment {
            id: unsigned(Some(self.id)),
            name: self.name,
            state: state.into(),
            spec_json: self.spec_json,
            attempt: unsigned32(Some(self.attempt)),
            retry_of: unsigned(self.retry_of),
            worker: if state == State::Running { self.worker.unwrap_or_default() } else { String::new() },
            submitted_at_ms: unsigned(Some(self.submitted_at_ms)),
            started_at_ms: unsigned(self.started_at_ms),
            finished_at_ms: unsigned(self.finished_at_ms),
            epochs_done: unsigned32(self.epochs_done),
            top1_error: self.top1_error.or_else(|| measured(self.figures_of_job.as_deref())),
            progress: None,
            suspect_since_ms: 0,
            resumed_at_epoch: unsigned32(self.resumed_at_epoch),
            failure: failure.into(),
            message: self.message.unwrap_or_default(),
            cancelling: self.cancelling,
            sweeps: split(self.sweeps),
            waits_until_ms: unsigned(Some(self.not_before_ms)),
            priority: self.priority,
            after: split(self.after).iter().filter_map(|id| id.parse().ok()).collect(),
            stopping: row::stopping(false, self.stopping.as_deref()).map_or(0, |why| why.reason().into()),
        }
    }
}

/// The top-1 error that a job measured: it has no epochs.
fn measured(figures: Option<&[u8]>) -> Option<f64> {
    let Figures { r#final, converted, .. } = Figures::decode(figures?).ok()?;
    Some(r#final.or(converted)?.top1_error)
}

/// Names joined by `group_concat`; none of them holds a comma (`cnx_proto::validate::is_name`).
fn split(names: Option<String>) -> Vec<String> {
    names.map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

impl Store {
    /// How many experiments wait, run and are paused.
    ///
    /// # Errors
    /// When the database cannot be read; so do all methods here.
    pub async fn counts(&self) -> Result<Counts> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT state, count FROM state_counts").fetch_all(&self.readers).await?;
        let of = |state: State| {
            rows.iter().find(|(name, _)| *name == state.label()).map_or(0, |&(_, n)| unsigned(Some(n)))
        };
        Ok(Counts { queued: of(State::Queued), running: of(State::Running), paused: of(State::Paused) })
    }

    /// The selected experiments by ID; of too many, the newest. No limit: 0.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn status(&self, selection: &Selection, limit: u32) -> Result<Vec<Experiment>> {
        let limit = if limit == 0 { -1 } else { i64::from(limit) };
        let rows: Vec<StatusRow> = match selection {
            Selection::All => sqlx::query_as(status!("")).bind(limit).fetch_all(&self.readers).await?,
            Selection::Ids(ids) => {
                sqlx::query_as(status!("WHERE e.id IN (SELECT value FROM json_each(?))"))
                    .bind(Selection::json(ids))
                    .bind(limit)
                    .fetch_all(&self.readers)
                    .await?
            }
        };
        Ok(rows.into_iter().rev().map(StatusRow::encode).collect())
    }

    /// Where these experiments stand.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn states(&self, ids: &[u64]) -> Result<Vec<(u64, State)>> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT id, iif(paused, 'paused', state) FROM experiments
             WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        )
        .bind(Selection::json(ids))
        .fetch_all(&self.readers)
        .await?;
        let state =
            |(id, state): (i64, String)| (unsigned(Some(id)), State::from_label(&state).unwrap_or_default());
        Ok(rows.into_iter().map(state).collect())
    }

    /// Everything on record of one experiment.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn records(&self, id: u64) -> Result<Records> {
        let readers = &self.readers;
        Ok(Records {
            attempts: attempts(readers, id).await?,
            epochs: epochs(readers, id).await?,
            artifacts: artifacts(readers, id).await?,
            events: events(readers, id).await?,
            figures: figures(readers, id).await?,
        })
    }

    /// Whether an experiment is final.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn is_final(&self, id: u64) -> Result<bool> {
        let state: String = sqlx::query_scalar("SELECT state FROM experiments WHERE id = ?")
            .bind(sql(id))
            .fetch_one(&self.readers)
            .await?;
        Ok(State::from_label(&state).is_some_and(State::is_final))
    }

    /// At most `limit` log lines after the one numbered `after`, oldest first.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn log_after(&self, id: u64, after: u64, limit: u32) -> Result<Vec<NumberedLine>> {
        let rows = sqlx::query(
            "SELECT id, at_ms, attempt, text FROM logs WHERE experiment = ? AND id > ? ORDER BY id LIMIT ?",
        )
        .bind(sql(id))
        .bind(sql(after))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let line = LogLine {
                    at_ms: unsigned(row.try_get("at_ms")?),
                    attempt: row.try_get("attempt")?,
                    text: row.try_get("text")?,
                };
                Ok(NumberedLine { number: unsigned(row.try_get("id")?), line })
            })
            .collect()
    }

    /// The number after which the last `tail` lines of a log come; 0: all.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn log_tail(&self, id: u64, tail: u32) -> Result<u64> {
        if tail == 0 {
            return Ok(0);
        }
        let before: Option<i64> =
            sqlx::query_scalar("SELECT id FROM logs WHERE experiment = ? ORDER BY id DESC LIMIT 1 OFFSET ?")
                .bind(sql(id))
                .bind(tail)
                .fetch_optional(&self.readers)
                .await?;
        Ok(unsigned(before))
    }

    /// What the result tables are made of, by ID.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn results(&self, selection: &Selection) -> Result<Vec<ResultRow>> {
        // The attempt that finished it is its newest: no attempt follows a final state.
        macro_rules! results {
            ($filter:literal) => {
                concat!(
                    "SELECT e.id, e.name, iif(e.paused, 'paused', e.state) AS state, e.spec_json, e.spec_hash, e.attempt,
                        f.figures, a.environment,
                        (SELECT max(epoch) FROM epochs WHERE experiment = e.id) AS epochs_done,
                        (SELECT group_concat(s.name) FROM sweep_members m JOIN sweeps s ON s.id = m.sweep
                         WHERE m.experiment = e.id) AS sweeps
                     FROM experiments e
                     LEFT JOIN figures f ON f.experiment = e.id AND e.state = 'succeeded'
                     LEFT JOIN attempts a ON a.experiment = e.id AND a.attempt = e.attempt ",
                    $filter,
                    " ORDER BY e.id"
                )
            };
        }
        let rows = match selection {
            Selection::All => sqlx::query(results!("")).fetch_all(&self.readers).await?,
            Selection::Ids(ids) => {
                sqlx::query(results!("WHERE e.id IN (SELECT value FROM json_each(?))"))
                    .bind(Selection::json(ids))
                    .fetch_all(&self.readers)
                    .await?
            }
        };
        let encode = |row: &sqlx::sqlite::SqliteRow| {
            Ok(ResultRow {
                id: unsigned(row.try_get("id")?),
                name: row.try_get("name")?,
                state: State::from_label(&row.try_get::<String, _>("state")?).unwrap_or_default().into(),
                spec_json: row.try_get("spec_json")?,
                spec_hash: row.try_get("spec_hash")?,
                figures: row.try_get::<Option<Vec<u8>>, _>("figures")?.map(decode::<Figures>).transpose()?,
                environment: row
                    .try_get::<Option<Vec<u8>>, _>("environment")?
                    .map(decode::<Environment>)
                    .transpose()?,
                attempts: row.try_get("attempt")?,
                epochs_done: unsigned32(row.try_get("epochs_done")?),
                sweeps: split(row.try_get("sweeps")?),
            })
        };
        rows.iter().map(encode).collect()
    }

    /// Every worker that ever attached, by name; who is connected is not known here.
    ///
    /// # Errors
    /// See [`Store::counts`].
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        let rows = sqlx::query(
            "SELECT name, host, device, slots, version, last_seen_ms, memory_gib, labels FROM workers ORDER BY name",
        )
        .fetch_all(&self.readers)
        .await?;
        let encode = |row: &sqlx::sqlite::SqliteRow| {
            let labels: String = row.try_get("labels")?;
            Ok(WorkerInfo {
                name: row.try_get("name")?,
                connected: false,
                last_seen_ms: unsigned(row.try_get("last_seen_ms")?),
                host: row.try_get("host")?,
                device: row.try_get("device")?,
                slots: row.try_get("slots")?,
                leases: Vec::new(),
                version: row.try_get("version")?,
                memory_gib: row.try_get("memory_gib")?,
                labels: labels.split_whitespace().map(str::to_owned).collect(),
                suspect_since_ms: 0,
            })
        };
        rows.iter().map(encode).collect()
    }
}

fn decode<M: Message + Default>(bytes: Vec<u8>) -> Result<M> {
    M::decode(bytes.as_slice()).map_err(|e| StoreError::Unexpected(e.to_string()))
}

async fn attempts(readers: &SqlitePool, id: u64) -> Result<Vec<Attempt>> {
    let rows = sqlx::query(
        "SELECT attempt, worker, started_at_ms, ended_at_ms, resumed_at_epoch, environment, outcome, message
         FROM attempts WHERE experiment = ? ORDER BY attempt DESC LIMIT ?",
    )
    .bind(sql(id))
    .bind(MOST_RECORDS)
    .fetch_all(readers)
    .await?;
    rows.iter()
        .rev()
        .map(|row| {
            let environment: Option<Vec<u8>> = row.try_get("environment")?;
            Ok(Attempt {
                attempt: row.try_get("attempt")?,
                worker: row.try_get("worker")?,
                started_at_ms: unsigned(row.try_get("started_at_ms")?),
                ended_at_ms: unsigned(row.try_get("ended_at_ms")?),
                resumed_at_epoch: unsigned32(row.try_get("resumed_at_epoch")?),
                environment: environment.map(decode).transpose()?,
                outcome: row.try_get("outcome")?,
                message: row.try_get::<Option<String>, _>("message")?.unwrap_or_default(),
            })
        })
        .collect()
}

async fn epochs(readers: &SqlitePool, id: u64) -> Result<Vec<EpochMetrics>> {
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT metrics FROM epochs WHERE experiment = ? ORDER BY epoch DESC LIMIT ?")
            .bind(sql(id))
            .bind(MOST_EPOCHS)
            .fetch_all(readers)
            .await?;
    rows.into_iter().rev().map(decode).collect()
}

async fn artifacts(readers: &SqlitePool, id: u64) -> Result<Vec<Artifact>> {
    let rows: Vec<(String, String, String, i64, u32)> = sqlx::query_as(
        "SELECT kind, name, sha256, bytes, epoch FROM artifacts
         WHERE experiment = ? AND NOT deleted ORDER BY epoch DESC, name DESC LIMIT ?",
    )
    .bind(sql(id))
    .bind(MOST_RECORDS)
    .fetch_all(readers)
    .await?;
    let encode = |(kind, name, sha256, bytes, epoch): (String, _, _, _, _)| Artifact {
        kind: ArtifactKind::from_label(&kind).unwrap_or_default().into(),
        name,
        sha256,
        bytes: unsigned(Some(bytes)),
        epoch,
        deleted: Vec::new(),
    };
    Ok(rows.into_iter().rev().map(encode).collect())
}

async fn events(readers: &SqlitePool, id: u64) -> Result<Vec<Event>> {
    let rows: Vec<(i64, u32, String)> = sqlx::query_as(
        "SELECT at_ms, attempt, what FROM events WHERE experiment = ? ORDER BY id DESC LIMIT ?",
    )
    .bind(sql(id))
    .bind(MOST_RECORDS)
    .fetch_all(readers)
    .await?;
    let encode = |(at_ms, attempt, what)| Event { at_ms: unsigned(Some(at_ms)), attempt, what };
    Ok(rows.into_iter().rev().map(encode).collect())
}

async fn figures(readers: &SqlitePool, id: u64) -> Result<Option<Figures>> {
    let bytes: Option<Vec<u8>> = sqlx::query_scalar("SELECT figures FROM figures WHERE experiment = ?")
        .bind(sql(id))
        .fetch_optional(readers)
        .await?;
    bytes.map(decode).transpose()
}
