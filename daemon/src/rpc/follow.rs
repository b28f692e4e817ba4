//! Streams to people: status and logs as they change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use cnx_proto::v1::{LogLine, StatusReply, StatusRequest};

use super::encode;
use crate::coordinator::Coordinator;

/// Shortest time between two statuses of one watcher.
const SHORTEST_GAP: Duration = Duration::from_millis(200);

/// A status that takes long to put together is sent less often: a watcher gets at most this share of the time.
const COST_SHARE: u32 = 5;

/// Log lines read at once.
const LOG_PAGE: u32 = 500;

/// The status now, and again after changes, until the coordinator stops or the caller leaves.
pub fn status(
    coordinator: Arc<Coordinator>,
    request: StatusRequest,
) -> ReceiverStream<Result<StatusReply, Status>> {
    let (out, replies) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut changes = coordinator.watch();
        loop {
            changes.borrow_and_update();
            let started = Instant::now();
            let reply = encode::status(&coordinator, &request).await;
            let failed = reply.is_err();
            if out.send(reply).await.is_err() || failed {
                return;
            }
            let gap = SHORTEST_GAP.max(started.elapsed() * COST_SHARE);
            let next_change = async {
                tokio::time::sleep_until(started + gap).await;
                changed(&mut changes).await;
            };
            tokio::select! {
                () = coordinator.stopping.cancelled() => return,
                () = out.closed() => return,
                () = next_change => {}
            }
        }
    });
    ReceiverStream::new(replies)
}

/// Log lines after the one numbered `after`; following, until the experiment is final and all was told.
pub fn logs(
    coordinator: Arc<Coordinator>,
    id: u64,
    mut after: u64,
    follow: bool,
) -> ReceiverStream<Result<LogLine, Status>> {
    let (out, lines) = mpsc::channel(LOG_PAGE as usize);
    tokio::spawn(async move {
        let mut changes = coordinator.watch();
        loop {
            changes.borrow_and_update();
            // Finality is read first: whatever was logged before it is then in the pages below.
            let last_look = match coordinator.store.is_final(id).await {
                Ok(is_final) => is_final || !follow,
                Err(error) => return drop(out.send(Err(error.into())).await),
            };
            match send_pages(&coordinator, id, &mut after, &out).await {
                Ok(()) if !last_look => {}
                Ok(()) => return,
                Err(status) => return drop(out.send(Err(status)).await),
            }
            let next_change = async {
                changed(&mut changes).await;
                tokio::time::sleep(SHORTEST_GAP / 2).await;
            };
            tokio::select! {
                () = coordinator.stopping.cancelled() => return,
                () = out.closed() => return,
                () = next_change => {}
            }
        }
    });
    ReceiverStream::new(lines)
}

async fn send_pages(
    coordinator: &Coordinator,
    id: u64,
    after: &mut u64,
    out: &mpsc::Sender<Result<LogLine, Status>>,
) -> Result<(), Status> {
    loop {
        let page = coordinator.store.log_after(id, *after, LOG_PAGE).await?;
        let full = page.len() == LOG_PAGE as usize;
        for numbered in page {
            *after = numbered.number;
            if out.send(Ok(numbered.line)).await.is_err() {
                return Ok(());
            }
        }
        if !full || out.is_closed() {
            return Ok(());
        }
    }
}

async fn changed(changes: &mut watch::Receiver<u64>) {
    // The sender lives as long as the coordinator that we hold.
    let _ = changes.changed().await;
}
