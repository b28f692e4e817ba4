//! `cnx workers`.

use std::io::Write;

use cnx_proto::v1::{ListWorkersRequest, WorkerInfo};
use serde_json::{Value, json};

use crate::args::WorkersArgs;
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::Result;
use crate::json::{self, VERSION};
use crate::term::escape::printable;
use crate::term::format::{duration, now_ms};
use crate::term::screen;
use crate::term::style::{BAD, DOUBT, GOOD};
use crate::term::table::{Cell, Column, Left, Right, Table};

pub async fn run(context: &Context, args: &WorkersArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let reply = client.rpc.list_workers(ListWorkersRequest {}).await;
    let workers = reply.map_err(|status| client.failure(&status))?.into_inner().workers;
    if args.json {
        let workers: Vec<Value> = workers.iter().map(json::worker).collect();
        return print_json(&json!({ "version": VERSION, "workers": workers }));
    }
    if workers.is_empty() {
        context.talk("no workers; start one on this machine with `cnx up`");
    } else {
        let mut out = stdout();
        for line in table(&workers, now_ms()).lines(screen::width()) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn table(workers: &[WorkerInfo], now_ms: u64) -> Table {
    let mut table = Table::new(&[
        Column("WORKER", Left, 0),
        Column("STATE", Left, 0),
        Column("DEVICE", Left, 0),
        Column("SLOTS", Right, 0),
        Column("RUNS", Left, 0),
        Column("LABELS", Left, 2),
        Column("MEMORY", Right, 4),
        Column("HOST", Left, 1),
        Column("LAST SEEN", Left, 2),
        Column("VERSION", Left, 3),
    ]);
    for w in workers {
        let suspect = w.suspect_since_ms > 0;
        let state = match (w.connected, w.leases.is_empty()) {
            // It should be heard every few seconds. What it runs is its own until its lease runs out.
            _ if suspect => Cell::new("suspect", BAD),
            (true, true) => Cell::new("free", GOOD),
            (true, false) => Cell::new("busy", GOOD),
            (false, _) => Cell::new("away", DOUBT),
        };
        let runs: Vec<String> = w.leases.iter().map(|l| l.experiment.to_string()).collect();
        let seen = match w.connected && !suspect {
            true => String::new(),
            false => format!("{} ago", duration(now_ms.saturating_sub(w.last_seen_ms))),
        };
        table.row(vec![
            printable(&w.name).into_owned().into(),
            state,
            printable(&w.device).into_owned().into(),
            w.slots.to_string().into(),
            runs.join(" ").into(),
            printable(&w.labels.join(" ")).into_owned().into(),
            if w.memory_gib > 0 { format!("{} GiB", w.memory_gib) } else { String::new() }.into(),
            printable(&w.host).into_owned().into(),
            seen.into(),
            printable(&w.version).into_owned().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_told_with_since_when_connected_or_not() {
        let worker = |name: &str, connected, suspect_since_ms| WorkerInfo {
            name: name.into(),
            connected,
            suspect_since_ms,
            last_seen_ms: 40_000,
            slots: 1,
            ..WorkerInfo::default()
        };
        let workers = [
            worker("well", true, 0),
            worker("stuck", true, 40_000),
            worker("cut-off", false, 40_000),
            worker("gone", false, 0),
        ];
        let lines = table(&workers, 100_000).lines(Some(120));
        let lines: Vec<String> = lines.iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect();
        assert!(lines[1].contains("free") && !lines[1].contains("ago"), "{lines:#?}");
        assert!(lines[2].contains("suspect") && lines[2].contains("1 min ago"), "{lines:#?}");
        assert!(lines[3].contains("suspect") && lines[3].contains("1 min ago"), "{lines:#?}");
        assert!(lines[4].contains("away") && lines[4].contains("1 min ago"), "{lines:#?}");
    }
}
