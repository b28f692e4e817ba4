//! What people change: cancel and retry.

use sqlx::SqliteConnection;

use cnx_proto::v1;

use super::submit::{NewExperiment, insert};
use super::{Now, Result, Selection, Store, StoreError, row, sql, unsigned};
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
        let mut tx = self.write().await?;
        let mut done = Cancelled::default();
        for (id, name) in targets(&mut tx, selection, "state IN ('queued', 'running')").await? {
            let before = row::state(&mut tx, id).await?;
            let (changed, message) = match before {
                State::Running { cancelling: true, .. } => {
                    done.stop.push(id);
                    (false, "is being cancelled already".to_owned())
                }
                _ => match row::apply(&mut tx, id, Event::CancelRequested, "cancelled by request", now).await
                {
                    Ok(State::Running { .. }) => {
                        done.stop.push(id);
                        (true, "being cancelled: its worker is told to stop".to_owned())
                    }
                    Ok(_) => (true, "cancelled".to_owned()),
                    Err(StoreError::Refused(refusal)) => (false, refusal.state.to_string()),
                    Err(error) => return Err(error),
                },
            };
            done.changes.push(v1::Change { id, name, changed, message, new_id: 0 });
        }
        tx.commit().await?;
        Ok(done)
    }

    /// Queues anew what failed or was cancelled, as new experiments that go on from its checkpoints.
    ///
    /// # Errors
    /// When the database cannot be written; then nothing was queued.
    pub async fn retry(&self, selection: &Selection, now: Now) -> Result<Retried> {
        let mut tx = self.write().await?;
        let mut done = Retried::default();
        for (id, name) in targets(&mut tx, selection, "state IN ('failed', 'cancelled')").await? {
            let state = row::state(&mut tx, id).await?;
            let mut change = v1::Change { id, name, ..v1::Change::default() };
            if !state.may_be_retried() {
                change.message = format!("{state}; only what failed or was cancelled can be retried");
            } else if let Some(newer) = retried_as(&mut tx, id).await? {
                change.message = format!("was retried already, as {newer}");
                change.new_id = newer;
            } else {
                change.new_id = queue_again(&mut tx, id, now).await?;
                change.changed = true;
                change.message = format!("queued again as {}", change.new_id);
            }
            done.changes.push(change);
        }
        tx.commit().await?;
        Ok(done)
    }
}

/// The experiments of a selection; "all" means only those that could change at all.
async fn targets(
    conn: &mut SqliteConnection,
    selection: &Selection,
    of_all: &'static str,
) -> Result<Vec<(u64, String)>> {
    let rows: Vec<(i64, String)> =
        match selection {
            Selection::All => {
                // The condition is one of the two literals above, never a person's text.
                let text = format!("SELECT id, name FROM experiments WHERE {of_all} ORDER BY id");
                sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_all(conn).await?
            }
            Selection::Ids(ids) => sqlx::query_as(
                "SELECT id, name FROM experiments WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            )
            .bind(Selection::json(ids))
            .fetch_all(conn)
            .await?,
        };
    Ok(rows.into_iter().map(|(id, name)| (unsigned(Some(id)), name)).collect())
}

/// A retry of it that may still give figures, or has.
async fn retried_as(conn: &mut SqliteConnection, id: u64) -> Result<Option<u64>> {
    let newer: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM experiments
         WHERE spec_hash = (SELECT spec_hash FROM experiments WHERE id = ?1) AND retry_of = ?1
             AND state IN ('queued', 'running', 'succeeded') AND NOT cancelling
         ORDER BY id DESC LIMIT 1",
    )
    .bind(sql(id))
    .fetch_optional(conn)
    .await?;
    Ok(newer.map(|id| unsigned(Some(id))))
}

async fn queue_again(conn: &mut SqliteConnection, id: u64, now: Now) -> Result<u64> {
    let (name, json, hash, needs_gpu, max_attempts, attempt): (String, String, String, bool, u32, u32) =
        sqlx::query_as(
            "SELECT name, spec_json, spec_hash, needs_gpu, max_attempts, attempt FROM experiments WHERE id = ?",
        )
        .bind(sql(id))
        .fetch_one(&mut *conn)
        .await?;
    let new = NewExperiment { name, json, hash, needs_gpu, max_attempts };
    let new_id = insert(conn, &new, Some(id), now).await?;
    sqlx::query("INSERT INTO sweep_members (sweep, experiment) SELECT sweep, ? FROM sweep_members WHERE experiment = ?")
        .bind(sql(new_id))
        .bind(sql(id))
        .execute(&mut *conn)
        .await?;
    row::note(conn, new_id, 0, &format!("submitted, to retry {id}"), now).await?;
    row::note(conn, id, attempt, &format!("retried as {new_id}"), now).await?;
    Ok(new_id)
}
