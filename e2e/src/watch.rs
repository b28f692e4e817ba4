//! Waiting for what the coordinator tells.

use std::fs;

use cnx_proto::v1::experiments_client::ExperimentsClient;
use cnx_proto::v1::{Experiment, StatusReply, StatusRequest};
use tokio_stream::StreamExt;
use tonic::Request;

use crate::Pool;
use crate::pool::PATIENCE;

/// Follows the pool's status until `done` says so. Ends in a panic, with the logs, when that takes forever or the
/// coordinator goes away.
pub fn until(pool: &Pool, what: &str, mut done: impl FnMut(&StatusReply) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut last = None;
    let waiting = async {
        let endpoint = fs::read_to_string(pool.state().join("endpoint")).unwrap();
        let token = fs::read_to_string(pool.state().join("token")).unwrap();
        let mut client = ExperimentsClient::connect(endpoint.trim().to_owned()).await.unwrap();
        let mut request = Request::new(StatusRequest::default());
        let bearer = format!("Bearer {}", token.trim()).parse().unwrap();
        request.metadata_mut().insert(cnx_proto::state_dir::AUTHORIZATION, bearer);
        let mut replies = client.watch(request).await.unwrap().into_inner();
        while let Some(reply) = replies.next().await {
            let reply = reply.unwrap();
            if done(&reply) {
                return true;
            }
            last = Some(reply);
        }
        false
    };
    let reached = runtime.block_on(async { tokio::time::timeout(PATIENCE, waiting).await });
    assert_eq!(reached, Ok(true), "never came: {what}; last seen {last:#?}\n{}", pool.logs());
}

/// The experiment with this ID.
pub fn experiment(reply: &StatusReply, id: u64) -> &Experiment {
    reply
        .experiments
        .iter()
        .find(|e| e.id == id)
        .unwrap_or_else(|| panic!("no experiment {id} in {reply:#?}"))
}
