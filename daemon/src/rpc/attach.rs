//! A worker's stream, from Hello to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{
    Acknowledge, FromWorker, Heartbeat, HeartbeatReply, Hello, Report, ToWorker, Welcome, from_worker,
    to_worker,
};

use crate::chance;
use crate::coordinator::{Coordinator, worker_lost};
use crate::pool::Outbound;
use crate::store::{Interrupted, Verdict};

/// How long a new stream may take to say Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// Messages handled together; their reports share one transaction.
const MAX_BATCH: usize = 256;

/// More slots than this on one worker are a mistake.
const MAX_SLOTS: u32 = 1024;

/// How long the reason of a stream's end may take to be handed over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Talks with a worker until either leaves, a newer stream of it takes over, or the coordinator stops.
pub async fn converse(coordinator: Arc<Coordinator>, mut inbound: Streaming<FromWorker>, outbound: Outbound) {
    let end = match greeted(&coordinator, &mut inbound).await {
        Ok(hello) => attached(&coordinator, &hello, inbound, &outbound).await,
        Err(status) => Err(status),
    };
    if let Err(status) = end {
        let _ = tokio::time::timeout(FAREWELL, outbound.send(Err(status))).await;
    }
}

async fn greeted(coordinator: &Coordinator, inbound: &mut Streaming<FromWorker>) -> Result<Hello, Status> {
    let first = tokio::select! {
        () = coordinator.stopping.cancelled() => return Err(stopping()),
        first = tokio::time::timeout(HELLO_WITHIN, inbound.message()) => first,
    };
    let message = match first {
        Err(_) => return Err(Status::deadline_exceeded("expected Hello, heard nothing for 30 s")),
        Ok(message) => message?.and_then(|m| m.message),
    };
    let Some(from_worker::Message::Hello(hello)) = message else {
        return Err(Status::invalid_argument("expected Hello as the first message of a worker"));
    };
    if hello.worker.is_empty() || !cnx_proto::validate::is_name(&hello.worker) {
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
    Ok(hello)
}

async fn attached(
    coordinator: &Coordinator,
    hello: &Hello,
    mut inbound: Streaming<FromWorker>,
    outbound: &Outbound,
) -> Result<(), Status> {
    let (stream, cut) = welcome(coordinator, hello, outbound).await?;
    tracing::info!(worker = hello.worker, device = hello.device, slots = hello.slots, "attached");
    let worker = Attached { name: hello.worker.clone(), stream };
    let end = listen(coordinator, &worker, &mut inbound, outbound, &cut).await;
    if coordinator.pool().leave(&hello.worker, stream) {
        tracing::info!(worker = hello.worker, "detached");
        if let Err(error) = coordinator.store.detach(&hello.worker, chance::now()).await {
            tracing::warn!("when {} was last seen was not written: {error}", hello.worker);
        }
        coordinator.changed();
    }
    end
}

/// Judges the leases that the worker says it holds, ends those it lost, and lets it in.
async fn welcome(
    coordinator: &Coordinator,
    hello: &Hello,
    outbound: &Outbound,
) -> Result<(u64, CancellationToken), Status> {
    let ttl = coordinator.config.lease_ttl;
    let claims = coordinator.pool().claim(hello, Instant::now(), ttl);
    let message = format!("worker {} came back without it", hello.worker);
    let lost = |lease: &cnx_proto::v1::Lease| Interrupted {
        lease: lease.clone(),
        failure: worker_lost(message.clone()),
    };
    let lost: Vec<_> = claims.lost.iter().map(lost).collect();
    coordinator.store.attach(hello, &lost, chance::now()).await?;
    let welcome = Welcome {
        heartbeat_interval_ms: u32::try_from(coordinator.config.heartbeat.as_millis()).unwrap_or(u32::MAX),
        lease_ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        stale: claims.stale,
        artifacts_url: coordinator.config.artifacts_url.clone(),
    };
    let joined = {
        let mut pool = coordinator.pool();
        for lease in &claims.lost {
            pool.release(lease);
        }
        let first = ToWorker { message: Some(to_worker::Message::Welcome(welcome)) };
        pool.join(hello, outbound.clone(), first)
    };
    coordinator.ring();
    Ok(joined)
}

/// A worker, and which of its streams this is.
struct Attached {
    name: String,
    stream: u64,
}

/// Handles what the worker says, as much at once as has arrived.
async fn listen(
    coordinator: &Coordinator,
    worker: &Attached,
    inbound: &mut Streaming<FromWorker>,
    outbound: &Outbound,
    cut: &CancellationToken,
) -> Result<(), Status> {
    loop {
        let first = tokio::select! {
            () = coordinator.stopping.cancelled() => return Err(stopping()),
            () = cut.cancelled() => return Err(taken_over(&worker.name)),
            () = outbound.closed() => return Ok(()),
            first = inbound.message() => first,
        };
        // A broken connection needs no answer: nobody would hear it.
        let Ok(Some(first)) = first else { return Ok(()) };
        let mut batch = vec![first];
        let mut over = false;
        while batch.len() < MAX_BATCH && !over {
            match arrived(inbound).await {
                Poll::Ready(Some(message)) => batch.push(message),
                Poll::Ready(None) => over = true,
                Poll::Pending => break,
            }
        }
        let answers = handle(coordinator, worker, batch).await?;
        for answer in answers {
            tokio::select! {
                () = cut.cancelled() => return Err(taken_over(&worker.name)),
                sent = outbound.send(Ok(ToWorker { message: Some(answer) })) => {
                    if sent.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        if over {
            return Ok(());
        }
    }
}

/// A message that is there already, the end, or nothing so far.
async fn arrived(inbound: &mut Streaming<FromWorker>) -> Poll<Option<FromWorker>> {
    std::future::poll_fn(|cx| {
        let next = Pin::new(&mut *inbound).poll_next(cx);
        Poll::Ready(next.map(|message| message.and_then(Result::ok)))
    })
    .await
}

/// Durable reports in one transaction; the rest in memory.
async fn handle(
    coordinator: &Coordinator,
    worker: &Attached,
    batch: Vec<FromWorker>,
) -> Result<Vec<to_worker::Message>, Status> {
    let mut answers = Vec::new();
    let mut durable = Vec::new();
    for message in batch {
        match message.message {
            Some(from_worker::Message::Heartbeat(heartbeat)) => {
                answers.push(renew(coordinator, worker, heartbeat));
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
    let verdicts = coordinator.store.report(&durable, chance::now()).await?;
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

fn renew(coordinator: &Coordinator, worker: &Attached, heartbeat: Heartbeat) -> to_worker::Message {
    let ttl = coordinator.config.lease_ttl;
    let mut pool = coordinator.pool();
    if heartbeat.draining {
        pool.drain(&worker.name, worker.stream);
    }
    let stale = pool.renew(&worker.name, &heartbeat.leases, Instant::now(), ttl);
    to_worker::Message::Heartbeat(HeartbeatReply { number: heartbeat.number, stale })
}

/// Volatile reports are neither kept nor acknowledged; only progress is one.
fn note_progress(coordinator: &Coordinator, report: Report) {
    let (Some(lease), Some(Body::Progress(progress))) = (report.lease, report.body) else { return };
    if coordinator.pool().progress(&lease, progress) {
        coordinator.changed();
    }
}

fn stopping() -> Status {
    Status::unavailable("the coordinator stops; go on training and attach again")
}

fn taken_over(worker: &str) -> Status {
    Status::aborted(format!(
        "this connection of worker {worker} is over: a newer one took over, or it read too slowly; attach again"
    ))
}
