//! Pausing, preempting and depending, from the person's call to what a worker hears.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use cnx_proto::v1::{
    DescribeRequest, Hello, PauseRequest, SelectRequest, State, StatusRequest, StopReason, SubmitRequest,
};
use common::{Daemon, interrupted, lease, request, spec, succeeded};

fn these(ids: &[u64]) -> PauseRequest {
    PauseRequest { selectors: ids.iter().map(u64::to_string).collect(), queue: false }
}

const QUEUE: PauseRequest = PauseRequest { selectors: Vec::new(), queue: true };

async fn why(daemon: &Daemon, id: u64) -> String {
    let request = DescribeRequest { selector: id.to_string() };
    daemon.people().describe(request).await.unwrap().into_inner().why.join(" ")
}

#[tokio::test]
async fn a_paused_run_frees_its_slot_survives_a_restart_and_goes_on_as_the_next_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let ids = daemon.submit(&["a", "b"]).await;
    let mut worker = daemon.worker("w").await;
    let first = lease(&worker.assigned().await);
    daemon.people().pause(these(&ids[..1])).await.unwrap();
    assert_eq!(worker.stopped().await.reason(), StopReason::Paused);
    assert_eq!(daemon.show(ids[0]).await.stopping(), StopReason::Paused);
    worker.send(&first, 1, interrupted()).await;
    assert!(worker.acknowledged().await.accepted);
    assert_eq!(lease(&worker.assigned().await).experiment, ids[1]);
    drop(worker);
    daemon.stop().await;

    let daemon = Daemon::start(dir.path()).await;
    assert_eq!(daemon.show(ids[0]).await.state(), State::Paused);
    assert!(why(&daemon, ids[0]).await.contains("cnx resume"));
    daemon.people().resume(these(&ids[..1])).await.unwrap();
    let mut other = daemon.worker("v").await;
    let again = lease(&other.assigned().await);
    assert_eq!((again.experiment, again.attempt), (ids[0], 2));
    assert!(other.report(&again, 1, succeeded()).await.accepted);
}

#[tokio::test]
async fn a_worker_that_was_away_hears_of_the_pause_when_it_attaches_again() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    drop(worker);
    daemon.people().pause(these(&[id])).await.unwrap();
    daemon.stop().await;
    let daemon = Daemon::start(dir.path()).await;
    let mut worker = daemon.worker_holding("w", std::slice::from_ref(&held)).await;
    assert_eq!(worker.stopped().await.reason(), StopReason::Paused);
    assert!(worker.report(&held, 1, interrupted()).await.accepted);
    assert_eq!(daemon.show(id).await.state(), State::Paused);
    daemon
        .people()
        .cancel(SelectRequest { selectors: vec![id.to_string()], all_failed: false })
        .await
        .unwrap();
    assert_eq!(daemon.show(id).await.state(), State::Cancelled);
}

#[tokio::test]
async fn a_paused_queue_lets_what_runs_finish_and_dispatches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let ids = daemon.submit(&["a", "b"]).await;
    let mut worker = daemon.worker("w").await;
    let first = lease(&worker.assigned().await);
    daemon.people().pause(QUEUE).await.unwrap();
    assert!(worker.report(&first, 1, succeeded()).await.accepted);
    let status = daemon.people().status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.coordinator.unwrap().queue_paused_since_ms > 0);
    assert!(why(&daemon, ids[1]).await.starts_with("The whole queue is paused"));
    // A heartbeat is answered, and nothing was assigned before it.
    worker.heartbeat(&[]).await;
    daemon.people().resume(QUEUE).await.unwrap();
    assert_eq!(lease(&worker.assigned().await).experiment, ids[1]);
}

#[tokio::test]
async fn a_higher_priority_that_may_preempts_and_the_other_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let low = daemon.submit(&["low"]).await[0];
    let mut worker = daemon.worker("w").await;
    let first = lease(&worker.assigned().await);
    // Without the right to, it waits however high it is.
    let patient = SubmitRequest { priority: 9, ..request(&[spec("patient")]) };
    let patient = daemon.try_submit(patient).await.unwrap().experiments[0].id;
    assert!(why(&daemon, patient).await.starts_with("All 1 slot of 1 worker are busy."));
    let urgent = SubmitRequest { priority: 10, preempt: true, ..request(&[spec("urgent")]) };
    let urgent = daemon.try_submit(urgent).await.unwrap().experiments[0].id;
    assert_eq!(worker.stopped().await.reason(), StopReason::Preempted);
    worker.send(&first, 1, interrupted()).await;
    assert!(worker.acknowledged().await.accepted);
    for next in [urgent, patient, low] {
        let held = lease(&worker.assigned().await);
        assert_eq!(held.experiment, next);
        worker.send(&held, 1, succeeded()).await;
        assert!(worker.acknowledged().await.accepted);
    }
    assert_eq!(daemon.show(low).await.attempt, 2);
}

#[tokio::test]
async fn a_dependant_runs_after_what_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let first = daemon.submit(&["a"]).await[0];
    let after = SubmitRequest { after: vec!["a".into()], priority: 5, ..request(&[spec("b")]) };
    let second = daemon.try_submit(after).await.unwrap().experiments[0].id;
    assert_eq!(daemon.show(second).await.message, format!("waits for {first}"));
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    assert_eq!(held.experiment, first);
    assert!(why(&daemon, second).await.contains("which is running"));
    worker.send(&held, 1, succeeded()).await;
    assert!(worker.acknowledged().await.accepted);
    assert_eq!(lease(&worker.assigned().await).experiment, second);
    let unknown = SubmitRequest { after: vec!["nobody".into()], ..request(&[spec("c")]) };
    assert!(daemon.try_submit(unknown).await.unwrap_err().message().contains("nobody"));
}

#[tokio::test]
async fn an_experiment_goes_to_a_worker_with_its_labels_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut wanting = spec("a");
    wanting.resources.labels = vec!["a100".into()];
    wanting.resources.memory_gib = 32;
    let id = daemon.submit_specs(&[wanting]).await[0];
    let hello = |worker: &str, memory_gib, label: &str| Hello {
        worker: worker.into(),
        device: "cpu".into(),
        slots: 1,
        memory_gib,
        labels: vec![label.into()],
        ..Hello::default()
    };
    let _small = daemon.attach(hello("small", 16, "a100")).await;
    let _other = daemon.attach(hello("other", 64, "v100")).await;
    assert!(
        why(&daemon, id).await.starts_with("No connected worker has 32 GiB of memory and the label a100")
    );
    let mut fitting = daemon.attach(hello("fitting", 32, "a100")).await;
    assert_eq!(lease(&fitting.assigned().await).experiment, id);
}
