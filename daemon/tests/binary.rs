//! The program itself: its exit codes, its signals, and what is left when it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tonic::transport::Channel;

use cnx_proto::v1::StatusRequest;
use cnx_proto::v1::experiments_client::ExperimentsClient;
use common::{People, auth, request, soon, spec};

struct Cnxd {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cnxd"));
    command.args(["--listen", "127.0.0.1:0", "--state"]).arg(state).env("RUST_LOG", "info");
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts it and waits until it listens.
async fn start(state: &Path) -> Cnxd {
    let mut child = command(state).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    soon("cnxd to listen", async {
        while !log.next_line().await.unwrap().expect("cnxd ended").contains("listening on") {}
    })
    .await;
    Cnxd { child, log }
}

/// Starts it where it must not start.
async fn refused(state: &Path) -> String {
    let Output { status, stderr, .. } = soon("the refusal", command(state).output()).await.unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

async fn people(state: &Path) -> People {
    let url = std::fs::read_to_string(state.join("endpoint")).unwrap();
    let token = std::fs::read_to_string(state.join("token")).unwrap();
    let channel = Channel::from_shared(url.trim().to_owned()).unwrap().connect().await.unwrap();
    ExperimentsClient::with_interceptor(channel, auth(token.trim()))
}

async fn queued(people: &mut People) -> u64 {
    let status = people.status(StatusRequest::default()).await.unwrap().into_inner();
    status.coordinator.unwrap().queued
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut cnxd = start(dir.path()).await;
    people(dir.path()).await.submit(request(&[spec("a")])).await.unwrap();
    cnxd.child.kill().await.unwrap();
    let _cnxd = start(dir.path()).await;
    assert_eq!(queued(&mut people(dir.path()).await).await, 1);
}

#[tokio::test]
async fn sigterm_ends_it_in_order_even_while_somebody_watches() {
    let dir = tempfile::tempdir().unwrap();
    let mut cnxd = start(dir.path()).await;
    let mut people = people(dir.path()).await;
    let mut watch = people.watch(StatusRequest::default()).await.unwrap().into_inner();
    soon("a status", watch.message()).await.unwrap().unwrap();
    let pid = cnxd.child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    assert_eq!(soon("the exit", cnxd.child.wait()).await.unwrap().code(), Some(0));
    assert_eq!(soon("the end of the watch", watch.message()).await.unwrap(), None);
    while let Some(line) = cnxd.log.next_line().await.unwrap() {
        assert!(!line.contains("WARN") && !line.contains("ERROR"), "{line}");
    }
    assert!(!dir.path().join("endpoint").exists());
    assert!(!dir.path().join("cnx.db-wal").exists());
}

#[tokio::test]
async fn a_second_one_on_the_same_folder_ends_at_once_and_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let cnxd = start(dir.path()).await;
    let refusal = refused(dir.path()).await;
    assert!(refusal.contains(&format!("pid {}", cnxd.child.id().unwrap())), "{refusal}");
    assert!(refusal.contains(&dir.path().display().to_string()), "{refusal}");
    assert_eq!(queued(&mut people(dir.path()).await).await, 0);
}

#[tokio::test]
async fn a_damaged_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cnx.db"), "no database".repeat(1000)).unwrap();
    let refusal = refused(dir.path()).await;
    assert!(refusal.contains("is damaged"), "{refusal}");
    assert!(std::fs::read_to_string(dir.path().join("cnx.db")).unwrap().starts_with("no database"));
}

#[tokio::test]
async fn beyond_loopback_without_certificates_it_does_not_start_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cnxd"));
    command.args(["--listen", "0.0.0.0:0", "--state"]).arg(dir.path()).kill_on_drop(true);
    let refused = soon("the refusal", command.output()).await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("needs TLS") && said.contains("cnxd tls init --host"), "{said}");
    assert!(!dir.path().join("endpoint").exists());
}

#[tokio::test]
async fn no_secret_is_in_its_log_or_its_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path();
    let made = command(state).args(["tls", "init", "--host", "gpu-box"]).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut loud = command(state);
    let mut child = loud.env("RUST_LOG", "trace").spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut text = String::new();
    soon("cnxd to listen", async {
        loop {
            let line = log.next_line().await.unwrap().expect("cnxd ended");
            text.push_str(&line);
            if line.contains("listening on") {
                break;
            }
        }
    })
    .await;
    assert!(std::fs::read_to_string(state.join("endpoint")).unwrap().starts_with("https://"));
    let shown = std::fs::read(format!("/proc/{}/cmdline", child.id().unwrap())).unwrap_or_default();
    assert!(Command::new("kill").arg(child.id().unwrap().to_string()).status().await.unwrap().success());
    while let Some(line) = log.next_line().await.unwrap() {
        text.push_str(&line);
    }
    for secret in ["token", "worker-token", "tls/server.key", "tls/ca.key"] {
        let secret = std::fs::read_to_string(state.join(secret)).unwrap();
        let secret = secret.lines().find(|line| !line.starts_with("-----")).unwrap();
        assert!(!text.contains(secret) && !String::from_utf8_lossy(&shown).contains(secret));
    }
}
