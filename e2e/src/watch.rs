//! Waiting for what the coordinator tells.

use cnx_proto::v1::{Experiment, StatusReply, StatusRequest};
use tokio_stream::StreamExt;

use crate::Pool;
use crate::api::{authorized, connect};
use crate::pool::PATIENCE;

/// Follows the pool's status until `done` says so. Ends in a panic, with the logs, when that takes forever or the
/// coordinator goes away.
pub fn until(pool: &Pool, what: &str, mut done: impl FnMut(&StatusReply) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut last = None;
    let waiting = async {
        let mut client = connect(&pool.state()).await.unwrap();
        let request = authorized(&pool.state(), StatusRequest::default()).unwrap();
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
