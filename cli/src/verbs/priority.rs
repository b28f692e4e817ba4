//! `cnx priority`.

use cnx_proto::v1::PriorityRequest;

use crate::args::PriorityArgs;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Result;
use crate::verbs::cancel::report;

pub async fn run(context: &Context, args: &PriorityArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let request = PriorityRequest { selectors: vec![args.selector.clone()], priority: args.priority };
    let reply = client.rpc.set_priority(request).await.map_err(|status| client.failure(&status))?;
    report(&reply.into_inner().changes, args.json)
}
