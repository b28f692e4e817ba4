//! `cnx cancel`.

use std::io::Write;

use cnx_proto::v1::{Change, SelectRequest};
use serde_json::json;

use crate::args::CancelArgs;
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Failure, Result};
use crate::json::VERSION;
use crate::term::escape::printable;

pub async fn run(context: &Context, args: &CancelArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let request = SelectRequest { selectors: args.selectors.clone(), all_failed: false };
    let reply = client.rpc.cancel(request).await.map_err(|status| client.failure(&status))?;
    report(&reply.into_inner().changes, args.json)
}

/// Prints what changed. A failure where nothing did.
pub fn report(changes: &[Change], as_json: bool) -> Result {
    if as_json {
        let change = |c: &Change| {
            let new_id = (c.new_id != 0).then_some(c.new_id);
            let id = (c.id != 0).then_some(c.id);
            json!({ "id": id, "name": c.name, "changed": c.changed, "message": c.message, "new_id": new_id })
        };
        print_json(
            &json!({ "version": VERSION, "changes": changes.iter().map(change).collect::<Vec<_>>() }),
        )?;
    } else {
        let mut out = stdout();
        for c in changes {
            // The queue as a whole has no ID.
            let id = if c.id == 0 { String::new() } else { format!("{} ", c.id) };
            writeln!(out, "{id}{}: {}", printable(&c.name), printable(&c.message))?;
        }
    }
    match changes.iter().any(|c| c.changed) {
        true => Ok(()),
        false if changes.is_empty() => Err(Failure::refused("nothing matches")),
        false => Err(Failure::refused("nothing was changed")),
    }
}
