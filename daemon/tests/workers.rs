//! What workers go through: silence, restarts of either side, replays, overtaking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use cnx_daemon::folder::Folder;
use cnx_proto::v1::report::Body;
use cnx_proto::v1::{Hello, Lease, LogLine, LogsRequest, State, StopReason, to_worker};
use common::{Daemon, failed, lease, soon, succeeded};
use tonic::Code;

fn line(text: &str) -> Body {
    Body::Log(LogLine { text: text.into(), ..LogLine::default() })
}

#[tokio::test]
async fn a_worker_that_comes_back_without_its_lease_gives_it_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let first = lease(&worker.assigned().await);
    drop(worker);
    let mut worker = daemon.worker("w").await;
    let second = lease(&worker.assigned().await);
    assert_eq!((second.experiment, second.attempt), (id, 2));
    let refused = worker.report(&first, 1, line("from the past")).await;
    assert!(!refused.accepted && refused.reason.contains("worker-lost"), "{refused:?}");
    assert!(worker.report(&second, 1, succeeded()).await.accepted);
}

#[tokio::test]
async fn a_worker_that_reattaches_with_its_lease_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    drop(worker);
    let unknown = Lease { experiment: 99, attempt: 1, token: "x".into() };
    let forged = Lease { token: "guess".into(), ..held.clone() };
    let mut worker = daemon.worker_holding("w", &[held.clone(), unknown.clone(), forged.clone()]).await;
    assert_eq!(worker.welcome.stale, [unknown, forged]);
    assert!(worker.report(&held, 1, succeeded()).await.accepted);
    assert_eq!(daemon.show(id).await.attempt, 1);
}

#[tokio::test]
async fn a_silent_workers_lease_runs_out_and_goes_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_ttl(dir.path(), Duration::from_millis(300)).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut silent = daemon.worker("silent").await;
    let first = lease(&silent.assigned().await);
    // The stream lives, but nothing is heard: it is told to stop what it may still run.
    let stop = silent.stopped().await;
    assert_eq!((stop.reason(), stop.lease), (StopReason::Stale, Some(first.clone())));
    let refused = silent.refusal(&first, 1, succeeded()).await;
    assert!(refused.contains("worker-lost"), "{refused}");
    drop(silent);
    let mut other = daemon.worker("other").await;
    let second = lease(&other.assigned().await);
    assert_eq!(second.experiment, id);
    assert!(second.attempt > first.attempt);
}

#[tokio::test]
async fn a_replayed_report_is_acknowledged_and_applied_once_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    assert!(worker.report(&held, 1, line("once")).await.accepted);
    assert!(worker.report(&held, 1, line("once")).await.accepted);
    drop(worker);
    daemon.stop().await;

    let daemon = Daemon::start(dir.path()).await;
    let mut worker = daemon.worker_holding("w", std::slice::from_ref(&held)).await;
    assert!(worker.welcome.stale.is_empty());
    assert!(worker.report(&held, 1, line("once")).await.accepted);
    assert!(worker.report(&held, 2, succeeded()).await.accepted);
    assert!(worker.report(&held, 2, succeeded()).await.accepted);
    let request = LogsRequest { selector: "last".into(), follow: true, tail: 0 };
    let mut log = daemon.people().logs(request).await.unwrap().into_inner();
    assert_eq!(soon("a line", log.message()).await.unwrap().unwrap().text, "once");
    assert_eq!(soon("the end", log.message()).await.unwrap(), None);
}

#[tokio::test]
async fn a_restart_keeps_the_queue_the_leases_and_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let ids = daemon.submit(&["a", "b"]).await;
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    daemon.stop().await;
    assert_eq!(worker.end().await.code(), Code::Unavailable);
    assert!(!dir.path().join("endpoint").exists());

    let daemon = Daemon::start(dir.path()).await;
    assert_eq!(daemon.show(ids[0]).await.state(), State::Running);
    assert_eq!(daemon.show(ids[1]).await.state(), State::Queued);
    let mut worker = daemon.worker_holding("w", std::slice::from_ref(&held)).await;
    worker.send(&held, 1, succeeded()).await;
    assert!(worker.acknowledged().await.accepted);
    assert_eq!(lease(&worker.assigned().await).experiment, ids[1]);
    assert_eq!(daemon.submit(&["c"]).await, [3]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_newer_stream_of_a_worker_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    let mut old = daemon.worker("w").await;
    let held = lease(&old.assigned().await);
    let mut new = daemon.worker_holding("w", std::slice::from_ref(&held)).await;
    assert_eq!(old.end().await.code(), Code::Aborted);
    assert!(new.heartbeat(std::slice::from_ref(&held)).await.stale.is_empty());
    let workers = daemon.people().list_workers(cnx_proto::v1::ListWorkersRequest {}).await.unwrap();
    let workers = workers.into_inner().workers;
    assert_eq!((workers.len(), workers[0].connected, workers[0].leases.len()), (1, true, 1));
    assert_eq!(workers[0].leases[0].token, "");
}

#[tokio::test]
async fn work_spreads_over_the_free_slots_of_the_pool() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let hello =
        |worker: &str| Hello { worker: worker.into(), device: "cpu".into(), slots: 2, ..Hello::default() };
    let mut a = daemon.attach(hello("a")).await;
    let mut b = daemon.attach(hello("b")).await;
    daemon.submit(&["1a", "2a", "3a", "4a", "5a"]).await;
    let mut given = Vec::new();
    for worker in [&mut a, &mut b] {
        for _ in 0..2 {
            given.push(lease(&worker.assigned().await).experiment);
        }
    }
    given.sort_unstable();
    assert_eq!(given, [1, 2, 3, 4]);
}

#[tokio::test]
async fn an_interrupted_attempt_goes_on_elsewhere_at_once_and_costs_no_try() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut spec = common::spec("a");
    spec.resources.max_attempts = 1;
    daemon.submit_specs(&[spec]).await;
    let mut worker = daemon.worker("w").await;
    for attempt in 1..=3 {
        let held = lease(&worker.assigned().await);
        assert_eq!(held.attempt, attempt);
        worker.send(&held, 1, failed(cnx_proto::v1::FailureClass::Interrupted, "told to stop")).await;
        assert!(worker.acknowledged().await.accepted);
    }
}

#[tokio::test]
async fn a_worker_must_say_hello_properly() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    for (hello, problem) in [
        (Hello { worker: "a b".into(), slots: 1, ..Hello::default() }, "name"),
        (Hello { worker: "w".into(), slots: 0, ..Hello::default() }, "slots"),
    ] {
        let message = cnx_proto::v1::from_worker::Message::Hello(hello);
        let first = cnx_proto::v1::FromWorker { message: Some(message) };
        let mut client = cnx_proto::v1::workers_client::WorkersClient::with_interceptor(
            daemon.channel.clone(),
            common::auth(&daemon.worker_token),
        );
        let mut inbound = client.attach(tokio_stream::once(first)).await.unwrap().into_inner();
        let refusal = soon("the refusal", inbound.message()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains(problem), "{}", refusal.message());
    }
}

#[tokio::test]
async fn many_reports_at_once_are_all_acknowledged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    for wave in 0..20 {
        for n in 1..=30 {
            worker.send(&held, wave * 30 + n, line("x")).await;
        }
        for n in 1..=30 {
            let to_worker::Message::Acknowledge(acknowledge) = worker.next().await else { panic!() };
            assert_eq!((acknowledge.sequence, acknowledge.accepted), (wave * 30 + n, true));
        }
    }
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let refusal = Folder::claim(&daemon.config.state).unwrap_err().to_string();
    assert!(refusal.contains("is taken"), "{refusal}");
    daemon.stop().await;
    assert!(
        Folder::claim(&cnx_proto::state_dir::StateDir::locate(Some(dir.path()), |_| None).unwrap()).is_ok()
    );
}
