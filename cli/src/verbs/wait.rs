//! `cnx wait`.

use cnx_proto::v1::StatusRequest;

use crate::args::WaitArgs;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::verbs::status::{self, Display};

pub async fn run(context: &Context, args: &WaitArgs) -> Result {
    let selectors = pinned(context, &args.selectors).await?;
    let display = (!context.is_quiet()).then(Display::beside_data);
    let waiting = status::wait(context, &selectors, display);
    let Some(timeout) = args.timeout else { return waiting.await };
    match tokio::time::timeout(timeout, waiting).await {
        Ok(done) => done,
        Err(_) => Err(Failure {
            code: Code::TimedOut,
            message: format!(
                "not all are final after {}; they go on (cnx status {})",
                humantime::format_duration(timeout),
                args.selectors.join(" ")
            ),
        }),
    }
}

/// What is the last now may not be the last when it is done.
async fn pinned(context: &Context, selectors: &[String]) -> Result<Vec<String>> {
    if !selectors.iter().any(|s| s == "last") {
        return Ok(selectors.to_vec());
    }
    let mut client = Client::connect(context).await?;
    let request = StatusRequest { selectors: vec!["last".to_owned()], limit: 1, ..Default::default() };
    let reply = client.rpc.status(request).await.map_err(|status| client.failure(&status))?;
    let last = reply.into_inner().experiments.first().map(|e| e.id.to_string()).unwrap_or_default();
    Ok(selectors.iter().map(|s| if s == "last" { last.clone() } else { s.clone() }).collect())
}
