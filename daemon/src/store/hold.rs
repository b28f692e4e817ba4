//! What people hold back: pause and resume, of experiments and of the whole queue; and priorities.

use rusqlite::params;

use cnx_proto::v1;

use super::change::{Changed, targets};
use super::{Now, Result, Selection, Store, StoreError, Tx, row, sql, unsigned};
use crate::lifecycle::{Event, State, Stopping};

impl Store {
    /// Pauses what waits at once, and marks what runs; final experiments stay as they are.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was paused.
    pub async fn pause(&self, selection: &Selection, now: Now) -> Result<Changed> {
        let selection = selection.clone();
        self.write(move |tx| {
            let mut done = Changed::default();
            for (id, name) in targets(tx, &selection, "state IN ('queued', 'running')")? {
                let (changed, message) = pause_one(tx, id, &mut done.stop, now)?;
                done.changes.push(v1::Change { id, name, changed, message, new_id: 0 });
            }
            Ok(done)
        })
        .await
    }

    /// Puts what is paused back into the queue.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was resumed.
    pub async fn resume(&self, selection: &Selection, now: Now) -> Result<Changed> {
        let selection = selection.clone();
        self.write(move |tx| {
            let mut done = Changed::default();
            let of_all = "state IN ('queued', 'running') AND (paused OR stopping = 'pause')";
            for (id, name) in targets(tx, &selection, of_all)? {
                let (changed, message) = resume_one(tx, id, now)?;
                done.changes.push(v1::Change { id, name, changed, message, new_id: 0 });
            }
            Ok(done)
        })
        .await
    }

    /// Holds the whole queue, or lets it go on; whether that changed anything.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn hold_queue(&self, paused: bool, now: Now) -> Result<bool> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE queue SET paused_at_ms = ?1 WHERE only_row = 1 AND (paused_at_ms IS NULL) = ?2",
                params![paused.then_some(sql(now.ms)), paused],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    /// Since when the whole queue is paused, Unix time.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn queue_paused_since_ms(&self) -> Result<Option<u64>> {
        let since: Option<i64> =
            sqlx::query_scalar("SELECT paused_at_ms FROM queue").fetch_one(&self.readers).await?;
        Ok(since.map(|ms| unsigned(Some(ms))))
    }

    /// Changes the priority of what waits or is paused. What runs keeps its own, which decides who may preempt it.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was changed.
    pub async fn set_priority(&self, selection: &Selection, priority: i32, now: Now) -> Result<Changed> {
        let selection = selection.clone();
        self.write(move |tx| {
            let mut done = Changed::default();
            for (id, name) in targets(tx, &selection, "state = 'queued'")? {
                let (changed, message) = prioritise_one(tx, id, priority, now)?;
                done.changes.push(v1::Change { id, name, changed, message, new_id: 0 });
            }
            Ok(done)
        })
        .await
    }
}

/// Whether the whole queue is paused, within a change.
pub(super) fn queue_is_paused(tx: &Tx<'_>) -> Result<bool> {
    let paused: Option<(bool,)> = tx.first("SELECT paused_at_ms IS NOT NULL FROM queue", [])?;
    Ok(paused.is_some_and(|(paused,)| paused))
}

fn pause_one(tx: &Tx<'_>, id: u64, stop: &mut Vec<(u64, Stopping)>, now: Now) -> Result<(bool, String)> {
    let what = match row::state(tx, id)? {
        State::Running { .. } => "to be paused by request: its worker is told to stop",
        _ => "paused by request",
    };
    match row::apply(tx, id, Event::PauseRequested, what, now) {
        Ok(State::Running { .. }) => {
            stop.push((id, Stopping::Pause));
            Ok((true, "being paused: its worker is told to stop".to_owned()))
        }
        Ok(_) => Ok((true, "paused".to_owned())),
        Err(StoreError::Refused(refusal)) => Ok((false, refusal.state.to_string())),
        Err(error) => Err(error),
    }
}

fn resume_one(tx: &Tx<'_>, id: u64, now: Now) -> Result<(bool, String)> {
    let what = match row::state(tx, id)? {
        State::Running { .. } => "resumed before it had stopped: back to the queue once it has",
        _ => "resumed by request",
    };
    match row::apply(tx, id, Event::ResumeRequested, what, now) {
        Ok(State::Running { .. }) => Ok((true, "resumed: queued again once it has stopped".to_owned())),
        Ok(_) => Ok((true, "resumed: queued again".to_owned())),
        Err(StoreError::Refused(refusal)) => {
            Ok((false, format!("{}; only what is paused can be resumed", refusal.state)))
        }
        Err(error) => Err(error),
    }
}

fn prioritise_one(tx: &Tx<'_>, id: u64, priority: i32, now: Now) -> Result<(bool, String)> {
    let state = row::state(tx, id)?;
    if !matches!(state, State::Queued { .. } | State::Paused { .. }) {
        return Ok((false, format!("{state}; only what waits or is paused can change its priority")));
    }
    let found = tx.first("SELECT attempt, priority FROM experiments WHERE id = ?", [sql(id)])?;
    let (attempt, before): (u32, i32) = found.unwrap_or_default();
    if before == priority {
        return Ok((false, format!("has priority {priority} already")));
    }
    tx.execute("UPDATE experiments SET priority = ? WHERE id = ?", params![priority, sql(id)])?;
    let message = format!("priority {before} → {priority}");
    row::note(tx, id, attempt, &format!("{message} by request"), now)?;
    Ok((true, message))
}
