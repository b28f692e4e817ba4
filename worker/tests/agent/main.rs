//! The agent as a whole, between a coordinator that the test plays and children that are shell scripts.
//! Linux only: the tests look into /proc, and the parent-death signal is Linux's.
#![cfg(target_os = "linux")]
// The helpers are test code too, which clippy knows of `#[test]` functions only.
#![allow(clippy::expect_used, clippy::panic)]

mod coordinator;
mod crashes;
mod ends;
mod parking;
mod world;

use std::fs;

use cnx_proto::v1::{Assign, StopReason};
use prost::Message as _;

use coordinator::{Coordinator, TOKEN, within};
use world::{World, lease, lives, short, shorts, until_dead};

const WHOLE: &str = "say started; say progress; say epoch1; say succeeded";

#[tokio::test]
async fn an_assignment_is_run_and_every_report_is_told_and_forgotten() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent(&format!("cat > assign & echo \"$@\" > args; {WHOLE}"));
    let mut session = coordinator.welcomed().await;
    assert_eq!((session.hello.worker.as_str(), session.hello.slots), ("tester", 1));
    session.assign(&lease(7)).await;
    let reports = session.all_reports().await;
    assert_eq!(shorts(&reports), ["1 started", "2 epoch 1", "3 SUCCEEDED"]);
    assert!(reports.iter().all(|report| report.lease == Some(lease(7))));
    assert_eq!(
        world.read("args").await.trim(),
        "--device cpu --threads 2 --data /data --checkpoint-every 1m 30s"
    );
    world.until_no_spool().await;
}

#[tokio::test]
async fn the_child_gets_its_assignment_and_its_input_stays_open() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    // The copy ends with the input. Until then the child is silent.
    let agent = world.agent("say started; cat > assign; say succeeded");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(7)).await;
    assert_eq!(short(&session.report().await), "1 started");
    let assign = within("the assignment", async {
        loop {
            let bytes = fs::read(world.path("assign")).unwrap_or_default();
            if let Ok(assign) = Assign::decode_length_delimited(bytes.as_slice()) {
                return assign;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!((assign.lease, assign.lineage), (Some(lease(7)), vec![7]));
    assert!(lives(world.pid().await));
    drop(agent);
}

#[tokio::test]
async fn a_slot_is_free_only_when_its_child_is_gone() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    // `tell` lingers after its outcome, and another child would find `busy`.
    let _agent = world.agent(
        "[ -e busy ] && exit 3; touch busy; say started; say succeeded; exec 1>&- 2>&-; sleep 0.3; rm busy",
    );
    let mut session = coordinator.welcomed().await;
    for experiment in 1..=3 {
        session.assign(&lease(experiment)).await;
    }
    for _ in 0..3 {
        assert_eq!(shorts(&session.all_reports().await), ["1 started", "2 SUCCEEDED"]);
    }
}

#[tokio::test]
async fn the_same_lease_assigned_twice_runs_once() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("echo x >> starts; say started; await go; say succeeded");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.assign(&lease(1)).await;
    assert_eq!(short(&session.report().await), "1 started");
    session.assign(&lease(1)).await;
    world.touch("go");
    let last = session.report().await;
    assert_eq!(short(&last), "2 SUCCEEDED");
    assert_eq!(world.read("starts").await, "x\n");
}

#[tokio::test]
async fn every_heartbeat_names_what_is_held() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("say started; await go; say succeeded");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    let started = session.report().await;
    session.acknowledge(&started, true).await;
    world.touch("go");
    session.heartbeats.clear();
    let outcome = session.report().await;
    assert!(session.heartbeats.iter().all(|beat| beat.leases == [lease(1)]), "{:?}", session.heartbeats);
    session.acknowledge(&outcome, true).await;
    world.until_no_spool().await;
}

#[tokio::test]
async fn a_refused_report_stops_the_child_and_nothing_more_is_said() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("say started; await never");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    let started = session.report().await;
    let pid = world.pid().await;
    session.acknowledge(&started, false).await;
    until_dead(pid).await;
    world.until_no_spool().await;
    // The next report is of the next lease, in the slot that is free again.
    session.assign(&lease(2)).await;
    assert_eq!(session.report().await.lease, Some(lease(2)));
}

#[tokio::test]
async fn a_stale_lease_is_stopped_at_the_welcome_at_a_heartbeat_and_when_told() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("trap '' TERM; say started; await never");
    let mut session = coordinator.welcomed().await;

    session.assign(&lease(1)).await;
    session.report().await;
    let told = world.pid().await;
    session.stop(&lease(1), StopReason::Stale).await;
    until_dead(told).await;

    session.assign(&lease(2)).await;
    session.report().await;
    let beaten = world.pid().await;
    let reply = cnx_proto::v1::HeartbeatReply { number: 0, stale: vec![lease(2)] };
    session.say(cnx_proto::v1::to_worker::Message::Heartbeat(reply)).await;
    until_dead(beaten).await;

    session.assign(&lease(3)).await;
    session.report().await;
    let welcomed = world.pid().await;
    drop(session);
    let session = coordinator.session().await;
    assert_eq!(session.hello.held, [lease(3)]);
    session.welcome(std::time::Duration::from_secs(600), vec![lease(3)]).await;
    until_dead(welcomed).await;
    world.until_no_spool().await;
}

#[tokio::test]
async fn a_later_attempt_replaces_an_earlier_one() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("say started; await never");
    let mut session = coordinator.welcomed().await;
    session.assign(&lease(1)).await;
    session.report().await;
    let first = world.pid().await;
    let mut second = lease(1);
    second.attempt = 2;
    session.assign(&second).await;
    assert_eq!(session.report().await.lease, Some(second));
    assert!(!lives(first), "two children of one experiment");
}

#[tokio::test]
async fn a_wrong_token_at_the_first_attach_ends_the_agent() {
    let world = World::new();
    let _coordinator = Coordinator::start(&world.state).await;
    fs::write(world.state.worker_token(), format!("not {TOKEN}")).expect("written");
    let error = world.agent("exit 1").end().await.expect_err("refused").to_string();
    assert!(error.contains(&world.state.worker_token().display().to_string()), "{error}");
}

#[tokio::test]
async fn a_second_agent_of_the_same_name_is_refused() {
    let world = World::new();
    let mut coordinator = Coordinator::start(&world.state).await;
    let _agent = world.agent("exit 1");
    coordinator.welcomed().await;
    let error = world.agent("exit 1").end().await.expect_err("refused").to_string();
    assert!(error.contains("a worker named tester runs already"), "{error}");
}

#[test]
fn a_child_reads_only_what_is_allowed_unless_the_coordinator_is_this_machines_own() {
    let world = World::new();
    let said = |config: &cnx_worker::agent::Config, confined: bool| {
        let command = config.child_command(confined);
        command.iter().map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let free = world.config("exit");
    assert!(!said(&free, false).contains("--confined"));
    assert!(said(&free, true).ends_with(" --confined"));
    // Who allows some folders means no others, here too.
    let allowing = cnx_worker::agent::Config { allow_paths: vec!["/models".into()], ..free };
    assert!(said(&allowing, false).ends_with("--confined --allow-path /models"));
}
