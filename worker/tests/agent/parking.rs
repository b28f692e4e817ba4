//! Leases that run out while no coordinator answers: their children compute nothing, and go on if the lease is still theirs.

use std::time::Duration;

use cnx_proto::v1::StopReason;

use crate::coordinator::{Coordinator, Session};
use crate::world::{World, lease, lives, message, short, shorts, until_dead, until_frozen};

/// Leases that soon run out where heartbeats are not answered. They are while a test waits for a report.
const SHORT: Duration = Duration::from_secs(1);

/// Ignores whatever it is told, until it may go on.
const BUSY: &str = "trap 'touch terminated' TERM; say started; await go; say succeeded";

/// Has a checkpoint, computes nothing, and ends in good order.
const PARKED: &str =
    "trap 'touch terminated; say interrupted; exit 0' TERM; say started; say parked; await go; say succeeded";

/// A session in which lease 1 has a child, and the child.
async fn started(world: &World, coordinator: &mut Coordinator) -> (Session, u32) {
    let mut session = coordinator.session().await;
    session.welcome(SHORT, vec![]).await;
    session.assign(&lease(1)).await;
    let report = session.report().await;
    assert_eq!(short(&report), "1 started");
    session.acknowledge(&report, true).await;
    (session, world.pid().await)
}

#[tokio::test]
async fn a_child_goes_on_when_a_heartbeat_is_acknowledged() {
    for script in [BUSY, PARKED] {
        let world = World::new();
        let mut coordinator = Coordinator::start(&world.state).await;
        let _agent = world.agent(script);
        let (mut session, pid) = started(&world, &mut coordinator).await;
        until_frozen(pid).await;
        world.touch("go");
        assert_eq!(short(&session.report().await), "2 SUCCEEDED");
        assert!(!world.path("terminated").exists());
    }
}

#[tokio::test]
async fn a_child_goes_on_when_the_coordinator_is_back_and_the_lease_is_still_its_own() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent(BUSY);
    let (session, pid) = started(&world, &mut coordinator).await;
    drop((session, coordinator));
    until_frozen(pid).await;
    world.touch("go");
    let mut coordinator = Coordinator::start(&world.state).await;
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.held, [lease(1)]);
    session.welcome(Duration::from_secs(600), vec![]).await;
    assert_eq!(shorts(&session.all_reports().await).last().map(String::as_str), Some("2 SUCCEEDED"));
    assert!(!world.path("terminated").exists());
}

#[tokio::test]
async fn a_child_whose_lease_went_to_another_is_killed_where_it_stands() {
    for script in [BUSY, PARKED] {
        let world = World::new();
        let mut coordinator = Coordinator::start(&world.state).await;
        let _agent = world.agent(script);
        let (session, pid) = started(&world, &mut coordinator).await;
        drop((session, coordinator));
        until_frozen(pid).await;
        let mut coordinator = Coordinator::start(&world.state).await;
        let session = coordinator.session().await;
        session.welcome(Duration::from_secs(600), vec![lease(1)]).await;
        until_dead(pid).await;
        world.until_no_spool().await;
        assert!(!world.path("terminated").exists());
    }
}

#[tokio::test]
async fn what_is_parked_ends_in_good_order_with_its_agent() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let agent = world.agent(PARKED);
    let (session, pid) = started(&world, &mut coordinator).await;
    drop((session, coordinator));
    until_frozen(pid).await;
    agent.shut_down().await;
    assert!(!lives(pid));
    assert!(world.path("terminated").exists());
    // The next agent tells it.
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("exit 1");
    let mut session = coordinator.welcomed().await;
    let reports = session.all_reports().await;
    assert_eq!(reports.last().map(short).as_deref(), Some("2 INTERRUPTED"));
    assert!(reports.last().is_some_and(|report| message(report).contains("worker was asked to stop")));
}

#[tokio::test]
async fn what_is_not_parked_computes_nothing_more_at_the_end_of_its_agent() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let agent = world.agent(BUSY);
    let (session, pid) = started(&world, &mut coordinator).await;
    drop((session, coordinator));
    until_frozen(pid).await;
    agent.shut_down().await;
    assert!(!lives(pid));
    assert!(!world.path("terminated").exists(), "it was woken");
}

#[tokio::test]
async fn what_is_parked_can_be_cancelled_and_paused() {
    for (reason, expected) in [(StopReason::Cancelled, "2 CANCELLED"), (StopReason::Paused, "2 INTERRUPTED")]
    {
        let world = World::new();
        let mut coordinator = Coordinator::start(&world.state).await;
        let _agent = world.agent(PARKED);
        let (mut session, pid) = started(&world, &mut coordinator).await;
        until_frozen(pid).await;
        session.stop(&lease(1), reason).await;
        until_dead(pid).await;
        assert_eq!(short(&session.report().await), expected);
        assert!(world.path("terminated").exists());
    }
}

#[tokio::test]
async fn a_parked_child_keeps_its_slot() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent(&format!("echo x >> starts; {PARKED}"));
    let (mut session, pid) = started(&world, &mut coordinator).await;
    session.assign(&lease(2)).await;
    until_frozen(pid).await;
    assert_eq!(world.read("starts").await, "x\n");
    world.touch("go");
    let first = session.report().await;
    assert_eq!((short(&first).as_str(), first.lease.clone()), ("2 SUCCEEDED", Some(lease(1))));
    session.acknowledge(&first, true).await;
    let second = session.report().await;
    assert_eq!((short(&second).as_str(), second.lease), ("1 started", Some(lease(2))));
}
