//! How attempts end, and what is reported of it.

use std::time::Duration;

use cnx_proto::v1::StopReason;

use crate::coordinator::Coordinator;
use crate::world::{World, lease, lives, message, short, shorts, until_dead};

/// Runs one attempt of `script` to its outcome.
async fn outcome_of(script: &str) -> (Vec<String>, String) {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent(script);
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    let reports = session.all_reports().await;
    (shorts(&reports), message(reports.last().expect("an outcome")).to_owned())
}

#[tokio::test]
async fn a_killed_child_is_a_signal() {
    let (reports, message) = outcome_of("say started; kill -9 $$").await;
    assert_eq!(reports.last().map(String::as_str), Some("2 SIGNAL"));
    assert!(message.contains("SIGKILL") && message.contains("out-of-memory"), "{message}");
}

#[tokio::test]
async fn a_failed_child_is_internal_and_its_log_is_kept_and_quoted() {
    let (reports, message) = outcome_of("echo loading >&2; echo it broke >&2; exit 3").await;
    assert_eq!(reports, ["1 log loading", "2 log it broke", "3 INTERNAL"]);
    assert!(message.contains("exit code 3") && message.ends_with("loading\nit broke"), "{message}");
}

#[tokio::test]
async fn a_child_that_prints_something_else_is_stopped_and_told_of() {
    let (reports, message) =
        outcome_of("say started; for i in 1 2 3 4 5 6 7 8; do echo Epoch $i is done; done; await never")
            .await;
    assert_eq!(reports.last().map(String::as_str), Some("2 INTERNAL"));
    assert!(message.contains("standard output"), "{message}");
}

#[tokio::test]
async fn a_success_counts_even_if_the_child_crashes_afterwards() {
    let (reports, _) = outcome_of("say started; say succeeded; kill -11 $$").await;
    assert_eq!(reports, ["1 started", "2 SUCCEEDED"]);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_failure_not_a_crash() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let mut config = world.config("");
    config.child = vec!["/nowhere/cnx-worker".into()];
    let _agent = world.start(config);
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    let reports = session.all_reports().await;
    assert_eq!(shorts(&reports), ["1 INTERNAL"]);
    assert!(message(&reports[0]).contains("/nowhere/cnx-worker"), "{}", message(&reports[0]));
}

#[tokio::test]
async fn a_cancelled_child_may_stop_by_itself() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("trap 'say interrupted; exit 0' TERM; say started; await never");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.report().await;
    session.stop(&lease(1), StopReason::Cancelled).await;
    assert_eq!(short(&session.report().await), "2 CANCELLED");
}

#[tokio::test]
async fn a_child_that_is_paused_or_preempted_was_interrupted_not_cancelled() {
    for (reason, says) in [(StopReason::Paused, "paused"), (StopReason::Preempted, "higher priority")] {
        let world = World::new();
        let mut coordinator = Coordinator::start(&world.state).await;
        let _agent = world.agent("trap 'say interrupted; exit 0' TERM; say started; await never");
        let mut session = coordinator.welcomed().await;
        session.assign(&lease(1)).await;
        session.report().await;
        session.stop(&lease(1), reason).await;
        let report = session.report().await;
        assert_eq!(short(&report), "2 INTERRUPTED");
        assert!(message(&report).contains(says), "{}", message(&report));
    }
}

#[tokio::test]
async fn a_cancelled_child_that_ignores_it_is_killed() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let mut config = world.config("trap '' TERM; say started; sleep 1000");
    config.grace = Duration::from_millis(200);
    let _agent = world.start(config);
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.report().await;
    let pid = world.pid().await;
    session.stop(&lease(1), StopReason::Cancelled).await;
    assert_eq!(short(&session.report().await), "2 CANCELLED");
    assert!(!lives(pid), "told before its exit");
}

#[tokio::test]
async fn what_waits_for_a_slot_can_be_cancelled() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("say started; await never");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.report().await;
    session.assign(&lease(2)).await;
    session.stop(&lease(2), StopReason::Cancelled).await;
    let report = session.report().await;
    assert_eq!((short(&report).as_str(), report.lease), ("1 CANCELLED", Some(lease(2))));
}

#[tokio::test]
async fn a_stopping_agent_stops_its_children_tells_of_it_and_wants_no_more() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let agent = world.agent("trap 'say interrupted; exit 0' TERM; say started; await never");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.report().await;
    let pid = world.pid().await;
    agent.stop.cancel();
    let outcome = session.report().await;
    assert_eq!(short(&outcome), "2 INTERRUPTED");
    assert!(session.heartbeats.last().is_some_and(|beat| beat.draining));
    // An assignment that crossed with that comes back at once.
    session.assign(&lease(2)).await;
    let handed_back = session.report().await;
    assert_eq!(
        (short(&handed_back).as_str(), handed_back.lease.as_ref()),
        ("1 INTERRUPTED", Some(&lease(2)))
    );
    for sequence in 1..=2 {
        let mut report = outcome.clone();
        report.sequence = sequence;
        session.acknowledge(&report, true).await;
    }
    session.until_hang_up().await;
    agent.end().await.expect("in good order");
    assert!(!lives(pid));
    assert!(world.spools().is_empty());
}

#[tokio::test]
async fn a_full_disk_stops_the_child_and_is_told() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    // Every write to the spool fails with "no space left on device".
    let spool = world.state.worker("tester").join("spool");
    std::fs::create_dir_all(&spool).expect("a folder");
    let name = format!("1-1-{:08x}.reports", crc32fast::hash(lease(1).token.as_bytes()));
    let agent = world.agent("say started; await never");
    let mut session = coordinator.welcomed().await;
    std::os::unix::fs::symlink("/dev/full", spool.join(name)).expect("a link");
    session.assign(&lease(1)).await;
    let reports = session.all_reports().await;
    assert_eq!(shorts(&reports), ["1 DISK_FULL"]);
    assert!(message(&reports[0]).contains("space"), "{}", message(&reports[0]));
    until_dead(world.pid().await).await;
    agent.shut_down().await;
}
