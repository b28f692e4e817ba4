//! An agent that hangs longer than its lease: another worker takes over, and the child that hangs with nobody to watch it
//! computes no more.

#![allow(clippy::unwrap_used, clippy::panic)]

use cnx_e2e::chaos::{Watcher, owns};
use cnx_e2e::{Pool, experiment, tiny_config, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_child_whose_agent_hangs_does_not_compute_beside_the_next_attempt() {
    let mut pool = Pool::new();
    let config = pool.write("long.toml", &tiny_config("long", 100_000));
    pool.start_daemon_with(&["--lease-ttl", "3s", "--heartbeat", "300ms"]);
    pool.start_worker_with("hangs", &[]);
    let folder = pool.folder().to_owned();
    let logs = ["hangs", "other"].map(|name| pool.log_file(name)).to_vec();
    let watcher = Watcher::start(move |pid| owns(&folder, pid), logs);
    pool.cnx_ok(&["submit", &config]);
    until(&pool, "it trains", |s| experiment(s, 1).epochs_done >= 1);

    let agent = Pid::from_raw(pool.pid_of_worker("hangs").unwrap().cast_signed());
    kill(agent, Signal::SIGSTOP).unwrap();
    pool.start_worker_with("other", &[]);
    until(&pool, "the other worker goes on", |s| {
        let e = experiment(s, 1);
        e.attempt >= 2 && e.worker == "other" && e.epochs_done >= e.resumed_at_epoch + 4
    });
    let overlaps = watcher.findings().overlaps;
    kill(agent, Signal::SIGCONT).unwrap();
    assert_eq!(overlaps, Vec::<String>::new());
    pool.cnx_ok(&["cancel", "1"]);
}
