//! What people say.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use cnx_proto::v1::experiments_server::Experiments;
use cnx_proto::v1::{
    ChangeReply, DescribeRequest, DoctorReply, DoctorRequest, ExperimentDetail, ListWorkersReply,
    ListWorkersRequest, LogLine, LogsRequest, PauseRequest, PriorityRequest, ResultsReply, ResultsRequest,
    SelectRequest, StatusReply, StatusRequest, SubmitReply, SubmitRequest,
};

use super::{change, doctor, encode, follow, page, selectors, submit};
use crate::coordinator::{Coordinator, millis};
use crate::store::{Part, Selection};

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
        submit::one(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn submit_many(&self, request: Request<Streaming<SubmitRequest>>) -> Reply<SubmitReply> {
        submit::many(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Reply<StatusReply> {
        selectors(&request.get_ref().selectors)?;
        Ok(Response::new(encode::status(&self.coordinator, request.get_ref()).await?))
    }

    type WatchStream = ReceiverStream<Result<StatusReply, Status>>;

    async fn watch(&self, request: Request<StatusRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        selectors(&request.selectors)?;
        // Told now rather than in the stream, if the selection names nothing.
        self.coordinator.store.select(&request.selectors).await?;
        Ok(Response::new(follow::status(Arc::clone(&self.coordinator), request)))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Reply<ExperimentDetail> {
        let store = &self.coordinator.store;
        selectors(std::slice::from_ref(&request.get_ref().selector))?;
        let id = store.select_one(&request.get_ref().selector).await?;
        let records = store.records(id).await?;
        let mut experiment = store.status(&Selection::Ids(vec![id]), 0).await?.pop();
        let why = match &mut experiment {
            Some(experiment) => encode::explained(&self.coordinator, experiment).await?,
            None => Vec::new(),
        };
        Ok(Response::new(ExperimentDetail {
            experiment,
            attempts: records.attempts,
            epochs: records.epochs,
            artifacts: records.artifacts,
            events: records.events,
            figures: records.figures,
            artifacts_url: self.coordinator.config.artifacts_url.clone(),
            why,
        }))
    }

    type LogsStream = ReceiverStream<Result<LogLine, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Reply<Self::LogsStream> {
        let request = request.get_ref();
        selectors(std::slice::from_ref(&request.selector))?;
        let id = self.coordinator.store.select_one(&request.selector).await?;
        let after = self.coordinator.store.log_tail(id, request.tail).await?;
        Ok(Response::new(follow::logs(Arc::clone(&self.coordinator), id, after, request.follow)))
    }

    async fn cancel(&self, request: Request<SelectRequest>) -> Reply<ChangeReply> {
        change::cancel(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn retry(&self, request: Request<SelectRequest>) -> Reply<ChangeReply> {
        change::retry(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Reply<ChangeReply> {
        change::pause(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn resume(&self, request: Request<PauseRequest>) -> Reply<ChangeReply> {
        change::resume(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn set_priority(&self, request: Request<PriorityRequest>) -> Reply<ChangeReply> {
        change::set_priority(Arc::clone(&self.coordinator), request.into_inner()).await
    }

    async fn results(&self, request: Request<ResultsRequest>) -> Reply<ResultsReply> {
        let (store, request) = (&self.coordinator.store, request.get_ref());
        selectors(&request.selectors)?;
        let selection = store.select(&request.selectors).await?;
        let part = Part::After(request.after);
        let mut page = store.page(&selection, part, 0).await?;
        let mut rows = store.results(&Selection::Ids(std::mem::take(&mut page.ids))).await?;
        page::fit(&mut rows, part, |left_out| page.left_out(left_out.len() as u64, 0));
        Ok(Response::new(ResultsReply { rows, more: page.more }))
    }

    async fn doctor(&self, _: Request<DoctorRequest>) -> Reply<DoctorReply> {
        doctor::doctor(Arc::clone(&self.coordinator)).await
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Reply<ListWorkersReply> {
        let mut workers = self.coordinator.store.workers().await?;
        let now = self.coordinator.chance.instant();
        let pool = self.coordinator.pool();
        for worker in &mut workers {
            let silence = pool.silence(&worker.name, now);
            worker.connected = pool.is_connected(&worker.name);
            worker.leases = pool.leases_of(&worker.name);
            // The token is the worker's right; people need only to know what it runs.
            worker.leases.iter_mut().for_each(|lease| lease.token.clear());
            if let Some(silence) = silence {
                worker.last_seen_ms = self.coordinator.chance.now_ms().saturating_sub(millis(silence));
            }
            worker.suspect_since_ms = self.coordinator.suspect_since_ms(silence).unwrap_or(0);
        }
        drop(pool);
        Ok(Response::new(ListWorkersReply { workers }))
    }
}
