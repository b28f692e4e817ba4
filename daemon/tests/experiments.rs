//! What people say to a coordinator, and what they get.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use cnx_proto::spec::Step;
use cnx_proto::v1::report::Body;
use cnx_proto::v1::{
    DescribeRequest, EpochMetrics, Errors, FailureClass, Figures, LogLine, LogsRequest, ResultsRequest,
    SelectRequest, Started, State, StatusRequest, StopReason, SubmitRequest,
};
use common::{Daemon, cancelled, failed, lease, request, soon, spec, succeeded};
use tonic::Code;

fn select(id: u64) -> SelectRequest {
    SelectRequest { selectors: vec![id.to_string()], all_failed: false }
}

#[tokio::test]
async fn an_experiment_goes_from_submit_to_its_row_in_the_results() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut worker = daemon.worker("w").await;
    let id = daemon.submit(&["a"]).await[0];
    let assign = worker.assigned().await;
    let lease = lease(&assign);
    assert_eq!((lease.experiment, lease.attempt, assign.lineage), (id, 1, vec![id]));
    assert_eq!((assign.spec_json, assign.artifacts_url), (spec("a").to_json(), "file:///artifacts".into()));

    let started = Started { environment: Some(Default::default()), ..Started::default() };
    assert!(worker.report(&lease, 1, Body::Started(started)).await.accepted);
    let metrics = EpochMetrics { epoch: 1, test_top1_error: 12.5, ..EpochMetrics::default() };
    assert!(worker.report(&lease, 2, Body::Epoch(metrics)).await.accepted);
    let figures =
        Figures { r#final: Some(Errors { top1_error: 12.5, ..Errors::default() }), ..Default::default() };
    assert!(worker.report(&lease, 3, Body::Figures(figures)).await.accepted);
    assert!(worker.report(&lease, 4, succeeded()).await.accepted);

    let shown = daemon.show(id).await;
    assert_eq!((shown.state(), shown.epochs_done, shown.top1_error), (State::Succeeded, 1, Some(12.5)));
    let row = daemon.people().results(ResultsRequest::default()).await.unwrap().into_inner().rows.remove(0);
    assert_eq!(row.figures.unwrap(), figures);
    assert_eq!((row.spec_hash, row.attempts), (spec("a").hash(), 1));
    let detail =
        daemon.people().describe(DescribeRequest { selector: "a".into() }).await.unwrap().into_inner();
    assert_eq!(detail.attempts[0].outcome, "succeeded");
    assert_eq!(detail.artifacts_url, "file:///artifacts");
    let story: Vec<_> = detail.events.iter().map(|e| e.what.as_str()).collect();
    assert_eq!(story, ["submitted", "leased to w", "started", "succeeded"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_is_known_by_its_bytes_and_shows_what_it_measured() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut worker = daemon.worker("w").await;
    let job = |from: &str, sha256: char| {
        spec("a").job(vec![Step::Evaluate], from.to_owned(), sha256.to_string().repeat(64))
    };
    let jobs = [job("/here", '1'), job("/there", '1'), job("/here", '2')];
    let reply = daemon.people().submit(request(&jobs)).await.unwrap().into_inner();
    let existing: Vec<bool> = reply.experiments.iter().map(|one| one.existing).collect();
    assert_eq!(existing, [false, true, false], "the same bytes elsewhere are the same");

    let id = reply.experiments[0].id;
    let lease = lease(&worker.assigned().await);
    assert_eq!(lease.experiment, id);
    worker.report(&lease, 1, Body::Started(Started::default())).await;
    let figures =
        Figures { r#final: Some(Errors { top1_error: 12.5, ..Errors::default() }), ..Default::default() };
    worker.report(&lease, 2, Body::Figures(figures)).await;
    let shown = daemon.show(id).await;
    assert_eq!((shown.name.as_str(), shown.epochs_done, shown.top1_error), ("a-evaluate", 0, Some(12.5)));

    let mut unfit = job("/here", '3');
    unfit.run.steps = vec![Step::Train];
    let refusal = daemon.people().submit(request(&[unfit])).await.unwrap_err();
    assert!(refusal.message().contains("run.from gives the model already"), "{}", refusal.message());
    daemon.stop().await;
}

#[tokio::test]
async fn a_freed_slot_takes_the_next_in_line() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let ids = daemon.submit(&["a", "b"]).await;
    let mut worker = daemon.worker("w").await;
    let first = lease(&worker.assigned().await);
    assert_eq!(first.experiment, ids[0]);
    assert_eq!(daemon.show(ids[1]).await.message, "waits for a free slot");
    worker.send(&first, 1, succeeded()).await;
    assert!(worker.acknowledged().await.accepted);
    assert_eq!(lease(&worker.assigned().await).experiment, ids[1]);
}

#[tokio::test]
async fn every_problem_of_every_spec_is_told_and_nothing_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let (mut bad, mut worse) = (spec("bad"), spec("worse"));
    bad.train.epochs = 0;
    worse.train.batch_size = 0;
    worse.train.lr = -1.0;
    let refusal = daemon.try_submit(request(&[spec("good"), bad, worse])).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    for problem in ["experiment 2: train.epochs", "experiment 3: train.batch_size", "experiment 3: train.lr"]
    {
        assert!(refusal.message().contains(problem), "{}", refusal.message());
    }
    let many: Vec<_> = (0..500)
        .map(|n| {
            let mut spec = spec(&format!("bad-{n}"));
            spec.train.epochs = 0;
            spec
        })
        .collect();
    let refusal = daemon.try_submit(request(&many)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("more"), "{}", refusal.message());
    let status = daemon.people().status(StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.coordinator.unwrap().queued, 0);
}

#[tokio::test]
async fn submitting_again_adds_only_what_is_missing_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let sweep = |names: &[&str], force| SubmitRequest {
        sweep: "s".into(),
        force,
        ..request(&names.iter().map(|n| spec(n)).collect::<Vec<_>>())
    };
    let told = |reply: cnx_proto::v1::SubmitReply| {
        reply.experiments.iter().map(|e| (e.id, e.existing)).collect::<Vec<_>>()
    };
    let first = daemon.try_submit(sweep(&["a"], false)).await.unwrap();
    assert_eq!(told(first), [(1, false)]);
    let second = daemon.try_submit(sweep(&["a", "b"], false)).await.unwrap();
    assert_eq!(told(second), [(1, true), (2, false)]);
    let forced = daemon.try_submit(sweep(&["a"], true)).await.unwrap();
    assert_eq!(told(forced), [(3, false)]);
}

#[tokio::test]
async fn a_wrong_or_missing_token_is_refused_and_told_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let refusal = daemon.people_with("guess").status(StatusRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert!(refusal.message().contains(&dir.path().join("token").display().to_string()));
    assert!(!refusal.message().contains(&daemon.token));
    let mut bare = cnx_proto::v1::workers_client::WorkersClient::new(daemon.channel.clone());
    let refusal = bare.attach(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn what_waits_is_cancelled_at_once_and_what_is_final_stays() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let cancel = async || daemon.people().cancel(select(id)).await.unwrap().into_inner().changes.remove(0);
    assert!(cancel().await.changed);
    assert_eq!(daemon.show(id).await.state(), State::Cancelled);
    let again = cancel().await;
    assert_eq!((again.changed, again.message.as_str()), (false, "was cancelled"));
}

#[tokio::test]
async fn what_runs_is_cancelled_when_its_worker_confirms() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let lease = lease(&worker.assigned().await);
    daemon.people().cancel(select(id)).await.unwrap();
    let stop = worker.stopped().await;
    assert_eq!((stop.reason(), stop.lease), (StopReason::Cancelled, Some(lease.clone())));
    let shown = daemon.show(id).await;
    assert_eq!((shown.state(), shown.cancelling), (State::Running, true));
    assert!(worker.report(&lease, 1, cancelled()).await.accepted);
    assert_eq!(daemon.show(id).await.state(), State::Cancelled);
}

#[tokio::test]
async fn a_worker_that_was_away_hears_of_the_cancelling_when_it_attaches() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let lease = lease(&worker.assigned().await);
    drop(worker);
    daemon.people().cancel(select(id)).await.unwrap();
    let mut worker = daemon.worker_holding("w", std::slice::from_ref(&lease)).await;
    assert!(worker.welcome.stale.is_empty());
    assert_eq!(worker.stopped().await.reason(), StopReason::Cancelled);
}

#[tokio::test]
async fn success_before_the_stop_arrives_stands() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let lease = lease(&worker.assigned().await);
    daemon.people().cancel(select(id)).await.unwrap();
    worker.stopped().await;
    assert!(worker.report(&lease, 1, succeeded()).await.accepted);
    assert_eq!(daemon.show(id).await.state(), State::Succeeded);
}

#[tokio::test]
async fn a_permanent_failure_is_final_and_can_be_retried_with_its_lineage() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    worker.report(&held, 1, failed(FailureClass::Diverged, "NaN loss at step 4113")).await;
    let shown = daemon.show(id).await;
    assert_eq!((shown.state(), shown.failure()), (State::Failed, FailureClass::Diverged));
    assert_eq!(shown.message, "NaN loss at step 4113");
    let change = daemon.people().retry(select(id)).await.unwrap().into_inner().changes.remove(0);
    let assign = worker.assigned().await;
    assert_eq!(assign.lineage, [change.new_id, id]);
    assert_eq!(daemon.show(change.new_id).await.retry_of, id);
}

#[tokio::test]
async fn a_transient_failure_is_tried_again_until_the_tries_are_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut spec = spec("a");
    spec.resources.max_attempts = 2;
    let id = daemon.submit_specs(&[spec]).await[0];
    let mut worker = daemon.worker("w").await;
    for attempt in 1..=2 {
        let lease = lease(&worker.assigned().await);
        assert_eq!(lease.attempt, attempt);
        worker.report(&lease, 1, failed(FailureClass::Signal, "killed by SIGKILL")).await;
    }
    assert_eq!(daemon.until_state(id, State::Failed).await.attempt, 2);
}

#[tokio::test]
async fn logs_are_followed_to_the_end_of_the_experiment() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    let mut worker = daemon.worker("w").await;
    let lease = lease(&worker.assigned().await);
    let line = |text: &str| Body::Log(LogLine { text: text.into(), ..LogLine::default() });
    worker.report(&lease, 1, line("one")).await;
    let request = LogsRequest { selector: "last".into(), follow: true, tail: 0 };
    let mut log = daemon.people().logs(request).await.unwrap().into_inner();
    assert_eq!(soon("a line", log.message()).await.unwrap().unwrap().text, "one");
    worker.report(&lease, 2, line("two")).await;
    assert_eq!(soon("a line", log.message()).await.unwrap().unwrap().text, "two");
    worker.report(&lease, 3, line("three")).await;
    worker.report(&lease, 4, succeeded()).await;
    assert_eq!(soon("a line", log.message()).await.unwrap().unwrap().text, "three");
    assert_eq!(soon("the end", log.message()).await.unwrap(), None);
}

#[tokio::test]
async fn progress_is_shown_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let lease = lease(&worker.assigned().await);
    let progress = cnx_proto::v1::Progress { epoch: 3, ..Default::default() };
    worker.send(&lease, 0, Body::Progress(progress)).await;
    let shown = daemon.until(id, |e| e.progress.is_some()).await;
    assert_eq!((shown.progress.unwrap().epoch, shown.worker.as_str()), (3, "w"));
}

#[tokio::test]
async fn a_queued_experiment_says_why_it_waits() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut needs = spec("needs");
    needs.resources.gpus = 1;
    let id = daemon.submit_specs(&[needs]).await[0];
    assert_eq!(daemon.show(id).await.message, "no worker is connected: start one with cnx up");
    let mut worker = daemon.worker("w").await;
    assert_eq!(daemon.show(id).await.message, "waits for a worker with a GPU");
    // One without such needs passes by.
    let other = daemon.submit(&["other"]).await[0];
    assert_eq!(lease(&worker.assigned().await).experiment, other);
}
