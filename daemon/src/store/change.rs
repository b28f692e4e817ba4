//! What people change: cancel and retry.

use rusqlite::params;

use cnx_proto::v1;

use super::submit::{NewExperiment, insert};
use super::{Now, Result, Selection, Store, StoreError, Tx, row, sql, unsigned};
use crate::lifecycle::{Event, State};

/// What cancelling did.
#[derive(Debug, Default)]
pub struct Cancelled {
    /// One entry an experiment.
    pub changes: Vec<v1::Change>,
    /// Those that run: their workers are to be told.
    pub stop: Vec<u64>,
}

/// What retrying did.
#[derive(Debug, Default)]
pub struct Retried {
    /// One entry an experiment.
    pub changes: Vec<v1::Change>,
}

impl Store {
    /// Cancels what waits at once, and marks what runs; final experiments stay as they are.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was cancelled.
    pub async fn cancel(&self, selection: &Selection, now: Now) -> Result<Cancelled> {
        let selection = selection.clone();
        self.write(move |tx| {
            let mut done = Cancelled::default();
            for (id, name) in targets(tx, &selection, "state IN ('queued', 'running')")? {
                let (changed, message) = cancel_one(tx, id, &mut done.stop, now)?;
                done.changes.push(v1::Change { id, name, changed, message, new_id: 0 });
            }
            Ok(done)
        })
        .await
    }

    /// Queues anew what failed or was cancelled, as new experiments that go on from its checkpoints.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was queued.
    pub async fn retry(&self, selection: &Selection, now: Now) -> Result<Retried> {
        let selection = selection.clone();
        self.write(move |tx| {
            let mut done = Retried::default();
            for (id, name) in targets(tx, &selection, "state IN ('failed', 'cancelled')")? {
                let state = row::state(tx, id)?;
                let mut change = v1::Change { id, name, ..v1::Change::default() };
                if !state.may_be_retried() {
                    change.message = format!("{state}; only what failed or was cancelled can be retried");
                } else if let Some(newer) = retried_as(tx, id)? {
                    change.message = format!("was retried already, as {newer}");
                    change.new_id = newer;
                } else {
                    change.new_id = queue_again(tx, id, now)?;
                    change.changed = true;
                    change.message = format!("queued again as {}", change.new_id);
                }
                done.changes.push(change);
            }
            Ok(done)
        })
        .await
    }
}

/// Whether it changed, and what happened, in words.
fn cancel_one(tx: &Tx<'_>, id: u64, stop: &mut Vec<u64>, now: Now) -> Result<(bool, String)> {
    if let State::Running { cancelling: true, .. } = row::state(tx, id)? {
        stop.push(id);
        return Ok((false, "is being cancelled already".to_owned()));
    }
    match row::apply(tx, id, Event::CancelRequested, "cancelled by request", now) {
        Ok(State::Running { .. }) => {
            stop.push(id);
            Ok((true, "being cancelled: its worker is told to stop".to_owned()))
        }
        Ok(_) => Ok((true, "cancelled".to_owned())),
        Err(StoreError::Refused(refusal)) => Ok((false, refusal.state.to_string())),
        Err(error) => Err(error),
    }
}

/// The experiments of a selection; "all" means only those that could change at all.
fn targets(tx: &Tx<'_>, selection: &Selection, of_all: &'static str) -> Result<Vec<(u64, String)>> {
    let rows: Vec<(i64, String)> = match selection {
        // The condition is one of the two literals above, never a person's text.
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

/// A retry of it that may still give figures, or has.
fn retried_as(tx: &Tx<'_>, id: u64) -> Result<Option<u64>> {
    let newer: Option<(i64,)> = tx.first(
        "SELECT id FROM experiments
         WHERE spec_hash = (SELECT spec_hash FROM experiments WHERE id = ?1) AND retry_of = ?1
             AND state IN ('queued', 'running', 'succeeded') AND NOT cancelling
         ORDER BY id DESC LIMIT 1",
        [sql(id)],
    )?;
    Ok(newer.map(|(id,)| unsigned(Some(id))))
}

fn queue_again(tx: &Tx<'_>, id: u64, now: Now) -> Result<u64> {
    let found: Option<(String, String, String, bool, u32, u32)> = tx.first(
        "SELECT name, spec_json, spec_hash, needs_gpu, max_attempts, attempt FROM experiments WHERE id = ?",
        [sql(id)],
    )?;
    let Some((name, json, hash, needs_gpu, max_attempts, attempt)) = found else {
        return Err(StoreError::NotFound(format!("there is no experiment {id}")));
    };
    let new = NewExperiment { name, json, hash, needs_gpu, max_attempts };
    let new_id = insert(tx, &new, Some(id), now)?;
    tx.execute(
        "INSERT INTO sweep_members (sweep, experiment) SELECT sweep, ? FROM sweep_members WHERE experiment = ?",
        params![sql(new_id), sql(id)],
    )?;
    row::note(tx, new_id, 0, &format!("submitted, to retry {id}"), now)?;
    row::note(tx, id, attempt, &format!("retried as {new_id}"), now)?;
    Ok(new_id)
}
