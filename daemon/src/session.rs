//! What a worker says and what it is answered, message by message; the stream that carries it is in
//! [`crate::rpc`]. A session is one stream of one worker, from Hello to its end.

use tokio_util::sync::CancellationToken;
use tonic::Status;

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{
    Acknowledge, FromWorker, Heartbeat, HeartbeatReply, Hello, Lease, Report, ToWorker, Welcome, from_worker,
    to_worker,
};
use cnx_proto::validate;

use crate::coordinator::{Coordinator, worker_lost};
use crate::pool::Outbound;
use crate::store::{Interrupted, Verdict};

/// Messages handled together; their reports share one transaction.
pub const MAX_BATCH: usize = 256;

/// More slots than this on one worker are a mistake.
const MAX_SLOTS: u32 = 1024;

/// A worker that was let in, and which of its streams this is.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub worker: String,
    /// Tells this stream from an earlier or later one of the same worker.
    stream: u64,
    /// Cancelled when a newer stream took over, or the worker reads too slowly.
    pub cut: CancellationToken,
}

/// The first message of a stream: a Hello that can be worked with.
///
/// # Errors
/// When it is anything else.
pub fn greeting(message: Option<from_worker::Message>) -> Result<Hello, Status> {
    let Some(from_worker::Message::Hello(hello)) = message else {
        return Err(Status::invalid_argument("expected Hello as the first message of a worker"));
    };
    if hello.worker.is_empty() || !validate::is_name(&hello.worker) {
        return Err(Status::invalid_argument(format!(
            "a worker's name is made of letters, digits and . _ + = - (not only digits), found {:?}",
            hello.worker
        )));
    }
    if !(1..=MAX_SLOTS).contains(&hello.slots) {
        return Err(Status::invalid_argument(format!(
            "a worker has 1 to {MAX_SLOTS} slots, found {}",
            hello.slots
        )));
    }
    if hello.labels.len() > validate::MAX_LABELS || !hello.labels.iter().all(|l| validate::is_label(l)) {
        return Err(Status::invalid_argument(format!(
            "a worker has at most {} labels of 1 to 64 letters, digits and . _ + = -, found {:?}",
            validate::MAX_LABELS,
            hello.labels
        )));
    }
    Ok(hello)
}

impl Session {
    /// Judges the leases that the worker says it holds, ends those it lost, and lets it in: Welcome goes to
    /// `outbound` first.
    ///
    /// # Errors
    /// When the database cannot be written; the worker is not let in then.
    pub async fn open(
        coordinator: &Coordinator,
        hello: &Hello,
        outbound: &Outbound,
    ) -> Result<Session, Status> {
        let ttl = coordinator.config.lease_ttl;
        let claims = coordinator.pool().claim(hello, coordinator.chance.instant(), ttl);
        let message = format!("worker {} came back without it", hello.worker);
        let lost =
            |lease: &Lease| Interrupted { lease: lease.clone(), failure: worker_lost(message.clone()) };
        let lost: Vec<_> = claims.lost.iter().map(lost).collect();
        coordinator.store.attach(hello, &lost, coordinator.chance.now()).await?;
        let heartbeat = coordinator.config.heartbeat;
        let welcome = Welcome {
            heartbeat_interval_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
            lease_ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            stale: claims.stale,
            artifacts_url: coordinator.config.artifacts_url.clone(),
        };
        let (stream, cut) = {
            let mut pool = coordinator.pool();
            for lease in &claims.lost {
                pool.release(lease);
            }
            let first = ToWorker { message: Some(to_worker::Message::Welcome(welcome)) };
            pool.join(hello, outbound.clone(), first)
        };
        coordinator.ring();
        tracing::info!(worker = hello.worker, device = hello.device, slots = hello.slots, "attached");
        Ok(Session { worker: hello.worker.clone(), stream, cut })
    }

    /// Handles what the worker said: durable reports in one transaction, the rest in memory. The answers are to be
    /// sent in their order.
    ///
    /// # Errors
    /// When the database cannot be written, or a message is out of place; the stream is over then, and nothing of
    /// what is not answered counts.
    pub async fn handle(
        &self,
        coordinator: &Coordinator,
        batch: Vec<FromWorker>,
    ) -> Result<Vec<to_worker::Message>, Status> {
        let mut answers = Vec::new();
        let mut durable = Vec::new();
        for message in batch {
            match message.message {
                Some(from_worker::Message::Heartbeat(heartbeat)) => {
                    answers.push(self.renew(coordinator, heartbeat));
                }
                Some(from_worker::Message::Report(report)) if report.sequence > 0 => durable.push(report),
                Some(from_worker::Message::Report(report)) => note_progress(coordinator, report),
                Some(from_worker::Message::Hello(_)) => {
                    return Err(Status::invalid_argument("Hello is said once, as the first message"));
                }
                // Of a newer worker: what it says is not for us.
                None => {}
            }
        }
        if durable.is_empty() {
            return Ok(answers);
        }
        let verdicts = coordinator.store.report(&durable, coordinator.chance.now()).await?;
        let mut ended = false;
        for (report, verdict) in durable.into_iter().zip(verdicts) {
            ended |= matches!(verdict, Verdict::Accepted { ended: true });
            answers.push(acknowledge(coordinator, report, verdict));
        }
        if ended {
            coordinator.ring()
        } else {
            coordinator.changed()
        }
        Ok(answers)
    }

    /// The stream is over. The worker's leases stay its own until they run out.
    pub async fn close(self, coordinator: &Coordinator) {
        if !coordinator.pool().leave(&self.worker, self.stream) {
            return;
        }
        tracing::info!(worker = self.worker, "detached");
        if let Err(error) = coordinator.store.detach(&self.worker, coordinator.chance.now()).await {
            tracing::warn!("when {} was last seen was not written: {error}", self.worker);
        }
        coordinator.changed();
    }

    fn renew(&self, coordinator: &Coordinator, heartbeat: Heartbeat) -> to_worker::Message {
        let ttl = coordinator.config.lease_ttl;
        let mut pool = coordinator.pool();
        if heartbeat.draining {
            pool.drain(&self.worker, self.stream);
        }
        let stale = pool.renew(&self.worker, &heartbeat.leases, coordinator.chance.instant(), ttl);
        to_worker::Message::Heartbeat(HeartbeatReply { number: heartbeat.number, stale })
    }
}

fn acknowledge(coordinator: &Coordinator, report: Report, verdict: Verdict) -> to_worker::Message {
    let (accepted, reason) = match verdict {
        Verdict::Accepted { ended } => {
            if let (true, Some(lease)) = (ended, &report.lease) {
                tracing::info!(experiment = lease.experiment, attempt = lease.attempt, "ended");
                coordinator.pool().release(lease);
            }
            (true, String::new())
        }
        Verdict::Refused(reason) => {
            tracing::warn!("a report was refused: {reason}");
            (false, reason)
        }
    };
    let Report { lease, sequence, .. } = report;
    to_worker::Message::Acknowledge(Acknowledge { lease, sequence, accepted, reason })
}

/// Volatile reports are neither kept nor acknowledged; only progress is one.
fn note_progress(coordinator: &Coordinator, report: Report) {
    let (Some(lease), Some(Body::Progress(progress))) = (report.lease, report.body) else { return };
    if coordinator.pool().progress(&lease, progress) {
        coordinator.changed();
    }
}
