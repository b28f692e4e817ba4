//! Where a state becomes columns and back, and the only place that changes one.

use rusqlite::{Row, params};

use cnx_proto::v1::{self, FailureClass};

use super::{Now, Result, StoreError, Tx, depend, sql, unsigned, unsigned32};
use crate::lifecycle::{Ending, Event, Failure, State, Stopping, Surroundings};

struct Columns {
    state: String,
    attempt: i64,
    tries: i64,
    cancelling: bool,
    stopping: Option<String>,
    paused: bool,
    not_before_ms: i64,
    failure: Option<String>,
    message: Option<String>,
    max_attempts: i64,
    needed: bool,
}

impl Columns {
    fn failure(&self) -> Option<Failure> {
        let class = FailureClass::from_label(self.failure.as_deref()?)?;
        Some(Failure { class, message: self.message.clone().unwrap_or_default() })
    }

    fn state(&self) -> Result<State> {
        let attempt = unsigned32(Some(self.attempt));
        let tries = unsigned32(Some(self.tries));
        match v1::State::from_label(&self.state) {
            Some(v1::State::Queued) if self.paused => {
                Ok(State::Paused { attempt, tries, last: self.failure() })
            }
            Some(v1::State::Queued) => Ok(State::Queued {
                attempt,
                tries,
                not_before_ms: unsigned(Some(self.not_before_ms)),
                last: self.failure(),
            }),
            Some(v1::State::Running) => {
                let stopping = stopping(self.cancelling, self.stopping.as_deref());
                Ok(State::Running { attempt, tries, stopping })
            }
            Some(v1::State::Succeeded) => Ok(State::Succeeded),
            Some(v1::State::Cancelled) => Ok(State::Cancelled),
            Some(v1::State::Failed) => self.failure().map(State::Failed).ok_or_else(|| {
                StoreError::Unexpected(format!("a failed experiment of class {:?}", self.failure))
            }),
            _ => Err(StoreError::Unexpected(format!("an experiment in state {:?}", self.state))),
        }
    }
}

impl TryFrom<&Row<'_>> for Columns {
    type Error = rusqlite::Error;

    fn try_from(row: &Row<'_>) -> rusqlite::Result<Columns> {
        Ok(Columns {
            state: row.get("state")?,
            attempt: row.get("attempt")?,
            tries: row.get("tries")?,
            cancelling: row.get("cancelling")?,
            stopping: row.get("stopping")?,
            paused: row.get("paused")?,
            not_before_ms: row.get("not_before_ms")?,
            failure: row.get("failure")?,
            message: row.get("message")?,
            max_attempts: row.get("max_attempts")?,
            needed: row.get("needed")?,
        })
    }
}

/// What a running experiment's two columns say. They are two because the one is older than the other.
pub(super) fn stopping(cancelling: bool, stopping: Option<&str>) -> Option<Stopping> {
    match (cancelling, stopping) {
        (true, _) => Some(Stopping::Cancel),
        (false, Some("pause")) => Some(Stopping::Pause),
        (false, Some(_)) => Some(Stopping::Yield),
        (false, None) => None,
    }
}

/// The state of an experiment.
pub(super) fn state(tx: &Tx<'_>, id: u64) -> Result<State> {
    columns(tx, id)?.state()
}

fn columns(tx: &Tx<'_>, id: u64) -> Result<Columns> {
    let found = tx.first(
        "SELECT state, attempt, tries, cancelling, stopping, paused, not_before_ms, failure, message, max_attempts,
             needed
         FROM experiments WHERE id = ?",
        [sql(id)],
    )?;
    found.ok_or_else(|| StoreError::NotFound(format!("there is no experiment {id}")))
}

/// Applies an event: the new state in the row, the event's sentence beside it, and the attempt closed if it ended.
/// Those that were to run after it hear of its end. Inside the caller's transaction, so that all of it happens or none.
pub(super) fn apply(tx: &Tx<'_>, id: u64, event: Event, what: &str, now: Now) -> Result<State> {
    let (after, needed) = step(tx, id, event, what, now)?;
    if needed && after.wire().is_final() {
        depend::settle(tx, id, &after, now)?;
    }
    Ok(after)
}

/// Like [`apply`], but nobody else hears of it. Also tells whether there is anybody to hear of it.
pub(super) fn step(tx: &Tx<'_>, id: u64, event: Event, what: &str, now: Now) -> Result<(State, bool)> {
    let columns = columns(tx, id)?;
    let before = columns.state()?;
    let around = Surroundings {
        now_ms: now.ms,
        jitter: now.jitter,
        max_attempts: unsigned32(Some(columns.max_attempts)),
    };
    let after = before.apply(event.clone(), around)?;
    let attempt = match after {
        State::Running { attempt, .. } => attempt,
        _ => unsigned32(Some(columns.attempt)),
    };
    if let Event::Ended(ending) = &event {
        end_attempt(tx, id, attempt, ending, now)?;
    }
    save(tx, id, attempt, &after, now)?;
    note(tx, id, attempt, &sentence(what, &event, &after, now), now)?;
    Ok((after, columns.needed))
}

fn save(tx: &Tx<'_>, id: u64, attempt: u32, state: &State, now: Now) -> Result<()> {
    let (tries, stopping, not_before_ms, failure) = match state {
        State::Queued { tries, not_before_ms, last, .. } => {
            (Some(*tries), None, *not_before_ms, last.as_ref())
        }
        State::Paused { tries, last, .. } => (Some(*tries), None, 0, last.as_ref()),
        State::Running { tries, stopping, .. } => (Some(*tries), *stopping, 0, None),
        State::Failed(failure) => (None, None, 0, Some(failure)),
        State::Succeeded | State::Cancelled => (None, None, 0, None),
    };
    let running = matches!(state, State::Running { .. });
    let paused = matches!(state, State::Paused { .. });
    let column = if paused { v1::State::Queued } else { state.wire() };
    tx.execute(
        "UPDATE experiments SET state = ?, paused = ?, attempt = ?, tries = coalesce(?, tries), cancelling = ?,
             stopping = ?, not_before_ms = ?, failure = ?, message = ?,
             started_at_ms = coalesce(started_at_ms, ?), finished_at_ms = ?
         WHERE id = ?",
        params![
            column.label(),
            paused,
            attempt,
            tries,
            stopping == Some(Stopping::Cancel),
            match stopping {
                Some(Stopping::Pause) => Some("pause"),
                Some(Stopping::Yield) => Some("yield"),
                Some(Stopping::Cancel) | None => None,
            },
            sql(not_before_ms),
            failure.map(|f| f.class.label()),
            failure.map(|f| f.message.as_str()),
            running.then_some(sql(now.ms)),
            state.wire().is_final().then_some(sql(now.ms)),
            sql(id)
        ],
    )?;
    Ok(())
}

fn end_attempt(tx: &Tx<'_>, id: u64, attempt: u32, ending: &Ending, now: Now) -> Result<()> {
    let message = match ending {
        Ending::Failed(failure) => Some(failure.message.as_str()),
        Ending::Succeeded | Ending::Cancelled => None,
    };
    tx.execute(
        "UPDATE attempts SET ended_at_ms = ?, outcome = ?, message = ?
         WHERE experiment = ? AND attempt = ? AND ended_at_ms IS NULL",
        params![sql(now.ms), ending.label(), message, sql(id), attempt],
    )?;
    match ending {
        Ending::Failed(failure) if failure.class.costs_a_try() => avoid(tx, id, attempt),
        _ => Ok(()),
    }
}

/// The next attempt prefers another worker.
fn avoid(tx: &Tx<'_>, id: u64, attempt: u32) -> Result<()> {
    tx.execute(
        "UPDATE experiments SET avoid = (SELECT worker FROM attempts WHERE experiment = ?1 AND attempt = ?2)
         WHERE id = ?1",
        params![sql(id), attempt],
    )?;
    Ok(())
}

/// What happened, and what it means where that is not plain from the event.
fn sentence(what: &str, event: &Event, after: &State, now: Now) -> String {
    match (event, after) {
        (Event::Ended(_), State::Queued { not_before_ms: 0, .. }) => format!("{what}; queued again"),
        (Event::Ended(_), State::Queued { not_before_ms, tries, .. }) => {
            let wait_s = not_before_ms.saturating_sub(now.ms) as f64 / 1000.0;
            format!("{what}; queued again after failure {tries}, not before {wait_s:.1} s from now")
        }
        (Event::Ended(_), State::Paused { .. }) => format!("{what}; paused"),
        (Event::Ended(_), State::Failed(_)) => format!("{what}; not tried again"),
        _ => what.to_owned(),
    }
}

/// Adds an event to the story of an experiment.
pub(super) fn note(tx: &Tx<'_>, id: u64, attempt: u32, what: &str, now: Now) -> Result<()> {
    tx.execute(
        "INSERT INTO events (experiment, attempt, at_ms, what) VALUES (?, ?, ?, ?)",
        params![sql(id), attempt, sql(now.ms), what],
    )?;
    Ok(())
}
