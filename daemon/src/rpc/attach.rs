//! A worker's stream, from Hello to its end. What is said on it is [`crate::session`]'s.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::{Status, Streaming};

use cnx_proto::v1::{FromWorker, Hello, ToWorker};

use crate::coordinator::Coordinator;
use crate::pool::Outbound;
use crate::session::{self, MAX_BATCH, Session, taken_over};

/// How long a new stream may take to say Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// How long the reason of a stream's end may take to be handed over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Talks with a worker until either leaves, a newer stream of it takes over, or the coordinator stops.
pub async fn converse(coordinator: Arc<Coordinator>, mut inbound: Streaming<FromWorker>, outbound: Outbound) {
    let end = match greeted(&coordinator, &mut inbound).await {
        Ok(hello) => attached(&coordinator, hello, inbound, &outbound).await,
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
    match first {
        Err(_) => Err(Status::deadline_exceeded("expected Hello, heard nothing for 30 s")),
        Ok(message) => session::greeting(message?.and_then(|m| m.message)),
    }
}

async fn attached(
    coordinator: &Coordinator,
    hello: Hello,
    mut inbound: Streaming<FromWorker>,
    outbound: &Outbound,
) -> Result<(), Status> {
    let mut session = Session::open(coordinator, hello, outbound.clone());
    let end = listen(coordinator, &mut session, &mut inbound, outbound).await;
    session.close(coordinator).await;
    end
}

/// Handles what the worker says, as much at once as has arrived.
async fn listen(
    coordinator: &Coordinator,
    session: &mut Session,
    inbound: &mut Streaming<FromWorker>,
    outbound: &Outbound,
) -> Result<(), Status> {
    loop {
        let first = tokio::select! {
            () = coordinator.stopping.cancelled() => return Err(stopping()),
            () = session.cut.cancelled() => return Err(taken_over(&session.worker)),
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
        let answers = session.handle(coordinator, batch).await?;
        for answer in answers {
            tokio::select! {
                () = session.cut.cancelled() => return Err(taken_over(&session.worker)),
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

fn stopping() -> Status {
    Status::unavailable("the coordinator stops; go on training and attach again")
}
