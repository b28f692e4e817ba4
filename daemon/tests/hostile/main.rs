//! Ten thousand malformed and hostile calls from a seed, against the program itself. Afterwards it answers as before, the
//! record is what it was, and neither memory nor log was filled.
//!
//! `bytes` makes what is sent, `wire` sends it: broken frames by hand, whole calls through tonic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod wire;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{EpochMetrics, Lease, StatusRequest};
use common::{Daemon, lease, soon, succeeded};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use bytes::Chance;
use wire::{Caller, Target};

/// Calls, whole or broken.
const CALLS: u64 = 10_000;

/// Of these so many go through tonic, one by one; the rest by hand, many on a connection.
const WHOLE_CALLS: u64 = 3_000;

/// Calls on one connection by hand.
const CALLS_A_CONNECTION: u64 = 20;

/// Connections that are open and silent while all that happens.
const SILENT: usize = 300;

/// At once.
const ATTACKERS: u64 = 8;

/// Most that the coordinator may ever have held in memory, in KiB.
const MOST_MEMORY_KIB: u64 = 300 << 10;

struct Cnxd {
    child: Child,
    log: PathBuf,
}

/// Starts the program with its log in a file: nobody reads it meanwhile.
async fn start(state: &Path) -> Cnxd {
    let log = state.with_extension("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cnxd"));
    command.args(["--listen", "127.0.0.1:0", "--state"]).arg(state).env("RUST_LOG", "info,h2=off");
    let child = command.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null()).kill_on_drop(true);
    let child = child.spawn().unwrap();
    soon("cnxd to listen", async {
        while !std::fs::read_to_string(&log).unwrap().contains("listening on") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    Cnxd { child, log }
}

impl Cnxd {
    /// Its memory at its highest, in KiB.
    fn most_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// All that may not change: every row of every table but the workers', which says when each was last seen.
fn record(state: &Path) -> Vec<String> {
    let database = rusqlite::Connection::open(state.join("cnx.db")).unwrap();
    let tables =
        ["experiments", "attempts", "events", "epochs", "logs", "figures", "artifacts", "sweeps", "queue"];
    let rows = |table: &str| -> Vec<String> {
        let mut statement = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<String> {
            let values = (0..columns).map(|i| Ok(format!("{:?}", row.get_ref(i)?)));
            Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
        };
        statement.query_map([], row).unwrap().map(|row| format!("{table}: {}", row.unwrap())).collect()
    };
    tables.iter().flat_map(|table| rows(table)).collect()
}

fn integrity(state: &Path) -> String {
    let database = rusqlite::Connection::open(state.join("cnx.db")).unwrap();
    database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_calls_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let cnxd = start(&state).await;
    let daemon = Daemon::of_running(&state).await;
    daemon.submit(&["runs", "waits"]).await;
    let mut honest = daemon.worker("honest").await;
    let held = lease(&honest.assigned().await);
    let epoch = EpochMetrics { epoch: 1, ..EpochMetrics::default() };
    assert!(honest.report(&held, 1, Body::Epoch(epoch)).await.accepted);
    let before = record(&state);
    let queued = queue(&daemon).await;

    let address = daemon.channel_address.clone();
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let target = Arc::new(Target {
        address,
        people: daemon.token.clone(),
        workers: daemon.worker_token.clone(),
        held: held.clone(),
    });
    let mut attackers = JoinSet::new();
    for number in 0..ATTACKERS {
        attackers.spawn(attack(Arc::clone(&target), number));
    }
    let mut calls = 0;
    while let Some(done) = attackers.join_next().await {
        calls += done.unwrap();
    }
    assert!(calls >= CALLS, "{calls} calls");
    drop(silent);

    // It answers, the honest worker still holds what it held, and nothing was queued, cancelled, or reported.
    assert_eq!(queue(&daemon).await, queued);
    assert!(honest.heartbeat(std::slice::from_ref(&held)).await.stale.is_empty());
    assert_eq!(record(&state), before);
    assert_eq!(integrity(&state), "ok");
    let most = cnxd.most_memory_kib();
    assert!(most < MOST_MEMORY_KIB, "{most} KiB");
    println!("{calls} calls; at most {} MiB of memory", most >> 10);
    assert!(honest.report(&held, 2, succeeded()).await.accepted);
    log_is_clean(&cnxd.log, &target);
}

/// What people see of the queue.
async fn queue(daemon: &Daemon) -> Vec<(u64, i32, u32, bool)> {
    let status = daemon.people().status(StatusRequest::default()).await.unwrap().into_inner();
    let what = |e: cnx_proto::v1::Experiment| (e.id, e.state, e.epochs_done, e.cancelling);
    status.experiments.into_iter().map(what).collect()
}

fn log_is_clean(log: &Path, target: &Target) {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(!text.contains("panicked") && !text.contains("a defect in cnxd"), "{text}");
    assert!(text.len() < 4 << 20, "a log of {} bytes", text.len());
    for line in text.lines() {
        assert_eq!(cnx_proto::escape::printable(line), line);
    }
    for secret in [&target.people, &target.workers, &target.held.token] {
        assert!(!text.contains(secret.as_str()), "a secret is in the log");
    }
}

/// One attacker's share, from its number. Returns how many calls it made.
async fn attack(target: Arc<Target>, number: u64) -> u64 {
    let mut chance = Chance::new(number);
    let channel = Channel::from_shared(format!("http://{}", target.address)).unwrap().connect_lazy();
    let mut calls = 0;
    for _ in 0..WHOLE_CALLS / ATTACKERS {
        let caller = chance.pick(Caller::ALL);
        wire::whole_call(&target, channel.clone(), caller, &mut chance).await;
        calls += 1;
    }
    while calls < CALLS.div_ceil(ATTACKERS) {
        calls += wire::broken_connection(&target, CALLS_A_CONNECTION, &mut chance).await;
    }
    calls
}

/// A lease that nobody has.
pub fn forged(chance: &mut Chance, held: &Lease) -> Lease {
    match chance.below(4) {
        0 => Lease { token: chance.text(), ..held.clone() },
        1 => Lease { attempt: chance.number() as u32 | 1 << 31, ..held.clone() },
        2 => Lease { experiment: chance.number() | 1 << 60, ..held.clone() },
        _ => Lease {
            experiment: chance.number() | 1 << 60,
            attempt: chance.number() as u32,
            token: chance.text(),
        },
    }
}
