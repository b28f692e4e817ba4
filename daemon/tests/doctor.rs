//! What the doctor finds, and that it finds nothing where all is well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use cnx_access::secret::write_private;
use cnx_daemon::doctor::{Patient, examine};
use cnx_daemon::folder::Folder;
use cnx_daemon::store::Store;
use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::report::Body;
use cnx_proto::v1::{Artifact, ArtifactKind, DoctorRequest, Finding, Hello, State, finding::Verdict};
use common::{Daemon, lease, soon, spec, succeeded};

/// All but the disk: how full the machine is that runs the tests is not their business.
fn problems(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|f| f.verdict() == Verdict::Problem && f.area != "disk").collect()
}

fn words(finding: &Finding) -> String {
    format!("{}: {} {:?} {}", finding.area, finding.found, finding.which, finding.advice)
}

/// As cnxd makes one: its owner's only.
fn folder() -> tempfile::TempDir {
    let mode = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

/// Looks at a state folder without a coordinator.
fn look(dir: &Path) -> Vec<Finding> {
    let state = StateDir::locate(Some(dir), |_| None).unwrap();
    let artifacts_url = format!("file://{}", state.artifacts().display());
    let now_ms = cnx_daemon::chance::Chance::System.now_ms();
    examine(&Patient { state, artifacts_url, now_ms, live: None })
}

/// Exactly one problem, which says all of `parts`.
fn only_problem(findings: &[Finding], parts: &[&str]) {
    let problems: Vec<String> = problems(findings).into_iter().map(words).collect();
    assert_eq!(problems.len(), 1, "{parts:?} in {problems:#?}");
    for part in parts {
        assert!(problems[0].contains(part), "{part:?} in {}", problems[0]);
    }
}

/// A state folder on which something ran: 1 succeeded with a model, 2 runs, 3 waits for 2, 4 waits for a worker.
async fn lived_in(dir: &Path) {
    let daemon = Daemon::start(dir).await;
    daemon.submit(&["a", "b"]).await;
    let after = vec!["2".to_owned()];
    let request = cnx_proto::v1::SubmitRequest { after, ..common::request(&[spec("c")]) };
    daemon.try_submit(request).await.unwrap();
    daemon.submit(&["d"]).await;
    let mut worker = own_version(&daemon, "w").await;
    let first = lease(&worker.assigned().await);
    let model = Artifact {
        kind: ArtifactKind::FinalModel.into(),
        name: "experiments/1/final-a1.safetensors".into(),
        sha256: "ab".repeat(32),
        bytes: 3,
        epoch: 1,
        deleted: Vec::new(),
    };
    assert!(worker.report(&first, 1, Body::Artifact(model)).await.accepted);
    assert!(worker.report(&first, 2, succeeded()).await.accepted);
    assert_eq!(lease(&worker.assigned().await).experiment, 2);
    drop(worker);
    daemon.stop().await;
    put(dir, "experiments/1/final-a1.safetensors", "abc");
    put(dir, "experiments/1/final-a1.safetensors.sha256", "its hash");
    put(dir, "experiments/2/checkpoint-0001-a1.safetensors", "of one that runs");
}

async fn own_version(daemon: &Daemon, name: &str) -> common::Worker {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Hello { worker: name.into(), device: "cpu".into(), slots: 1, version, ..Hello::default() };
    daemon.attach(hello).await
}

fn put(dir: &Path, name: &str, text: &str) {
    let file = dir.join("artifacts").join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

#[tokio::test]
async fn where_all_is_well_it_finds_nothing_with_and_without_a_coordinator() {
    let dir = folder();
    lived_in(dir.path()).await;
    let findings = look(dir.path());
    assert!(problems(&findings).is_empty(), "{findings:#?}");
    for area in ["database", "leases", "workers", "artifacts", "secrets", "clock"] {
        assert!(
            findings.iter().any(|f| f.area == area && f.verdict() == Verdict::Well),
            "{area}: {findings:#?}"
        );
    }

    let daemon = Daemon::start(dir.path()).await;
    let _worker = own_version(&daemon, "w").await;
    let reply = daemon.people().doctor(DoctorRequest {}).await.unwrap().into_inner();
    // This coordinator was told of another place for artifacts than the one before, and it looks there.
    only_problem(&reply.findings, &["artifacts", "there is no folder /artifacts, but 1 file"]);
}

#[tokio::test]
async fn each_broken_rule_of_the_database_is_found_with_its_experiment() {
    let dir = folder();
    lived_in(dir.path()).await;
    let whole = fs::read(dir.path().join("cnx.db")).unwrap();
    for (damage, parts) in [
        ("UPDATE state_counts SET count = 7 WHERE state = 'queued'", &["kept wrongly", "queued"] as &[&str]),
        (
            "UPDATE attempts SET ended_at_ms = 5, outcome = 'signal' WHERE experiment = 2",
            &["no running attempt", "2"],
        ),
        (
            "UPDATE attempts SET ended_at_ms = NULL, outcome = 'running' WHERE experiment = 1",
            &["whose experiment does not", "1"],
        ),
        ("UPDATE attempts SET outcome = 'running' WHERE experiment = 1", &["over without an outcome", "1"]),
        ("UPDATE experiments SET attempt = 0 WHERE id = 1", &["higher number", "1"]),
        ("UPDATE experiments SET waits_for = 0 WHERE id = 3", &["waits for is kept wrongly", "3"]),
        ("UPDATE experiments SET needed = 0 WHERE id = 2", &["does not know it", "2"]),
        ("UPDATE experiments SET finished_at_ms = 5 WHERE id = 4", &["has one and is not final", "4"]),
        ("UPDATE experiments SET cancelling = 1 WHERE id = 4", &["does not run is being stopped", "4"]),
        ("UPDATE experiments SET share = 9 WHERE id = 4", &["sweep that does not exist", "4"]),
        (
            "PRAGMA foreign_keys = OFF; INSERT INTO events (experiment, attempt, at_ms, what) VALUES (99, 0, 1, '')",
            &["to rows that are not there", "experiments"],
        ),
    ] {
        let connection = Connection::open(dir.path().join("cnx.db")).unwrap();
        connection.execute_batch(damage).unwrap();
        drop(connection);
        only_problem(&look(dir.path()), parts);
        fs::write(dir.path().join("cnx.db"), &whole).unwrap();
    }
    assert!(problems(&look(dir.path())).is_empty());
}

#[tokio::test]
async fn damaged_pages_are_found_and_the_way_back_is_told() {
    let dir = folder();
    lived_in(dir.path()).await;
    let file = dir.path().join("cnx.db");
    let mut bytes = fs::read(&file).unwrap();
    let page = u16::from_be_bytes([bytes[16], bytes[17]]) as usize;
    // All but the first page, which holds the tables' definitions.
    bytes[page..].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    let findings = look(dir.path());
    let found: Vec<String> = problems(&findings).into_iter().map(words).collect();
    assert!(found.iter().any(|f| f.contains("damaged") && f.contains("cnx restore")), "{found:#?}");
}

#[tokio::test]
async fn files_that_are_missing_cut_or_known_to_nobody_are_found() {
    let dir = folder();
    lived_in(dir.path()).await;
    let model = "experiments/1/final-a1.safetensors";
    put(dir.path(), model, "ab");
    only_problem(&look(dir.path()), &["artifacts", "has 2 of 3 bytes", model]);
    fs::remove_file(dir.path().join("artifacts").join(model)).unwrap();
    only_problem(&look(dir.path()), &["artifacts", "is missing", model]);
    put(dir.path(), model, "abc");
    put(dir.path(), "experiments/1/checkpoint-0001-a1.safetensors", "old");
    put(dir.path(), "experiments/77/checkpoint-0001-a1.safetensors", "of nobody");
    only_problem(&look(dir.path()), &["2 files", "no record knows", "experiments/77/"]);
    fs::remove_dir_all(dir.path().join("artifacts")).unwrap();
    only_problem(&look(dir.path()), &["there is no folder", "--artifacts"]);
}

#[tokio::test]
async fn work_that_no_worker_can_take_is_found() {
    let dir = folder();
    let daemon = Daemon::start(dir.path()).await;
    let _worker = own_version(&daemon, "w").await;
    let mut picky = spec("picky");
    picky.resources.labels = vec!["big".into()];
    daemon.submit_specs(&[picky]).await;
    let reply = daemon.people().doctor(DoctorRequest {}).await.unwrap().into_inner();
    only_problem(&reply.findings, &["workers", "such as there never was", "the label big"]);
}

#[tokio::test]
async fn a_worker_that_is_away_or_of_another_version_is_found() {
    let dir = folder();
    let daemon = Daemon::start(dir.path()).await;
    let other = daemon.worker("other").await;
    let reply = daemon.people().doctor(DoctorRequest {}).await.unwrap().into_inner();
    only_problem(&reply.findings, &["workers", "other has test"]);
    drop(other);
    daemon.submit(&["a"]).await;
    soon("the worker to be gone", async {
        loop {
            let reply = daemon.people().doctor(DoctorRequest {}).await.unwrap().into_inner();
            if problems(&reply.findings).iter().any(|f| f.found.contains("not connected")) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_found() {
    let dir = folder();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = own_version(&daemon, "w").await;
    worker.assigned().await;
    drop(worker);
    daemon.stop().await;
    // Back again, the coordinator hears nothing of it.
    let daemon = Daemon::with(dir.path(), |config| config.heartbeat = Duration::from_millis(20)).await;
    soon("the lease to be suspect", async {
        while daemon.show(id).await.suspect_since_ms == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let shown = daemon.show(id).await;
    assert!(
        shown.state() == State::Running && shown.message.contains("worker w is suspect"),
        "{}",
        shown.message
    );
    let reply = daemon.people().doctor(DoctorRequest {}).await.unwrap().into_inner();
    only_problem(&reply.findings, &["leases", "1 lease not renewed", "experiment 1 on w"]);
}

#[tokio::test]
async fn secrets_that_others_can_read_are_found() {
    let dir = folder();
    let state = StateDir::locate(Some(dir.path()), |_| None).unwrap();
    drop(Folder::claim(&state).unwrap());
    Store::open(&state.database()).await.unwrap().close().await;
    assert!(problems(&look(dir.path())).is_empty());
    let tls = state.tls();
    DirBuilder::new().mode(0o700).create(tls.path()).unwrap();
    for key in [tls.server_key(), tls.client_key(), tls.ca_key()] {
        write_private(&key, "key").unwrap();
    }
    fs::write(tls.ca(), "for all to read").unwrap();
    assert!(problems(&look(dir.path())).is_empty());
    for secret in [state.token(), state.worker_token(), tls.server_key(), tls.client_key(), tls.ca_key()] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        only_problem(&look(dir.path()), &["secrets", "chmod 600", secret.to_str().unwrap()]);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    only_problem(&look(dir.path()), &["secrets", "chmod 700"]);
    // Left as it was found, for whoever removes it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_found() {
    let dir = folder();
    lived_in(dir.path()).await;
    let connection = Connection::open(dir.path().join("cnx.db")).unwrap();
    connection.execute_batch("UPDATE events SET at_ms = at_ms + 7200000").unwrap();
    drop(connection);
    only_problem(&look(dir.path()), &["clock", "in the future"]);
}
