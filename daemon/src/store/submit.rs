//! Queues new experiments, all or none.

use sqlx::SqliteConnection;

use cnx_proto::Spec;
use cnx_proto::v1;

use super::{Now, Result, Store, row, sql, unsigned};

/// What is to be queued.
#[derive(Debug, Default)]
pub struct Submission {
    /// In the order of the request.
    pub experiments: Vec<NewExperiment>,
    /// The sweep they belong to.
    pub sweep: Option<String>,
    /// Queue even what is there already.
    pub force: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// A validated spec in the form of its row.
#[derive(Debug, Clone)]
pub struct NewExperiment {
    /// Name of its row in tables.
    pub name: String,
    /// Canonical JSON.
    pub json: String,
    /// Equal for experiments that would compute the same.
    pub hash: String,
    /// Whether only a worker with a GPU may take it.
    pub needs_gpu: bool,
    /// Tries that it has.
    pub max_attempts: u32,
}

impl From<&Spec> for NewExperiment {
    fn from(spec: &Spec) -> NewExperiment {
        NewExperiment {
            name: spec.name.clone(),
            json: spec.to_json(),
            hash: spec.hash(),
            needs_gpu: spec.resources.gpus > 0,
            max_attempts: spec.resources.max_attempts,
        }
    }
}

impl Store {
    /// Queues what is new, names what is there already, and makes all of it members of the sweep.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was queued.
    pub async fn submit(&self, submission: &Submission, now: Now) -> Result<Vec<v1::Submitted>> {
        let mut tx = self.write().await?;
        let sweep = match submission.sweep.as_deref() {
            Some(name) => Some(sweep_id(&mut tx, name, now).await?),
            None => None,
        };
        let mut submitted = Vec::with_capacity(submission.experiments.len());
        for new in &submission.experiments {
            let existing = if submission.force { None } else { identical(&mut tx, &new.hash).await? };
            let entry = match existing {
                Some(existing) => existing,
                None => queue(&mut tx, new, now).await?,
            };
            if let Some(sweep) = sweep {
                join(&mut tx, sweep, entry.id).await?;
            }
            submitted.push(entry);
        }
        if !submission.dry_run {
            tx.commit().await?;
            return Ok(submitted);
        }
        // A dry run does all of it, then takes it back: it cannot disagree with the real thing.
        drop(tx);
        for entry in submitted.iter_mut().filter(|entry| !entry.existing) {
            entry.id = 0;
        }
        dry_run_ids(&mut submitted, &submission.experiments);
        Ok(submitted)
    }
}

/// Within a dry run, what repeats an earlier line of the same request names an ID that will not exist.
fn dry_run_ids(submitted: &mut [v1::Submitted], experiments: &[NewExperiment]) {
    let mut new = std::collections::HashSet::new();
    for (entry, experiment) in submitted.iter_mut().zip(experiments) {
        if !entry.existing {
            new.insert(experiment.hash.as_str());
        } else if new.contains(experiment.hash.as_str()) {
            entry.id = 0;
        }
    }
}

async fn sweep_id(conn: &mut SqliteConnection, name: &str, now: Now) -> Result<i64> {
    sqlx::query("INSERT INTO sweeps (name, created_at_ms) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(sql(now.ms))
        .execute(&mut *conn)
        .await?;
    Ok(sqlx::query_scalar("SELECT id FROM sweeps WHERE name = ?").bind(name).fetch_one(conn).await?)
}

/// The newest experiment that computes or has computed the same. One that is being cancelled will not.
async fn identical(conn: &mut SqliteConnection, hash: &str) -> Result<Option<v1::Submitted>> {
    let found: Option<(i64, String, String)> = sqlx::query_as(
        "SELECT id, name, state FROM experiments
         WHERE spec_hash = ? AND state IN ('queued', 'running', 'succeeded') AND NOT cancelling
         ORDER BY id DESC LIMIT 1",
    )
    .bind(hash)
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|(id, name, state)| v1::Submitted {
        id: unsigned(Some(id)),
        name,
        existing: true,
        state: v1::State::from_label(&state).unwrap_or_default().into(),
    }))
}

async fn queue(conn: &mut SqliteConnection, new: &NewExperiment, now: Now) -> Result<v1::Submitted> {
    let id = insert(conn, new, None, now).await?;
    row::note(conn, id, 0, "submitted", now).await?;
    Ok(v1::Submitted { id, name: new.name.clone(), existing: false, state: v1::State::Queued.into() })
}

/// Adds a queued experiment and tells its ID.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    new: &NewExperiment,
    retry_of: Option<u64>,
    now: Now,
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO experiments (name, spec_json, spec_hash, needs_gpu, max_attempts, retry_of, submitted_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&new.name)
    .bind(&new.json)
    .bind(&new.hash)
    .bind(new.needs_gpu)
    .bind(new.max_attempts)
    .bind(retry_of.map(sql))
    .bind(sql(now.ms))
    .execute(conn)
    .await?;
    Ok(unsigned(Some(done.last_insert_rowid())))
}

async fn join(conn: &mut SqliteConnection, sweep: i64, experiment: u64) -> Result<()> {
    sqlx::query("INSERT INTO sweep_members (sweep, experiment) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(sweep)
        .bind(sql(experiment))
        .execute(conn)
        .await?;
    Ok(())
}
