//! `cnx resume`.

use cnx_proto::v1::PauseRequest;

use crate::args::ResumeArgs;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Result;
use crate::verbs::cancel::report;

pub async fn run(context: &Context, args: &ResumeArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let request = PauseRequest { selectors: args.selectors.clone(), queue: args.queue };
    let reply = client.rpc.resume(request).await.map_err(|status| client.failure(&status))?;
    report(&reply.into_inner().changes, args.json)
}
