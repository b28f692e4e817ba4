//! Who runs only after whom: dependencies, from submission to the end of what was waited for.
//!
//! An experiment names older ones only, so there are no cycles. It is ready once all of them succeeded, and fails as
//! soon as one of them fails or is cancelled; a retry of that one queues it anew (`change`).

use rusqlite::params;

use cnx_proto::v1::{self, FailureClass};

use super::{Now, Result, Selection, StoreError, Tx, row, sql, unsigned};
use crate::lifecycle::{Event, Failure, State};

/// What a new experiment is to run after: those that count of the ones that a person named.
///
/// # Errors
/// When one of them failed or was cancelled, and no retry of it may still succeed.
pub(super) fn resolve(tx: &Tx<'_>, named: &[u64]) -> Result<Vec<u64>> {
    let mut after = Vec::with_capacity(named.len());
    let mut hopeless = Vec::new();
    for &id in named {
        match newest_life(tx, id)? {
            (id, v1::State::Failed | v1::State::Cancelled) => hopeless.push(id.to_string()),
            (id, _) => after.push(id),
        }
    }
    if !hopeless.is_empty() {
        return Err(StoreError::Hopeless(hopeless.join(" ")));
    }
    after.sort_unstable();
    after.dedup();
    Ok(after)
}

/// Of an experiment that failed or was cancelled, the newest retry of the newest retry; else itself. And its state.
fn newest_life(tx: &Tx<'_>, id: u64) -> Result<(u64, v1::State)> {
    let mut id = id;
    loop {
        let state = row::state(tx, id)?.wire();
        if !matches!(state, v1::State::Failed | v1::State::Cancelled) {
            return Ok((id, state));
        }
        let newer: Option<(i64,)> = tx.first(
            "SELECT id FROM experiments
             WHERE spec_hash = (SELECT spec_hash FROM experiments WHERE id = ?1) AND retry_of = ?1
             ORDER BY id DESC LIMIT 1",
            [sql(id)],
        )?;
        match newer {
            Some((newer,)) => id = unsigned(Some(newer)),
            None => return Ok((id, state)),
        }
    }
}

/// Lets a new experiment wait for those of `after` that have not succeeded yet.
pub(super) fn add(tx: &Tx<'_>, id: u64, after: &[u64]) -> Result<()> {
    if after.is_empty() {
        return Ok(());
    }
    let needs = Selection::json(after);
    tx.execute(
        "INSERT INTO dependencies (experiment, needs) SELECT ?, value FROM json_each(?)",
        params![sql(id), needs],
    )?;
    tx.execute(
        "UPDATE experiments SET needed = 1 WHERE id IN (SELECT value FROM json_each(?)) AND NOT needed",
        [&needs],
    )?;
    tx.execute(
        "UPDATE experiments SET waits_for = (SELECT count(*) FROM experiments
             WHERE id IN (SELECT value FROM json_each(?2)) AND state <> 'succeeded') WHERE id = ?1",
        params![sql(id), needs],
    )?;
    Ok(())
}

/// Those that an experiment was to run after.
pub(super) fn needs(tx: &Tx<'_>, id: u64) -> Result<Vec<u64>> {
    let ids: Vec<(i64,)> =
        tx.all("SELECT needs FROM dependencies WHERE experiment = ? ORDER BY needs", [sql(id)])?;
    Ok(ids.into_iter().map(|(id,)| unsigned(Some(id))).collect())
}

/// An experiment is final: those that wait for it come closer to their turn, or fail, and what waits for those, too.
pub(super) fn settle(tx: &Tx<'_>, id: u64, end: &State, now: Now) -> Result<()> {
    if *end == State::Succeeded {
        tx.execute(
            "UPDATE experiments SET waits_for = waits_for - 1
             WHERE id IN (SELECT experiment FROM dependencies WHERE needs = ?) AND waits_for > 0",
            [sql(id)],
        )?;
        return Ok(());
    }
    let mut ends = vec![(id, end.to_string())];
    while let Some((id, how)) = ends.pop() {
        let dependants: Vec<(i64,)> =
            tx.all("SELECT experiment FROM dependencies WHERE needs = ? ORDER BY experiment", [sql(id)])?;
        for dependant in dependants.into_iter().map(|(id,)| unsigned(Some(id))) {
            let message = format!("it was to run after {id}, which {how}");
            let failure = Failure { class: FailureClass::Dependency, message: message.clone() };
            match row::step(tx, dependant, Event::DependencyFailed(failure), &message, now) {
                Ok((state, true)) => ends.push((dependant, state.to_string())),
                Ok((_, false)) | Err(StoreError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
