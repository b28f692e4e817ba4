//! The two services of `cnx.proto`: decode, call the store, encode.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use cnx_proto::state_dir::MAX_MESSAGE_BYTES;
use cnx_proto::v1::experiments_server::ExperimentsServer;
use cnx_proto::v1::workers_server::WorkersServer;

use crate::coordinator::Coordinator;
use crate::folder::Folder;

mod attach;
mod auth;
mod change;
mod doctor;
mod encode;
mod error;
pub mod experiments;
mod follow;
mod page;
mod submit;
mod workers;

/// A connection that answers no ping for so long is gone (a pulled cable says nothing).
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves both services until the coordinator stops.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    folder: &Folder,
    coordinator: Arc<Coordinator>,
) -> Result<(), tonic::transport::Error> {
    let guard = auth::Guard::new(folder.token(), &folder.token_file());
    let people = ExperimentsServer::new(experiments::Service::new(Arc::clone(&coordinator)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let machines = WorkersServer::new(workers::Service::new(Arc::clone(&coordinator)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let stopping = coordinator.stopping.clone();
    Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(InterceptedService::new(people, guard.clone()))
        .add_service(InterceptedService::new(machines, guard))
        .serve_with_incoming_shutdown(incoming(listener), stopping.cancelled_owned())
        .await
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}
