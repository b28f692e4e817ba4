//! Queues new experiments, all or none.

use rusqlite::params;

use cnx_proto::Spec;
use cnx_proto::v1;

use super::{Now, Result, Store, StoreError, Tx, depend, row, sql, unsigned};
use crate::schedule::Demand;

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
    /// Higher goes first.
    pub priority: i32,
    /// They may take the slots of running experiments of lower priority.
    pub preempts: bool,
    /// They run once all of these succeeded.
    pub after: Vec<u64>,
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
    /// What its worker must have.
    pub demand: Demand,
    /// Tries that it has.
    pub max_attempts: u32,
}

impl From<&Spec> for NewExperiment {
    fn from(spec: &Spec) -> NewExperiment {
        NewExperiment {
            name: spec.name.clone(),
            json: spec.to_json(),
            hash: spec.hash(),
            demand: Demand::from(&spec.resources),
            max_attempts: spec.resources.max_attempts,
        }
    }
}

impl Store {
    /// Queues what is new, names what is there already, and makes all of it members of the sweep.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was queued.
    pub async fn submit(&self, submission: Submission, now: Now) -> Result<Vec<v1::Submitted>> {
        self.write(move |tx| {
            let mut submitted = queue_all(tx, &submission, now)?;
            if submission.dry_run {
                // All of it was done, and is taken back: it cannot disagree with the real thing.
                tx.undo();
                for entry in submitted.iter_mut().filter(|entry| !entry.existing) {
                    entry.id = 0;
                }
                dry_run_ids(&mut submitted, &submission.experiments);
            }
            Ok(submitted)
        })
        .await
    }
}

fn queue_all(tx: &Tx<'_>, submission: &Submission, now: Now) -> Result<Vec<v1::Submitted>> {
    let sweep = submission.sweep.as_deref().map(|name| sweep_id(tx, name, now)).transpose()?;
    let after = depend::resolve(tx, &submission.after)?;
    let mut demands = Demands::default();
    let mut submitted = Vec::with_capacity(submission.experiments.len());
    for new in &submission.experiments {
        let existing = if submission.force { None } else { identical(tx, &new.hash)? };
        let entry = match existing {
            Some(existing) => existing,
            None => {
                let turn = Turn {
                    demand: demands.id(tx, &new.demand)?,
                    priority: submission.priority,
                    preempts: submission.preempts,
                    share: sweep.unwrap_or_default(),
                };
                let entry = queue(tx, new, turn, now)?;
                depend::add(tx, entry.id, &after)?;
                entry
            }
        };
        if let Some(sweep) = sweep {
            join(tx, sweep, entry.id)?;
        }
        submitted.push(entry);
    }
    Ok(submitted)
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

fn sweep_id(tx: &Tx<'_>, name: &str, now: Now) -> Result<i64> {
    tx.execute(
        "INSERT INTO sweeps (name, created_at_ms) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        params![name, sql(now.ms)],
    )?;
    match tx.first("SELECT id FROM sweeps WHERE name = ?", [name])? {
        Some((id,)) => Ok(id),
        None => Err(StoreError::Unexpected(format!("sweep {name} is not there after it was added"))),
    }
}

/// The newest experiment that computes or has computed the same. One that is being cancelled will not.
fn identical(tx: &Tx<'_>, hash: &str) -> Result<Option<v1::Submitted>> {
    let found: Option<(i64, String, String)> = tx.first(
        "SELECT id, name, iif(paused, 'paused', state) FROM experiments
         WHERE spec_hash = ? AND state IN ('queued', 'running', 'succeeded') AND NOT cancelling
         ORDER BY id DESC LIMIT 1",
        [hash],
    )?;
    Ok(found.map(|(id, name, state)| v1::Submitted {
        id: unsigned(Some(id)),
        name,
        existing: true,
        state: v1::State::from_label(&state).unwrap_or_default().into(),
    }))
}

/// What decides when it is an experiment's turn, besides its age.
#[derive(Debug, Clone, Copy)]
struct Turn {
    demand: i64,
    priority: i32,
    preempts: bool,
    /// The sweep whose share of the slots it counts against; 0: what belongs to none.
    share: i64,
}

fn queue(tx: &Tx<'_>, new: &NewExperiment, turn: Turn, now: Now) -> Result<v1::Submitted> {
    let id = tx.insert(
        "INSERT INTO experiments (name, spec_json, spec_hash, needs_gpu, max_attempts, submitted_at_ms,
             demand, priority, preempts, share)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            new.name,
            new.json,
            new.hash,
            new.demand.gpus > 0,
            new.max_attempts,
            sql(now.ms),
            turn.demand,
            turn.priority,
            turn.preempts,
            turn.share
        ],
    )?;
    let id = unsigned(Some(id));
    row::note(tx, id, 0, "submitted", now)?;
    Ok(v1::Submitted { id, name: new.name.clone(), existing: false, state: v1::State::Queued.into() })
}

/// The rows of `demands`: each combination once. Those of one submission are mostly one.
#[derive(Debug, Default)]
struct Demands(Vec<(Demand, i64)>);

impl Demands {
    fn id(&mut self, tx: &Tx<'_>, demand: &Demand) -> Result<i64> {
        if let Some((_, id)) = self.0.iter().find(|(known, _)| known == demand) {
            return Ok(*id);
        }
        let labels = demand.labels.join(" ");
        tx.execute(
            "INSERT INTO demands (gpus, memory_gib, labels) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            params![demand.gpus, demand.memory_gib, labels],
        )?;
        let found: Option<(i64,)> = tx.first(
            "SELECT id FROM demands WHERE gpus = ? AND memory_gib = ? AND labels = ?",
            params![demand.gpus, demand.memory_gib, labels],
        )?;
        let Some((id,)) = found else {
            return Err(StoreError::Unexpected(format!(
                "a demand ({demand}) is not there after it was added"
            )));
        };
        self.0.push((demand.clone(), id));
        Ok(id)
    }
}

fn join(tx: &Tx<'_>, sweep: i64, experiment: u64) -> Result<()> {
    tx.execute(
        "INSERT INTO sweep_members (sweep, experiment) VALUES (?, ?) ON CONFLICT DO NOTHING",
        params![sweep, sql(experiment)],
    )?;
    Ok(())
}
