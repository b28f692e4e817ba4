//! The two services of `cnx.proto`: decode, call the store, encode.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use cnx_access::Role;
use cnx_proto::state_dir::{MAX_MESSAGE_BYTES, MAX_ORDER_BYTES, MAX_WORKER_MESSAGE_BYTES};
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
pub mod gate;
mod page;
mod submit;
mod workers;

/// A connection that answers no ping for so long is gone (a pulled cable says nothing).
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls at once on one connection: a worker has one, a command a few. More wait on the caller's side until one ends.
const MAX_STREAMS: u32 = 128;

/// Bytes on their way on one connection that nobody has read yet: all that a caller without a token can make us hold.
const WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of a call's headers; a token takes a hundred. The call is refused (431), as HTTP/2 has it.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Streams that were opened and reset at once, before the connection is closed (a flood that costs its sender nothing).
const MAX_RESETS: usize = 20;

/// What people may say in one message. The command line cuts submissions into parts of 1 MiB. A longer one is refused
/// (out of range) before it is read.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Selectors of one call; as many as a submission holds.
const MAX_SELECTORS: usize = 200_000;

/// Those of them that are names rather than IDs: each is a search.
const MAX_NAMES: usize = 1000;

/// Longest selector, in bytes; names have 128.
const MAX_SELECTOR_BYTES: usize = 256;

/// Until a call has begun to be answered; the longest is a submission that arrives in parts. Then it hears so (cancelled).
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// Serves both services until the coordinator stops.
///
/// # Errors
/// When the certificates cannot be used, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    folder: &Folder,
    coordinator: Arc<Coordinator>,
) -> anyhow::Result<()> {
    let people = ExperimentsServer::new(experiments::Service::new(Arc::clone(&coordinator)))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let machines = WorkersServer::new(workers::Service::new(Arc::clone(&coordinator)))
        .max_decoding_message_size(MAX_WORKER_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ORDER_BYTES);
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .timeout(ANSWER_WITHIN);
    if let Some(files) = &coordinator.config.tls {
        let config = files.server_config()?;
        let unusable = || format!("{} and {} cannot be used", files.cert.display(), files.key.display());
        server = server.tls_config(config).with_context(unusable)?;
    }
    let incoming = gate::incoming(listener, coordinator.config.limits);
    server
        .add_service(InterceptedService::new(people, auth::Guard::new(Role::Person, folder)))
        .add_service(InterceptedService::new(machines, auth::Guard::new(Role::Worker, folder)))
        .serve_with_incoming_shutdown(incoming, coordinator.stopping.clone().cancelled_owned())
        .await
        .context("the server failed")
}

/// Whether selectors are worth looking for.
#[allow(clippy::result_large_err)] // tonic's type
fn selectors(selectors: &[String]) -> Result<(), Status> {
    let names = selectors.iter().filter(|selector| !selector.bytes().all(|b| b.is_ascii_digit())).count();
    if selectors.len() > MAX_SELECTORS || names > MAX_NAMES {
        return Err(Status::invalid_argument(format!(
            "a request selects by at most {MAX_SELECTORS} IDs and {MAX_NAMES} names, found {} and {names}; name a sweep \
             instead",
            selectors.len() - names
        )));
    }
    if let Some(long) = selectors.iter().find(|selector| selector.len() > MAX_SELECTOR_BYTES) {
        return Err(Status::invalid_argument(format!(
            "a selector is an ID or a name of at most {MAX_SELECTOR_BYTES} bytes, found {} bytes",
            long.len()
        )));
    }
    Ok(())
}

/// The same of a change: none would be everything, which nobody means who says nothing.
#[allow(clippy::result_large_err)] // tonic's type
fn chosen(names: &[String]) -> Result<(), Status> {
    if names.is_empty() {
        return Err(Status::invalid_argument(
            "say which experiments are meant: IDs, names, sweep names, or last",
        ));
    }
    selectors(names)
}
