//! `cnx restore`: `cnxd restore` on a state folder that no coordinator holds.

use std::ffi::OsString;
use std::io::Write;

use cnx_proto::v1::BackupReply;
use serde_json::json;

use super::backup::{ask_daemon, experiments};
use crate::args::RestoreArgs;
use crate::context::{Context, print_json, stdout};
use crate::failure::Result;
use crate::json::VERSION;
use crate::term::format::thousands;

pub fn run(context: &Context, args: &RestoreArgs) -> Result {
    let mut arguments: Vec<OsString> = vec!["restore".into(), args.file.clone().into()];
    arguments.extend(args.force.then(|| "--force".into()));
    if let Some(url) = &args.artifacts {
        arguments.extend(["--artifacts".into(), url.into()]);
    }
    let reply: BackupReply = ask_daemon(context, &arguments)?;
    if args.json {
        return print_json(&json!({
            "version": VERSION, "file": reply.file, "bytes": reply.bytes, "experiments": reply.experiments,
            "interrupted": reply.interrupted, "next_id": reply.next_id,
            "settled": reply.settled, "moved_aside": (!reply.moved_aside.is_empty()).then_some(&reply.moved_aside),
            "wall_s": reply.wall_ms as f64 / 1000.0,
        }));
    }
    let mut out = stdout();
    writeln!(out, "restored {} into {}", experiments(reply.experiments), reply.file)?;
    if !reply.moved_aside.is_empty() {
        writeln!(out, "the database that was there is kept as {}", reply.moved_aside)?;
    }
    match reply.interrupted {
        0 => {}
        1 => writeln!(
            out,
            "1 ran when the backup was taken: it is queued again, and goes on from its newest checkpoint"
        )?,
        n => writeln!(
            out,
            "{n} ran when the backup was taken: they are queued again, and go on from their checkpoints"
        )?,
    }
    writeln!(out, "IDs go on from {}", thousands(reply.next_id))?;
    let waits = match reply.settled {
        true => "",
        false => " It dispatches nothing at first: leases given since the backup have to run out.",
    };
    context.talk(format_args!(
        "Start the coordinator (cnx up).{waits} What was submitted since the backup is not in it: submitting the same files \
         again adds it."
    ));
    Ok(())
}
