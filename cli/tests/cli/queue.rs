//! Holding back, going first, waiting and asking why, against a coordinator that is played.

use std::process::Stdio;

use cnx_proto::v1::State;
use serde_json::Value;

use crate::coordinator::Coordinator;
use crate::{config, run, said};

fn with_one() -> Coordinator {
    let coordinator = Coordinator::start();
    assert_eq!(run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml")])).code, 0);
    coordinator
}

#[test]
fn experiments_and_the_queue_are_paused_and_resumed() {
    let coordinator = with_one();
    let told = run(&mut coordinator.cnx(&["pause", "1"]));
    assert_eq!((told.code, told.out.as_str()), (0, "1 condensenet-50: paused\n"));
    assert!(run(&mut coordinator.cnx(&["status"])).out.contains("paused"));
    assert_eq!(run(&mut coordinator.cnx(&["resume", "1"])).out, "1 condensenet-50: resumed\n");
    assert_eq!(run(&mut coordinator.cnx(&["pause", "--queue"])).out, "queue: paused\n");
    let json = run(&mut coordinator.cnx(&["resume", "--queue", "--json"])).out;
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&value["changes"][0]["id"], &value["changes"][0]["name"]), (&Value::Null, &"queue".into()));
    // Neither what nor all of it: which is meant?
    assert_eq!(run(&mut coordinator.cnx(&["pause"])).code, 2);
    assert_eq!(run(&mut coordinator.cnx(&["pause", "1", "--queue"])).code, 2);
}

#[test]
fn a_priority_may_be_negative() {
    let coordinator = with_one();
    let told = run(&mut coordinator.cnx(&["priority", "condensenet-50", "-5"]));
    assert_eq!((told.code, told.out.as_str()), (0, "1 condensenet-50: priority 0 → -5\n"));
    let file = config("condensenet-74.toml");
    assert_eq!(run(&mut coordinator.cnx(&["submit", &file, "--priority", "-3", "--after", "1"])).code, 0);
}

#[test]
fn waiting_exits_by_the_outcome() {
    let coordinator = with_one();
    let timed_out = run(&mut coordinator.cnx(&["wait", "1", "--timeout", "10ms"]));
    assert_eq!(timed_out.code, 5, "{}", timed_out.err);
    assert!(timed_out.err.contains("10ms") && timed_out.err.contains("cnx status 1"), "{}", timed_out.err);
    let spawn =
        |args: &[&str]| coordinator.cnx(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = spawn(&["wait", "condensenet-50", "--timeout", "1h"]);
    coordinator.pool.change(1, |e| e.state = State::Succeeded as i32);
    let done = said(waiting.wait_with_output().unwrap());
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{}", done.err);
    coordinator.pool.change(1, |e| e.state = State::Cancelled as i32);
    assert_eq!(run(&mut coordinator.cnx(&["wait", "1", "-q"])).code, 1);
    assert_eq!(run(&mut coordinator.cnx(&["wait", "no-such"])).code, 1);
}

#[test]
fn an_explanation_tells_the_reason_and_the_story() {
    let coordinator = with_one();
    let told = run(&mut coordinator.cnx(&["explain", "1"]));
    assert_eq!(told.code, 0, "{}", told.err);
    for part in ["1 condensenet-50: queued", "All 1 slot of 1 worker are busy.", "leased to box-cpu"] {
        assert!(told.out.contains(part), "{}", told.out);
    }
    let value: Value =
        serde_json::from_str(&run(&mut coordinator.cnx(&["explain", "1", "--json"])).out).unwrap();
    assert_eq!(value["why"][0], "All 1 slot of 1 worker are busy.");
    assert_eq!(value["story"][0]["what"], "leased to box-cpu");
}

#[test]
fn what_is_done_is_called_so_when_it_is_submitted_again() {
    let coordinator = with_one();
    coordinator.pool.change(1, |e| e.state = State::Succeeded as i32);
    let told = run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml")]));
    assert!(told.out.contains("there already, done"), "{}", told.out);
}
