//! What people change: the disk first, then memory, then workers and watchers hear of it.

use std::sync::Arc;

use tonic::{Response, Status};

use cnx_proto::v1::{Change, ChangeReply, PauseRequest, PriorityRequest, SelectRequest};

use super::chosen;
use super::error::finished;
use crate::coordinator::Coordinator;
use crate::store::{Changed, Retry};

type Reply = Result<Response<ChangeReply>, Status>;

/// Cancels what waits, and tells workers to stop what runs.
pub async fn cancel(coordinator: Arc<Coordinator>, request: SelectRequest) -> Reply {
    chosen(&request.selectors)?;
    finished(async move {
        let selection = coordinator.store.select(&request.selectors).await?;
        let done = coordinator.store.cancel(&selection, coordinator.chance.now()).await?;
        Ok(tell(&coordinator, done))
    })
    .await
}

/// Queues anew what failed or was cancelled.
pub async fn retry(coordinator: Arc<Coordinator>, request: SelectRequest) -> Reply {
    if !request.all_failed {
        chosen(&request.selectors)?;
    }
    finished(async move {
        let what = match request.all_failed {
            true => Retry::AllFailed,
            false => Retry::Selected(coordinator.store.select(&request.selectors).await?),
        };
        let done = coordinator.store.retry(&what, coordinator.chance.now()).await?;
        Ok(tell(&coordinator, done))
    })
    .await
}

/// Pauses experiments, or the whole queue.
pub async fn pause(coordinator: Arc<Coordinator>, request: PauseRequest) -> Reply {
    if !request.queue {
        chosen(&request.selectors)?;
    }
    finished(async move {
        if request.queue {
            return hold_queue(&coordinator, true).await;
        }
        let selection = coordinator.store.select(&request.selectors).await?;
        let done = coordinator.store.pause(&selection, coordinator.chance.now()).await?;
        Ok(tell(&coordinator, done))
    })
    .await
}

/// Resumes experiments, or the whole queue.
pub async fn resume(coordinator: Arc<Coordinator>, request: PauseRequest) -> Reply {
    if !request.queue {
        chosen(&request.selectors)?;
    }
    finished(async move {
        if request.queue {
            return hold_queue(&coordinator, false).await;
        }
        let selection = coordinator.store.select(&request.selectors).await?;
        let done = coordinator.store.resume(&selection, coordinator.chance.now()).await?;
        Ok(tell(&coordinator, done))
    })
    .await
}

/// Changes the priority of what waits.
pub async fn set_priority(coordinator: Arc<Coordinator>, request: PriorityRequest) -> Reply {
    chosen(&request.selectors)?;
    finished(async move {
        let selection = coordinator.store.select(&request.selectors).await?;
        let done =
            coordinator.store.set_priority(&selection, request.priority, coordinator.chance.now()).await?;
        Ok(tell(&coordinator, done))
    })
    .await
}

async fn hold_queue(coordinator: &Coordinator, paused: bool) -> Reply {
    let changed = coordinator.store.hold_queue(paused, coordinator.chance.now()).await?;
    let message = match (paused, changed) {
        (true, true) => "paused: nothing more is dispatched; what runs goes on",
        (true, false) => "is paused already",
        (false, true) => "resumed",
        (false, false) => "is not paused",
    };
    let change =
        Change { name: "queue".to_owned(), changed, message: message.to_owned(), ..Change::default() };
    Ok(tell(coordinator, Changed { changes: vec![change], stop: Vec::new() }))
}

fn tell(coordinator: &Coordinator, done: Changed) -> Response<ChangeReply> {
    let mut pool = coordinator.pool();
    for (experiment, why) in done.stop {
        pool.ask_to_stop(experiment, why);
    }
    drop(pool);
    coordinator.ring();
    Response::new(ChangeReply { changes: done.changes })
}
