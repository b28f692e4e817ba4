//! Coordinators and agents that die.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cnx_worker::agent;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Coordinator, within};
use crate::world::{World, lease, lives, short, shorts, until_dead, until_frozen};

#[tokio::test]
async fn the_coordinators_death_is_a_non_event() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent(
        "say started; say epoch1; await go; say epoch2; say epoch3; echo alone >&2; touch said; await end; say succeeded",
    );
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    let started = session.report().await;
    session.acknowledge(&started, true).await;
    // This one is received, but never acknowledged.
    assert_eq!(short(&session.report().await), "2 epoch 1");
    let pid = world.pid().await;
    let port = coordinator.address.port();
    drop((session, coordinator));

    world.touch("go");
    world.read("said").await;
    let mut coordinator = Coordinator::start(&world.state).await;
    assert_ne!(coordinator.address.port(), port);
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.held, [lease(1)]);
    session.welcome(Duration::from_secs(600), vec![]).await;
    assert!(lives(pid));
    world.touch("end");
    let told = shorts(&session.all_reports().await);
    // The log has a pipe of its own, so its place among the reports is open; nothing else is.
    let (log, reports): (Vec<_>, Vec<_>) = told.iter().partition(|report| report.contains("log"));
    assert_eq!(log.len(), 1, "{told:?}");
    let what: Vec<_> =
        reports.iter().filter_map(|report| report.split_once(' ')).map(|(_, what)| what).collect();
    assert!(
        what == ["started", "epoch 1", "epoch 2", "epoch 3", "SUCCEEDED"]
            || what == ["epoch 1", "epoch 2", "epoch 3", "SUCCEEDED"],
        "{told:?}"
    );
    let sequences: Vec<u64> =
        told.iter().filter_map(|report| report.split(' ').next()?.parse().ok()).collect();
    let first = sequences[0];
    assert_eq!(sequences, (first..=6).collect::<Vec<_>>(), "in order, without a gap: {told:?}");
    world.until_no_spool().await;
}

#[tokio::test]
async fn an_outcome_that_nobody_heard_is_told_by_the_next_agent() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let agent = world.agent("say started; say epoch1; say succeeded");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    while !short(&session.report().await).contains("SUCCEEDED") {}
    drop(coordinator);
    drop(session);
    agent.shut_down().await;
    assert_eq!(world.spools().len(), 1);

    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("exit 1");
    let mut session = coordinator.welcomed().await;
    assert_eq!(session.hello.held, [lease(1)]);
    assert_eq!(shorts(&session.all_reports().await), ["1 started", "2 epoch 1", "3 SUCCEEDED"]);
    world.until_no_spool().await;
}

#[tokio::test]
async fn a_child_dies_with_its_agent_and_the_next_agent_starts_clean() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let mut agent = agent_process_of(&world);
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.report().await;
    let pid = world.pid().await;
    assert!(lives(pid));
    agent.kill().expect("killed");
    agent.wait().expect("waited for");
    until_dead(pid).await;
    assert_eq!(world.spools().len(), 1);

    let _agent = world.agent("exit 1");
    let session = coordinator.welcomed().await;
    assert!(session.hello.held.is_empty(), "{:?}", session.hello.held);
    assert!(world.spools().is_empty());
}

#[tokio::test]
async fn a_frozen_child_dies_with_its_agent() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let mut agent = agent_process_of(&world);
    let mut session = coordinator.session().await;
    session.welcome(Duration::from_secs(1), vec![]).await;
    session.assign(&lease(1)).await;
    session.report().await;
    let pid = world.pid().await;
    until_frozen(pid).await;
    agent.kill().expect("killed");
    agent.wait().expect("waited for");
    until_dead(pid).await;
}

fn agent_process_of(world: &World) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["crashes::agent_process", "--exact", "--ignored", "--nocapture"])
        .env("CNX_TEST_AGENT_FOLDER", world.folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("started")
}

/// Not a test: the agent of the tests above, as a process of its own.
#[tokio::test]
#[ignore = "a helper process of another test"]
async fn agent_process() {
    let Some(folder) = std::env::var_os("CNX_TEST_AGENT_FOLDER") else { return };
    let world = World::new();
    let mut config = world.config(&format!(
        "cd '{}'; echo $$ > pid.new; mv pid.new pid; say started; await never",
        folder.display()
    ));
    let state = std::path::Path::new(&folder).join("state");
    config.state = cnx_proto::state_dir::StateDir::locate(Some(&state), |_| None).expect("a state folder");
    within("its death", agent::run(config, CancellationToken::new())).await.expect("served");
}
