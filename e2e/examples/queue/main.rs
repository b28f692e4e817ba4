//! How fast the queue is: `make bench-queue`. A real `cnxd` on a folder of this disk, the real `cnx`, and simulated workers
//! that speak the real protocol, each over a connection of its own; beside them Pueue and raw SQLite in the same run.
//!
//! Read on in [`noops`] (experiments that do nothing), [`stream`] (workers that report without end), [`depth`] (the same
//! questions at ever more rows), [`peers`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod cnxd;
mod depth;
mod figures;
mod noops;
mod peers;
mod stream;
mod submit;

use std::path::PathBuf;

use cnxd::Cnxd;
use figures::Figures;

/// What is measured, from `CNX_BENCH_…` or these defaults.
struct Plan {
    /// Folder for state and output.
    folder: PathBuf,
    /// Connected simulated workers.
    workers: usize,
    /// Experiments that do nothing, in one run.
    noops: usize,
    /// Queue depths, ascending.
    rows: Vec<usize>,
}

impl Plan {
    fn read() -> Plan {
        let variable = |name: &str| std::env::var(format!("CNX_BENCH_{name}")).ok();
        let number = |name: &str, default| {
            variable(name).map_or(default, |text| text.parse().expect("a whole number"))
        };
        let rows = variable("ROWS").unwrap_or_else(|| "1000,100000,1000000".to_owned());
        Plan {
            folder: PathBuf::from(variable("FOLDER").unwrap_or_else(|| "target/bench".to_owned())),
            workers: number("WORKERS", 1000),
            noops: number("NOOPS", 20_000),
            rows: rows.split(',').map(|n| n.trim().parse().expect("whole numbers and commas")).collect(),
        }
    }
}

#[tokio::main]
async fn main() {
    let plan = Plan::read();
    let mut figures = Figures::default();
    let sqlite = peers::sqlite_commits_per_s(&plan.folder).await;
    let pueue = peers::Pueue::start(&plan.folder);
    submit::measure(&plan, pueue.as_ref(), sqlite, &mut figures).await;
    noops::measure(&plan, pueue.as_ref(), sqlite, &mut figures).await;
    drop(pueue);
    stream::measure(&plan, &mut figures).await;
    depth::measure(&plan, &mut figures).await;
    figures.write(&plan.folder.join("queue.json"));
}
