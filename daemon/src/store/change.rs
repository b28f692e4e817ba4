//! What people change for good: cancel and retry.

use std::collections::BTreeMap;

use rusqlite::params;

use cnx_proto::v1;

use super::{Now, Result, Selection, Store, StoreError, Tx, depend, row, sql, unsigned};
use crate::lifecycle::{Event, State, Stopping};

/// What a change did.
#[derive(Debug, Default)]
pub struct Changed {
    /// One entry an experiment.
    pub changes: Vec<v1::Change>,
    /// Those that run: their workers are to be told.
    pub stop: Vec<(u64, Stopping)>,
}

/// What is to be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// These, where they failed or were cancelled.
    Selected(Selection),
    /// All that failed and was not retried yet.
    AllFailed,
}

impl Store {
    /// Cancels what waits at once, and marks what runs; final experiments stay as they are.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was cancelled.
    pub async fn cancel(&self, selection: &Selection, now: Now) -> Result<Changed> {
        let selection = selection.clone();
        self.write(move |tx| {
            let mut done = Changed::default();
            for (id, name) in targets(tx, &selection, "state IN ('queued', 'running')")? {
                let (changed, message) = cancel_one(tx, id, &mut done.stop, now)?;
                done.changes.push(v1::Change { id, name, changed, message, new_id: 0 });
            }
            Ok(done)
        })
        .await
    }

    /// Queues anew what failed or was cancelled, as new experiments that go on from its checkpoints; and with it what
    /// failed because it was to run after it.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was queued.
    pub async fn retry(&self, what: &Retry, now: Now) -> Result<Changed> {
        let what = what.clone();
        self.write(move |tx| {
            let mut done = Changed::default();
            let selected = match &what {
                Retry::Selected(selection) => targets(tx, selection, "state IN ('failed', 'cancelled')")?,
                Retry::AllFailed => targets(tx, &Selection::All, "state = 'failed'")?,
            };
            // By ID, as what others were to run after is older than they.
            let mut waiting: BTreeMap<u64, String> = selected.into_iter().collect();
            while let Some((id, name)) = waiting.pop_first() {
                let Some(change) = retry_one(tx, id, name, &what, now)? else { continue };
                if change.changed {
                    waiting.extend(failed_for(tx, id)?);
                }
                done.changes.push(change);
            }
            Ok(done)
        })
        .await
    }
}

/// Whether it changed, and what happened, in words.
fn cancel_one(tx: &Tx<'_>, id: u64, stop: &mut Vec<(u64, Stopping)>, now: Now) -> Result<(bool, String)> {
    if let State::Running { stopping: Some(Stopping::Cancel), .. } = row::state(tx, id)? {
        stop.push((id, Stopping::Cancel));
        return Ok((false, "is being cancelled already".to_owned()));
    }
    match row::apply(tx, id, Event::CancelRequested, "cancelled by request", now) {
        Ok(State::Running { .. }) => {
            stop.push((id, Stopping::Cancel));
            Ok((true, "being cancelled: its worker is told to stop".to_owned()))
        }
        Ok(_) => Ok((true, "cancelled".to_owned())),
        Err(StoreError::Refused(refusal)) => Ok((false, refusal.state.to_string())),
        Err(error) => Err(error),
    }
}

/// Of "all that failed", what was retried already is not worth a word.
fn retry_one(tx: &Tx<'_>, id: u64, name: String, what: &Retry, now: Now) -> Result<Option<v1::Change>> {
    let all = *what == Retry::AllFailed;
    let state = row::state(tx, id)?;
    let mut change = v1::Change { id, name, ..v1::Change::default() };
    if !state.may_be_retried() {
        change.message = format!("{state}; only what failed or was cancelled can be retried");
    } else if let Some(newer) = retried_as(tx, id, all)? {
        if all {
            return Ok(None);
        }
        change.message = format!("was retried already, as {newer}");
        change.new_id = newer;
    } else {
        match queue_again(tx, id, now) {
            Ok(new_id) => {
                change.new_id = new_id;
                change.changed = true;
                change.message = format!("queued again as {new_id}");
            }
            Err(error @ StoreError::Hopeless(_)) => change.message = format!("not retried: {error}"),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(change))
}

/// The experiments of a selection; "all" means only those that could change at all.
pub(super) fn targets(
    tx: &Tx<'_>,
    selection: &Selection,
    of_all: &'static str,
) -> Result<Vec<(u64, String)>> {
    let rows: Vec<(i64, String)> = match selection {
        // The condition is one of the literals of the callers, never a person's text.
        Selection::All => {
            tx.all(&format!("SELECT id, name FROM experiments WHERE {of_all} ORDER BY id"), [])?
        }
        Selection::Ids(ids) => tx.all(
            "SELECT id, name FROM experiments WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            [Selection::json(ids)],
        )?,
    };
    Ok(rows.into_iter().map(|(id, name)| (unsigned(Some(id)), name)).collect())
}

/// A retry of it that may still give figures, or has; or `any` retry at all.
fn retried_as(tx: &Tx<'_>, id: u64, any: bool) -> Result<Option<u64>> {
    let newer: Option<(i64,)> = tx.first(
        "SELECT id FROM experiments
         WHERE spec_hash = (SELECT spec_hash FROM experiments WHERE id = ?1) AND retry_of = ?1
             AND (?2 OR state IN ('queued', 'running', 'succeeded') AND NOT cancelling)
         ORDER BY id DESC LIMIT 1",
        params![sql(id), any],
    )?;
    Ok(newer.map(|(id,)| unsigned(Some(id))))
}

/// Those that failed because they were to run after it.
fn failed_for(tx: &Tx<'_>, id: u64) -> Result<Vec<(u64, String)>> {
    let rows: Vec<(i64, String)> = tx.all(
        "SELECT e.id, e.name FROM dependencies d JOIN experiments e ON e.id = d.experiment
         WHERE d.needs = ? AND e.state = 'failed' AND e.failure = 'dependency' ORDER BY e.id",
        [sql(id)],
    )?;
    Ok(rows.into_iter().map(|(id, name)| (unsigned(Some(id)), name)).collect())
}

/// Queues a copy, behind the retries of what it is to run after.
fn queue_again(tx: &Tx<'_>, id: u64, now: Now) -> Result<u64> {
    let after = depend::resolve(tx, &depend::needs(tx, id)?)?;
    let new_id = tx.insert(
        "INSERT INTO experiments (name, spec_json, spec_hash, needs_gpu, max_attempts, retry_of, submitted_at_ms,
             demand, priority, preempts, avoid, share)
         SELECT name, spec_json, spec_hash, needs_gpu, max_attempts, id, ?2, demand, priority, preempts, avoid,
             coalesce((SELECT min(sweep) FROM sweep_members WHERE experiment = ?1), 0)
         FROM experiments WHERE id = ?1",
        params![sql(id), sql(now.ms)],
    )?;
    let new_id = unsigned(Some(new_id));
    tx.execute(
        "INSERT INTO sweep_members (sweep, experiment) SELECT sweep, ? FROM sweep_members WHERE experiment = ?",
        params![sql(new_id), sql(id)],
    )?;
    depend::add(tx, new_id, &after)?;
    let attempt: Option<(u32,)> = tx.first("SELECT attempt FROM experiments WHERE id = ?", [sql(id)])?;
    row::note(tx, new_id, 0, &format!("submitted, to retry {id}"), now)?;
    row::note(tx, id, attempt.map_or(0, |(attempt,)| attempt), &format!("retried as {new_id}"), now)?;
    Ok(new_id)
}
