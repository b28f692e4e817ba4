//! What people say.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use cnx_proto::Spec;
use cnx_proto::v1::experiments_server::Experiments;
use cnx_proto::v1::{
    ChangeReply, DescribeRequest, ExperimentDetail, ListWorkersReply, ListWorkersRequest, LogLine,
    LogsRequest, ResultsReply, ResultsRequest, SelectRequest, StatusReply, StatusRequest, SubmitReply,
    SubmitRequest,
};

use super::error::{self, finished};
use super::{encode, follow};
use crate::coordinator::Coordinator;
use crate::store::{NewExperiment, Selection, Submission};

/// The service `Experiments`.
#[derive(Debug)]
pub struct Service {
    coordinator: Arc<Coordinator>,
}

impl Service {
    /// Of this coordinator.
    pub fn new(coordinator: Arc<Coordinator>) -> Service {
        Service { coordinator }
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Experiments for Service {
    async fn submit(&self, request: Request<SubmitRequest>) -> Reply<SubmitReply> {
        let coordinator = Arc::clone(&self.coordinator);
        let request = request.into_inner();
        let submission = tokio::task::spawn_blocking(move || submission(&request))
            .await
            .map_err(|e| Status::internal(format!("a defect in cnxd: {e}")))??;
        finished(async move {
            let experiments = coordinator.store.submit(submission, coordinator.chance.now()).await?;
            let free_slots = coordinator.pool().summary().free_slots;
            coordinator.ring();
            Ok(Response::new(SubmitReply { experiments, free_slots }))
        })
        .await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Reply<StatusReply> {
        Ok(Response::new(encode::status(&self.coordinator, request.get_ref()).await?))
    }

    type WatchStream = ReceiverStream<Result<StatusReply, Status>>;

    async fn watch(&self, request: Request<StatusRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        // Told now rather than in the stream, if the selection names nothing.
        self.coordinator.store.select(&request.selectors).await?;
        Ok(Response::new(follow::status(Arc::clone(&self.coordinator), request)))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Reply<ExperimentDetail> {
        let store = &self.coordinator.store;
        let id = store.select_one(&request.get_ref().selector).await?;
        let records = store.records(id).await?;
        let mut experiment = store.status(&Selection::Ids(vec![id]), 0).await?.pop();
        if let Some(experiment) = &mut experiment {
            let pool = self.coordinator.pool();
            encode::enrich(experiment, &pool, pool.summary(), self.coordinator.chance.now_ms());
        }
        Ok(Response::new(ExperimentDetail {
            experiment,
            attempts: records.attempts,
            epochs: records.epochs,
            artifacts: records.artifacts,
            events: records.events,
            figures: records.figures,
            artifacts_url: self.coordinator.config.artifacts_url.clone(),
        }))
    }

    type LogsStream = ReceiverStream<Result<LogLine, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Reply<Self::LogsStream> {
        let request = request.get_ref();
        let id = self.coordinator.store.select_one(&request.selector).await?;
        let after = self.coordinator.store.log_tail(id, request.tail).await?;
        Ok(Response::new(follow::logs(Arc::clone(&self.coordinator), id, after, request.follow)))
    }

    async fn cancel(&self, request: Request<SelectRequest>) -> Reply<ChangeReply> {
        let coordinator = Arc::clone(&self.coordinator);
        finished(async move {
            let selection = coordinator.store.select(&request.get_ref().selectors).await?;
            let done = coordinator.store.cancel(&selection, coordinator.chance.now()).await?;
            let mut pool = coordinator.pool();
            for experiment in done.stop {
                pool.cancel(experiment);
            }
            drop(pool);
            coordinator.ring();
            Ok(Response::new(ChangeReply { changes: done.changes }))
        })
        .await
    }

    async fn retry(&self, request: Request<SelectRequest>) -> Reply<ChangeReply> {
        let coordinator = Arc::clone(&self.coordinator);
        finished(async move {
            let selection = coordinator.store.select(&request.get_ref().selectors).await?;
            let done = coordinator.store.retry(&selection, coordinator.chance.now()).await?;
            coordinator.ring();
            Ok(Response::new(ChangeReply { changes: done.changes }))
        })
        .await
    }

    async fn results(&self, request: Request<ResultsRequest>) -> Reply<ResultsReply> {
        let store = &self.coordinator.store;
        let selection = store.select(&request.get_ref().selectors).await?;
        Ok(Response::new(ResultsReply { rows: store.results(&selection).await? }))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Reply<ListWorkersReply> {
        let mut workers = self.coordinator.store.workers().await?;
        let pool = self.coordinator.pool();
        for worker in &mut workers {
            worker.connected = pool.is_connected(&worker.name);
            worker.leases = pool.leases_of(&worker.name);
            // The token is the worker's right; people need only to know what it runs.
            worker.leases.iter_mut().for_each(|lease| lease.token.clear());
            if worker.connected {
                worker.last_seen_ms = self.coordinator.chance.now_ms();
            }
        }
        drop(pool);
        Ok(Response::new(ListWorkersReply { workers }))
    }
}

/// Validates every spec again, and tells every problem of every one: nothing reaches the queue unchecked.
fn submission(request: &SubmitRequest) -> Result<Submission, Status> {
    let mut experiments = Vec::with_capacity(request.experiments.len());
    let mut problems = Vec::new();
    for (index, new) in request.experiments.iter().enumerate() {
        match Spec::from_json(&new.spec_json) {
            Ok(spec) => experiments.push(NewExperiment::from(&spec)),
            Err(found) => {
                problems.extend(found.lines().map(|line| format!("experiment {}: {line}", index + 1)));
            }
        }
    }
    if request.experiments.is_empty() {
        problems.push("a submission needs at least one experiment".to_owned());
    }
    if !request.sweep.is_empty() && !cnx_proto::validate::is_name(&request.sweep) {
        problems.push(format!(
            "a sweep's name is made of letters, digits and . _ + = - (not only digits), found {:?}",
            request.sweep
        ));
    }
    if !problems.is_empty() {
        return Err(Status::invalid_argument(error::list("nothing was queued:", &problems)));
    }
    let sweep = Some(request.sweep.clone()).filter(|name| !name.is_empty());
    Ok(Submission { experiments, sweep, force: request.force, dry_run: request.dry_run })
}
