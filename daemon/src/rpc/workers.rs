//! What machines say: one stream a worker, told in [`super::attach`].

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use cnx_proto::v1::workers_server::Workers;
use cnx_proto::v1::{FromWorker, ToWorker};

use super::attach;
use crate::coordinator::Coordinator;
use crate::pool::MAX_BACKLOG;

/// The service `Workers`.
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

#[tonic::async_trait]
impl Workers for Service {
    type AttachStream = ReceiverStream<Result<ToWorker, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outbound, messages) = mpsc::channel(MAX_BACKLOG);
        // A task of its own: what it commits and what it then does in memory is not cut apart by a hang-up.
        tokio::spawn(attach::converse(Arc::clone(&self.coordinator), request.into_inner(), outbound));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
