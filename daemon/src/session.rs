//! What a worker says and what it is answered, message by message; the stream that carries it is in
//! [`crate::rpc`]. A session is one stream of one worker, from Hello to its end.

use tokio_util::sync::CancellationToken;
use tonic::Status;

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{
    Acknowledge, FromWorker, Heartbeat, HeartbeatReply, Hello, Lease, Report, ToWorker, Welcome, from_worker,
    to_worker,
};

use crate::coordinator::{Coordinator, worker_lost};
use crate::limits;
use crate::pool::Outbound;
use crate::store::{Interrupted, Verdict};

/// Messages handled together; their reports share one transaction.
pub const MAX_BATCH: usize = 256;

/// One stream of a worker that was welcomed.
#[derive(Debug)]
pub struct Session {
    /// The worker's name.
    pub worker: String,
    /// Cancelled when a newer stream took over, or the worker reads too slowly.
    pub cut: CancellationToken,
    hello: Hello,
    outbound: Outbound,
    /// Tells this stream from an earlier or later one of the same worker.
    stream: u64,
    /// The worker said something that shows that it heard Welcome.
    entered: bool,
}

/// The first message of a stream: a Hello that can be worked with.
///
/// # Errors
/// When it is anything else.
pub fn greeting(message: Option<from_worker::Message>) -> Result<Hello, Status> {
    let Some(from_worker::Message::Hello(hello)) = message else {
        return Err(Status::invalid_argument("expected Hello as the first message of a worker"));
    };
    limits::hello(&hello).map_err(Status::invalid_argument)?;
    Ok(hello)
}

impl Session {
    /// Judges the leases that the worker says it holds and renews what it does hold: Welcome goes to `outbound`.
    ///
    /// Nothing else follows from a Hello, for it may be an old one: the worker may have given this connection up while
    /// the coordinator stood still or the network was slow, and have attached anew since. What it does not name counts
    /// as lost only when the worker answers on this stream ([`Session::handle`]), and if none that was opened later was
    /// answered before. So an old Hello does nothing (nobody answers its Welcome), and an old answer neither.
    pub fn open(coordinator: &Coordinator, hello: Hello, outbound: Outbound) -> Session {
        let ttl = coordinator.config.lease_ttl;
        let (stream, stale) = {
            let mut pool = coordinator.pool();
            (pool.open(), pool.renew(&hello.worker, &hello.held, coordinator.chance.instant(), ttl))
        };
        let heartbeat = coordinator.config.heartbeat;
        let welcome = Welcome {
            heartbeat_interval_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
            lease_ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            stale,
            artifacts_url: coordinator.config.artifacts_url.clone(),
        };
        // The channel is new and empty: there is room.
        let _ = outbound.try_send(Ok(ToWorker { message: Some(to_worker::Message::Welcome(welcome)) }));
        let (worker, cut) = (hello.worker.clone(), CancellationToken::new());
        Session { worker, cut, hello, outbound, stream, entered: false }
    }

    /// The worker answered: this is its stream now. Ends the leases that it lost, and lets it have others.
    async fn enter(&mut self, coordinator: &Coordinator) -> Result<(), Status> {
        if self.entered {
            return Ok(());
        }
        let hello = &self.hello;
        let lost = coordinator.pool().claim(hello, self.stream).ok_or_else(|| taken_over(&self.worker))?;
        let message = format!("worker {} came back without it", hello.worker);
        let interrupted =
            |lease: &Lease| Interrupted { lease: lease.clone(), failure: worker_lost(message.clone()) };
        let interrupted: Vec<_> = lost.iter().map(interrupted).collect();
        coordinator.store.attach(hello, &interrupted, coordinator.chance.now()).await?;
        let joined = {
            let mut pool = coordinator.pool();
            for lease in &lost {
                pool.release(lease);
            }
            let now = coordinator.chance.instant();
            pool.join(hello, self.stream, self.outbound.clone(), self.cut.clone(), now)
        };
        coordinator.ring();
        if !joined {
            return Err(taken_over(&self.worker));
        }
        self.entered = true;
        tracing::info!(worker = hello.worker, device = hello.device, slots = hello.slots, "attached");
        Ok(())
    }

    /// Handles what the worker said: durable reports in one transaction, the rest in memory. The answers are to be
    /// sent in their order.
    ///
    /// # Errors
    /// When the database cannot be written, or a message is out of place; the stream is over then, and nothing of
    /// what is not answered counts.
    pub async fn handle(
        &mut self,
        coordinator: &Coordinator,
        batch: Vec<FromWorker>,
    ) -> Result<Vec<to_worker::Message>, Status> {
        self.enter(coordinator).await?;
        if coordinator.pool().heard(&self.worker, self.stream, coordinator.chance.instant()) {
            coordinator.ring();
        }
        let mut answers = Vec::new();
        let (mut durable, mut objections) = (Vec::new(), Vec::new());
        for message in batch {
            match message.message {
                Some(from_worker::Message::Heartbeat(heartbeat)) => {
                    answers.push(self.renew(coordinator, heartbeat));
                }
                Some(from_worker::Message::Report(mut report)) if report.sequence > 0 => {
                    objections.push(self.objection(coordinator, &mut report));
                    durable.push(report);
                }
                Some(from_worker::Message::Report(report)) => self.note_progress(coordinator, report),
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
        let is_right =
            |(report, objection): (&Report, &Option<String>)| objection.is_none().then(|| report.clone());
        let right: Vec<Report> = durable.iter().zip(&objections).filter_map(is_right).collect();
        let mut verdicts =
            coordinator.store.report(&self.worker, right, coordinator.chance.now()).await?.into_iter();
        let mut ended = false;
        for (report, objection) in durable.into_iter().zip(objections) {
            // As many verdicts as reports went in.
            let Some(verdict) = objection.map(Verdict::Refused).or_else(|| verdicts.next()) else { break };
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

    /// What is wrong with a durable report, if anything.
    fn objection(&self, coordinator: &Coordinator, report: &mut Report) -> Option<String> {
        let wrong = limits::report(report).and_then(|()| coordinator.pool().admit(&self.worker, report));
        wrong.err()
    }

    /// Volatile reports are neither kept nor acknowledged; only progress is one.
    fn note_progress(&self, coordinator: &Coordinator, report: Report) {
        let (Some(lease), Some(Body::Progress(progress))) = (report.lease, report.body) else { return };
        if coordinator.pool().progress(&self.worker, &lease, progress) {
            coordinator.changed();
        }
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

/// Why a stream ends that is not, or will not be, its worker's any more.
pub fn taken_over(worker: &str) -> Status {
    Status::aborted(format!(
        "this connection of worker {worker} is over: a newer one took over, or it read too slowly; attach again"
    ))
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
