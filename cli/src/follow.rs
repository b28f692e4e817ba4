//! Watches experiments, through restarts of the coordinator.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cnx_proto::v1::{StatusReply, StatusRequest};

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// How long a coordinator may stay away before nobody waits for it any more.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a watcher is told.
pub enum News<'a> {
    /// Something changed.
    Update(&'a StatusReply),
    /// The coordinator is away; it is tried again. Said once, until it is back.
    Away(&'a Failure),
}

/// Calls `tell` whenever something changed, until it breaks. The first connection must stand; a later one is tried
/// again and again, as the coordinator may be restarting, for a bounded time.
pub async fn follow(
    context: &Context,
    request: &StatusRequest,
    mut tell: impl FnMut(News<'_>) -> Result<ControlFlow<()>>,
) -> Result {
    let mut away_since: Option<Instant> = None;
    let mut pause = FIRST_PAUSE;
    let mut met = false;
    loop {
        let gone = match Client::connect(context).await {
            Ok(mut client) => match client.rpc.watch(request.clone()).await {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(reply)) => {
                                (away_since, pause, met) = (None, FIRST_PAUSE, true);
                                if tell(News::Update(&reply))?.is_break() {
                                    return Ok(());
                                }
                            }
                            Ok(None) => break stopped(&client),
                            Err(status) => break client.failure(&status),
                        }
                    }
                }
                Err(status) => client.failure(&status),
            },
            Err(failure) => failure,
        };
        let is_news = away_since.is_none();
        let away_too_long = away_since.get_or_insert_with(Instant::now).elapsed() > GIVE_UP_AFTER;
        if gone.code != Code::Unreachable || !met || away_too_long {
            return Err(gone);
        }
        if is_news && tell(News::Away(&gone))?.is_break() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn stopped(client: &Client) -> Failure {
    Failure { code: Code::Unreachable, message: format!("the coordinator at {} stopped", client.address()) }
}
