//! What workers report. A report counts once, and only while its lease is the one that holds.

use prost::Message;
use rusqlite::params;

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{ArtifactKind, FailureClass, Lease, Outcome, Report, Started, outcome};

use super::lease::lineage;
use super::{Now, Result, Store, StoreError, Tx, row, sql};
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
    /// Applies durable reports of a worker, in their order, in one transaction.
    ///
    /// # Errors
    /// When the database cannot be written; then none of them counts.
    pub async fn report(&self, worker: &str, reports: Vec<Report>, now: Now) -> Result<Vec<Verdict>> {
        let worker = worker.to_owned();
        self.write(move |tx| reports.iter().map(|report| apply(tx, &worker, report, now)).collect()).await
    }
}

fn apply(tx: &Tx<'_>, worker: &str, report: &Report, now: Now) -> Result<Verdict> {
    let refused = |why: &str| Ok(Verdict::Refused(why.to_owned()));
    let (Some(lease), Some(body)) = (&report.lease, &report.body) else {
        return refused("a report needs a lease and a body");
    };
    // The fence, the holder and the sequence in one guarded statement: no row changed, no right (or told before).
    let fence = tx.execute(
        "UPDATE attempts SET last_sequence = ?4
         WHERE experiment = ?1 AND attempt = ?2 AND token = ?3 AND ended_at_ms IS NULL AND last_sequence < ?4
         AND worker = ?5",
        params![sql(lease.experiment), lease.attempt, lease.token, sql(report.sequence), worker],
    )?;
    if fence == 0 {
        return told_before_or_stale(tx, worker, lease, report.sequence);
    }
    match body {
        Body::Started(started) => record_start(tx, lease, started, now)?,
        // Volatile by nature: acknowledged, not kept.
        Body::Progress(_) => {}
        Body::Epoch(metrics) => {
            if metrics.epoch == 0 {
                return refused("epochs count from 1");
            }
            tx.execute(
                "INSERT INTO epochs (experiment, epoch, attempt, top1_error, metrics) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (experiment, epoch) DO UPDATE SET attempt = ?3, top1_error = ?4, metrics = ?5",
                params![
                    sql(lease.experiment),
                    metrics.epoch,
                    lease.attempt,
                    metrics.test_top1_error,
                    metrics.encode_to_vec()
                ],
            )?;
        }
        Body::Log(line) => {
            let at_ms = if line.at_ms == 0 { report.at_ms } else { line.at_ms };
            tx.execute(
                "INSERT INTO logs (experiment, attempt, at_ms, text) VALUES (?, ?, ?, ?)",
                params![sql(lease.experiment), lease.attempt, sql(at_ms), cut(&line.text)],
            )?;
        }
        Body::Artifact(artifact) => return record_artifact(tx, lease, artifact, now),
        Body::Figures(figures) => {
            tx.execute(
                "INSERT INTO figures (experiment, attempt, figures) VALUES (?1, ?2, ?3)
                 ON CONFLICT (experiment) DO UPDATE SET attempt = ?2, figures = ?3",
                params![sql(lease.experiment), lease.attempt, figures.encode_to_vec()],
            )?;
        }
        Body::Outcome(outcome) => return record_outcome(tx, lease, outcome, now),
    }
    Ok(Verdict::Accepted { ended: false })
}

fn record_outcome(tx: &Tx<'_>, lease: &Lease, outcome: &Outcome, now: Now) -> Result<Verdict> {
    let ending = ending(outcome);
    let what = match &ending {
        Ending::Succeeded => "succeeded".to_owned(),
        Ending::Cancelled => "stopped by its worker, as asked".to_owned(),
        Ending::Failed(failure) => failure.to_string(),
    };
    match row::apply(tx, lease.experiment, Event::Ended(ending), &what, now) {
        Ok(_) => Ok(Verdict::Accepted { ended: true }),
        Err(StoreError::Refused(refusal)) => Ok(Verdict::Refused(refusal.to_string())),
        Err(error) => Err(error),
    }
}

fn told_before_or_stale(tx: &Tx<'_>, worker: &str, lease: &Lease, sequence: u64) -> Result<Verdict> {
    let found: Option<(i64, String)> = tx.first(
        "SELECT last_sequence, outcome FROM attempts WHERE experiment = ? AND attempt = ? AND token = ? AND worker = ?",
        params![sql(lease.experiment), lease.attempt, lease.token, worker],
    )?;
    Ok(match found {
        Some((last, _)) if sql(sequence) <= last => Verdict::Accepted { ended: false },
        Some((_, outcome)) => Verdict::Refused(format!(
            "attempt {} of experiment {} is over ({outcome})",
            lease.attempt, lease.experiment
        )),
        None => Verdict::Refused(format!(
            "worker {worker} has no such lease of experiment {}, attempt {}",
            lease.experiment, lease.attempt
        )),
    })
}

fn record_start(tx: &Tx<'_>, lease: &Lease, started: &Started, now: Now) -> Result<()> {
    tx.execute(
        "UPDATE attempts SET environment = ?, resumed_at_epoch = ?, resumed_from = nullif(?, '')
         WHERE experiment = ? AND attempt = ?",
        params![
            started.environment.as_ref().map(Message::encode_to_vec),
            started.resumed_at_epoch,
            started.resumed_from,
            sql(lease.experiment),
            lease.attempt
        ],
    )?;
    let what = match started.resumed_at_epoch {
        0 => "started".to_owned(),
        epoch => format!("resumed at epoch {epoch}, from {}", started.resumed_from),
    };
    row::note(tx, lease.experiment, lease.attempt, &what, now)?;
    inherit_curve(tx, lease, started.resumed_at_epoch)
}

/// A retry that goes on from a checkpoint of what it retries takes over the curve up to there.
fn inherit_curve(tx: &Tx<'_>, lease: &Lease, epochs: u32) -> Result<()> {
    if epochs == 0 {
        return Ok(());
    }
    for ancestor in lineage(tx, lease.experiment)?.into_iter().skip(1) {
        tx.execute(
            "INSERT OR IGNORE INTO epochs (experiment, epoch, attempt, top1_error, metrics)
             SELECT ?1, epoch, ?2, top1_error, metrics FROM epochs WHERE experiment = ?3 AND epoch <= ?4",
            params![sql(lease.experiment), lease.attempt, sql(ancestor), epochs],
        )?;
    }
    Ok(())
}

fn record_artifact(
    tx: &Tx<'_>,
    lease: &Lease,
    artifact: &cnx_proto::v1::Artifact,
    now: Now,
) -> Result<Verdict> {
    let kind = ArtifactKind::try_from(artifact.kind).unwrap_or_default();
    if !is_own_name(&artifact.name, lease.experiment) {
        return Ok(Verdict::Refused(format!(
            "an artifact of experiment {0} is named experiments/{0}/…, found {1:?}",
            lease.experiment, artifact.name
        )));
    }
    let done = tx.execute(
        "INSERT INTO artifacts (name, experiment, attempt, kind, sha256, bytes, epoch, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (name) DO UPDATE
             SET attempt = ?3, kind = ?4, sha256 = ?5, bytes = ?6, epoch = ?7, at_ms = ?8, deleted = 0
             WHERE experiment = ?2",
        params![
            artifact.name,
            sql(lease.experiment),
            lease.attempt,
            kind.label(),
            artifact.sha256,
            sql(artifact.bytes),
            artifact.epoch,
            sql(now.ms)
        ],
    )?;
    if done == 0 {
        return Ok(Verdict::Refused(format!("artifact {:?} belongs to another experiment", artifact.name)));
    }
    for name in &artifact.deleted {
        tx.execute(
            "UPDATE artifacts SET deleted = 1 WHERE name = ? AND experiment = ?",
            params![name, sql(lease.experiment)],
        )?;
    }
    Ok(Verdict::Accepted { ended: false })
}

/// Whether it lies in the experiment's own folder, and cannot lead out of it.
fn is_own_name(name: &str, experiment: u64) -> bool {
    let own = name.strip_prefix("experiments/").and_then(|rest| rest.strip_prefix(&experiment.to_string()));
    let file = own.and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    file.split('/').all(|part| !matches!(part, "" | "." | ".."))
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
