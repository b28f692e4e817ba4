//! `cnx retry`.

use cnx_proto::v1::SelectRequest;

use crate::args::RetryArgs;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Result;
use crate::verbs::cancel::report;

pub async fn run(context: &Context, args: &RetryArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let request = SelectRequest { selectors: args.selectors.clone(), all_failed: args.failed };
    let reply = client.rpc.retry(request).await.map_err(|status| client.failure(&status))?;
    report(&reply.into_inner().changes, args.json)
}
