//! A full disk is waited out, a read-only one refused: nothing acknowledged is lost, and the table comes out the same.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use cnx_e2e::api::Api;
use cnx_e2e::{Disk, Pool, experiment, tiny_config, until};
use cnx_proto::v1::{ExperimentDetail, State, StatusReply};

/// Room for the state or the artifacts of these small experiments, many times over.
const KIB: u32 = 16 << 10;

/// Enough that the disk fills up under a training that is well under way.
const EPOCHS: u32 = 16;

fn undisturbed() -> String {
    let mut pool = Pool::new();
    let config = pool.write("tiny.toml", &tiny_config("tiny", EPOCHS));
    pool.start_daemon();
    pool.start_worker();
    pool.cnx_ok(&["submit", &config, "--wait"]);
    pool.cnx_ok(&["results", "--csv"])
}

fn describe(pool: &Pool, id: u64) -> ExperimentDetail {
    Api::new(&pool.state()).describe(id).unwrap()
}

/// It waits to be tried again after the disk was full.
fn was_full(status: &StatusReply) -> bool {
    let e = experiment(status, 1);
    assert!(!e.state().is_final(), "a full disk is no end: {e:#?}");
    e.state() == State::Queued && e.message.contains("disk-full")
}

#[test]
fn a_full_disk_under_the_state_refuses_submissions_and_loses_nothing() {
    let Some(disk) = Disk::or_skip(KIB) else { return };
    let mut pool = Pool::new().with_state(disk.path().join("state"));
    let artifacts = format!("file://{}/artifacts", pool.folder().display());
    pool.start_daemon_with(&["--artifacts", &artifacts]);
    // The worker keeps its reports elsewhere: only the coordinator's disk is full.
    let elsewhere = pool.folder().join("worker");
    fs::create_dir(&elsewhere).unwrap();
    for file in ["worker-token", "endpoint"] {
        fs::copy(pool.state().join(file), elsewhere.join(file)).unwrap();
    }
    pool.start_worker_in(&elsewhere);
    let config = pool.write("tiny.toml", &tiny_config("tiny", EPOCHS));
    pool.cnx_ok(&["submit", &config]);
    until(&pool, "it trains", |s| experiment(s, 1).epochs_done >= 2);

    disk.fill();
    let mut acknowledged = 1;
    // What the write-ahead log has room for already is still taken, and kept.
    let refusal = loop {
        let seed = format!("train.seed={acknowledged}");
        let output = pool.cnx(&["submit", &config, "--set", &seed, "--priority", "-1"]);
        if !output.status.success() {
            break output;
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "a full disk takes everything");
    };
    let said = String::from_utf8_lossy(&refusal.stderr);
    assert_eq!(refusal.status.code(), Some(1), "{said}");
    assert!(said.contains("the disk is full") && said.contains("free some space"), "{said}");
    assert!(refusal.stdout.is_empty());

    disk.free();
    let count = |s: &StatusReply| s.experiments.len();
    until(&pool, "it ends, and what was refused is not there", |s| {
        assert_eq!(count(s), acknowledged, "what was acknowledged is there, what was refused is not");
        experiment(s, 1).state() == State::Succeeded
    });
    assert_eq!(
        describe(&pool, 1).attempts.len(),
        1,
        "the coordinator's full disk is no fault of the attempt"
    );
    assert_eq!(pool.cnx_ok(&["results", "1", "--csv"]), undisturbed());
}

#[test]
fn a_full_disk_under_the_artifacts_is_waited_out() {
    let Some(disk) = Disk::or_skip(KIB) else { return };
    let mut pool = Pool::new();
    let artifacts = format!("file://{}", disk.folder("artifacts").display());
    pool.start_daemon_with(&["--artifacts", &artifacts]);
    pool.start_worker();
    let config = pool.write("tiny.toml", &tiny_config("tiny", EPOCHS));
    pool.cnx_ok(&["submit", &config]);
    until(&pool, "it trains", |s| experiment(s, 1).epochs_done >= 2);
    disk.fill();
    until(&pool, "an attempt fails for it", was_full);
    let told = describe(&pool, 1);
    let failed = told.attempts.iter().find(|attempt| attempt.outcome == "disk-full").unwrap();
    assert!(
        failed.message.contains("free some space") && failed.message.contains("artifacts"),
        "{}",
        failed.message
    );
    disk.free();
    until(&pool, "it is tried again and succeeds", |s| experiment(s, 1).state() == State::Succeeded);
    assert!(describe(&pool, 1).attempts.last().unwrap().resumed_at_epoch >= 2, "from its checkpoint");
    assert_eq!(pool.cnx_ok(&["results", "--csv"]), undisturbed());
}

#[test]
fn a_full_disk_under_the_workers_spool_is_waited_out() {
    let Some(disk) = Disk::or_skip(KIB) else { return };
    let mut pool = Pool::new();
    pool.start_daemon();
    let worker = disk.folder("worker");
    for file in ["worker-token", "endpoint"] {
        fs::copy(pool.state().join(file), worker.join(file)).unwrap();
    }
    pool.start_worker_in(&worker);
    let config = pool.write("tiny.toml", &tiny_config("tiny", EPOCHS));
    pool.cnx_ok(&["submit", &config]);
    until(&pool, "it trains", |s| experiment(s, 1).epochs_done >= 2);
    disk.fill();
    until(&pool, "an attempt fails for it", was_full);
    let told = describe(&pool, 1);
    let failed = told.attempts.iter().find(|attempt| attempt.outcome == "disk-full").unwrap();
    assert!(
        failed.message.contains("could not keep") && failed.message.contains("spool"),
        "{}",
        failed.message
    );
    disk.free();
    until(&pool, "it is tried again and succeeds", |s| experiment(s, 1).state() == State::Succeeded);
    assert_eq!(pool.cnx_ok(&["results", "--csv"]), undisturbed());
}

#[test]
fn a_read_only_state_folder_is_refused_at_the_start() {
    let Some(disk) = Disk::or_skip(KIB) else { return };
    let state = disk.path().join("state");
    let mut pool = Pool::new().with_state(state.clone());
    pool.start_daemon();
    pool.kill_daemon();
    disk.make_read_only();
    let refused = pool.failing_daemon(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&state.display().to_string()) && said.contains("Read-only file system"), "{said}");

    let missing = Pool::new().with_state(disk.path().join("another"));
    let refused = missing.failing_daemon(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("cannot make the state folder") && said.contains("another"), "{said}");
}
