//! What workers report. A report counts once, and only while its lease is the one that holds.

use prost::Message;
use sqlx::SqliteConnection;

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{ArtifactKind, FailureClass, Lease, Outcome, Report, Started, outcome};

use super::lease::lineage;
use super::{Now, Result, Store, StoreError, row, sql};
use crate::lifecycle::{Ending, Event, Failure};

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is on disk.
    Accepted {
        /// It was the outcome: the lease is over.
        ended: bool,
    },
    /// It never will be.
    Refused(String),
}

/// Longest log line kept, in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

impl Store {
    /// Applies durable reports, in their order, in one transaction.
    ///
    /// # Errors
    /// When the database cannot be written; then none of them counts.
    pub async fn report(&self, reports: &[Report], now: Now) -> Result<Vec<Verdict>> {
        let mut tx = self.write().await?;
        let mut verdicts = Vec::with_capacity(reports.len());
        for report in reports {
            verdicts.push(apply(&mut tx, report, now).await?);
        }
        tx.commit().await?;
        Ok(verdicts)
    }
}

async fn apply(conn: &mut SqliteConnection, report: &Report, now: Now) -> Result<Verdict> {
    let refused = |why: &str| Ok(Verdict::Refused(why.to_owned()));
    let (Some(lease), Some(body)) = (&report.lease, &report.body) else {
        return refused("a report needs a lease and a body");
    };
    // The fence and the sequence in one guarded statement: no row changed, no right (or told before).
    let fence = sqlx::query(
        "UPDATE attempts SET last_sequence = ?4
         WHERE experiment = ?1 AND attempt = ?2 AND token = ?3 AND ended_at_ms IS NULL AND last_sequence < ?4",
    )
    .bind(sql(lease.experiment))
    .bind(lease.attempt)
    .bind(&lease.token)
    .bind(sql(report.sequence))
    .execute(&mut *conn)
    .await?;
    if fence.rows_affected() == 0 {
        return told_before_or_stale(conn, lease, report.sequence).await;
    }
    let mut ended = false;
    match body {
        Body::Started(started) => record_start(conn, lease, started, now).await?,
        // Volatile by nature: acknowledged, not kept.
        Body::Progress(_) => {}
        Body::Epoch(metrics) => {
            if metrics.epoch == 0 {
                return refused("epochs count from 1");
            }
            sqlx::query(
                "INSERT INTO epochs (experiment, epoch, attempt, top1_error, metrics) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (experiment, epoch) DO UPDATE SET attempt = ?3, top1_error = ?4, metrics = ?5",
            )
            .bind(sql(lease.experiment))
            .bind(metrics.epoch)
            .bind(lease.attempt)
            .bind(metrics.test_top1_error)
            .bind(metrics.encode_to_vec())
            .execute(conn)
            .await?;
        }
        Body::Log(line) => {
            sqlx::query("INSERT INTO logs (experiment, attempt, at_ms, text) VALUES (?, ?, ?, ?)")
                .bind(sql(lease.experiment))
                .bind(lease.attempt)
                .bind(sql(if line.at_ms == 0 { report.at_ms } else { line.at_ms }))
                .bind(cut(&line.text))
                .execute(conn)
                .await?;
        }
        Body::Artifact(artifact) => return record_artifact(conn, lease, artifact, now).await,
        Body::Figures(figures) => {
            sqlx::query(
                "INSERT INTO figures (experiment, attempt, figures) VALUES (?1, ?2, ?3)
                 ON CONFLICT (experiment) DO UPDATE SET attempt = ?2, figures = ?3",
            )
            .bind(sql(lease.experiment))
            .bind(lease.attempt)
            .bind(figures.encode_to_vec())
            .execute(conn)
            .await?;
        }
        Body::Outcome(outcome) => {
            let ending = ending(outcome);
            let what = match &ending {
                Ending::Succeeded => "succeeded".to_owned(),
                Ending::Cancelled => "stopped by its worker, as asked".to_owned(),
                Ending::Failed(failure) => failure.to_string(),
            };
            match row::apply(conn, lease.experiment, Event::Ended(ending), &what, now).await {
                Err(StoreError::Refused(refusal)) => return refused(&refusal.to_string()),
                done => done?,
            };
            ended = true;
        }
    }
    Ok(Verdict::Accepted { ended })
}

async fn told_before_or_stale(conn: &mut SqliteConnection, lease: &Lease, sequence: u64) -> Result<Verdict> {
    let found: Option<(i64, String)> = sqlx::query_as(
        "SELECT last_sequence, outcome FROM attempts WHERE experiment = ? AND attempt = ? AND token = ?",
    )
    .bind(sql(lease.experiment))
    .bind(lease.attempt)
    .bind(&lease.token)
    .fetch_optional(conn)
    .await?;
    Ok(match found {
        Some((last, _)) if sql(sequence) <= last => Verdict::Accepted { ended: false },
        Some((_, outcome)) => Verdict::Refused(format!(
            "attempt {} of experiment {} is over ({outcome})",
            lease.attempt, lease.experiment
        )),
        None => Verdict::Refused(format!(
            "no such lease of experiment {}, attempt {}",
            lease.experiment, lease.attempt
        )),
    })
}

async fn record_start(conn: &mut SqliteConnection, lease: &Lease, started: &Started, now: Now) -> Result<()> {
    sqlx::query(
        "UPDATE attempts SET environment = ?, resumed_at_epoch = ?, resumed_from = nullif(?, '')
         WHERE experiment = ? AND attempt = ?",
    )
    .bind(started.environment.as_ref().map(Message::encode_to_vec))
    .bind(started.resumed_at_epoch)
    .bind(&started.resumed_from)
    .bind(sql(lease.experiment))
    .bind(lease.attempt)
    .execute(&mut *conn)
    .await?;
    let what = match started.resumed_at_epoch {
        0 => "started from the beginning".to_owned(),
        epoch => format!("resumed at epoch {epoch}, from {}", started.resumed_from),
    };
    row::note(conn, lease.experiment, lease.attempt, &what, now).await?;
    inherit_curve(conn, lease, started.resumed_at_epoch).await
}

/// A retry that goes on from a checkpoint of what it retries takes over the curve up to there.
async fn inherit_curve(conn: &mut SqliteConnection, lease: &Lease, epochs: u32) -> Result<()> {
    if epochs == 0 {
        return Ok(());
    }
    for ancestor in lineage(conn, lease.experiment).await?.into_iter().skip(1) {
        sqlx::query(
            "INSERT OR IGNORE INTO epochs (experiment, epoch, attempt, top1_error, metrics)
             SELECT ?1, epoch, ?2, top1_error, metrics FROM epochs WHERE experiment = ?3 AND epoch <= ?4",
        )
        .bind(sql(lease.experiment))
        .bind(lease.attempt)
        .bind(sql(ancestor))
        .bind(epochs)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

async fn record_artifact(
    conn: &mut SqliteConnection,
    lease: &Lease,
    artifact: &cnx_proto::v1::Artifact,
    now: Now,
) -> Result<Verdict> {
    let kind = ArtifactKind::try_from(artifact.kind).unwrap_or_default();
    let done = sqlx::query(
        "INSERT INTO artifacts (name, experiment, attempt, kind, sha256, bytes, epoch, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (name) DO UPDATE
             SET attempt = ?3, kind = ?4, sha256 = ?5, bytes = ?6, epoch = ?7, at_ms = ?8, deleted = 0
             WHERE experiment = ?2",
    )
    .bind(&artifact.name)
    .bind(sql(lease.experiment))
    .bind(lease.attempt)
    .bind(kind.label())
    .bind(&artifact.sha256)
    .bind(sql(artifact.bytes))
    .bind(artifact.epoch)
    .bind(sql(now.ms))
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(Verdict::Refused(format!("artifact {:?} belongs to another experiment", artifact.name)));
    }
    for name in &artifact.deleted {
        sqlx::query("UPDATE artifacts SET deleted = 1 WHERE name = ? AND experiment = ?")
            .bind(name)
            .bind(sql(lease.experiment))
            .execute(&mut *conn)
            .await?;
    }
    Ok(Verdict::Accepted { ended: false })
}

fn ending(outcome: &Outcome) -> Ending {
    let class = match outcome.failure() {
        FailureClass::Unspecified => FailureClass::Internal,
        class => class,
    };
    match outcome.kind() {
        outcome::Kind::Succeeded => Ending::Succeeded,
        outcome::Kind::Cancelled => Ending::Cancelled,
        outcome::Kind::Failed => Ending::Failed(Failure { class, message: cut(&outcome.message).to_owned() }),
        outcome::Kind::Unspecified => {
            let message = "the worker reported an outcome of no known kind".to_owned();
            Ending::Failed(Failure { class: FailureClass::Internal, message })
        }
    }
}

/// At most [`MAX_LINE_BYTES`] of a text, whole characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
