//! `cnx-worker` as the agent and the CLI call it: a process, its streams and its exit code.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Output};
use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::lease_clock::Holds;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::v1::{FailureClass, Hold, Phase, Report, outcome::Kind, report::Body};
use common::{WORKER, read_all, run, spawn, tiny};
use prost::Message;

/// So many epochs that the test, not the training, ends it.
fn endless() -> Spec {
    let mut spec = tiny();
    spec.train.epochs = 100_000;
    spec
}

#[test]
fn an_assignment_becomes_reports_and_exit_0() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _input) = spawn(&tiny(), folder.path(), 1, &[]);
    let told = read_all(&mut child, |_| {});
    assert!(child.wait().unwrap().success());
    assert_eq!(told.outcome().kind(), Kind::Succeeded);
    let environment = told.started().environment.unwrap();
    assert_eq!((environment.device.as_str(), environment.threads), ("cpu", 1));
    assert!(environment.libtorch_version.starts_with("2.11.0"), "{environment:?}");
    assert_eq!(environment.data_hash.len(), 64);
    // Another process computes the same bits.
    let here = tempfile::tempdir().unwrap();
    let in_process = run(&tiny(), here.path(), 1, None);
    assert_eq!((told.epochs(), told.figures()), (in_process.epochs(), in_process.figures()));
}

#[test]
fn sigterm_in_mid_epoch_ends_as_interrupted_with_exit_0() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _input) = spawn(&endless(), folder.path(), 1, &[]);
    let pid = rustix::process::Pid::from_child(&child);
    let told = read_all(&mut child, |report| {
        if matches!(&report.body, Some(Body::Epoch(epoch)) if epoch.epoch == 2) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
    });
    assert!(child.wait().unwrap().success());
    assert_eq!((told.outcome().kind(), told.outcome().failure()), (Kind::Failed, FailureClass::Interrupted));
}

#[test]
fn a_child_whose_agent_is_gone_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, input) = spawn(&endless(), folder.path(), 1, &[]);
    let mut input = Some(input);
    read_all(&mut child, |report| {
        if matches!(report.body, Some(Body::Epoch(_))) {
            drop(input.take());
        }
    });
    child.wait().unwrap();
}

#[test]
fn a_child_that_nobody_reads_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _input) = spawn(&endless(), folder.path(), 1, &[]);
    drop(child.stdout.take());
    assert!(!child.wait().unwrap().success());
}

/// Says to a child until when its lease holds; `forced` likewise, if it has not come to rest.
fn hold(input: &mut ChildStdin, until: Duration, forced: Duration) {
    let hold = Hold::from(Holds { until, forced_at: forced });
    input.write_all(&hold.encode_length_delimited_to_vec()).unwrap();
}

const EVER: Duration = Duration::from_secs(1 << 40);

fn is_parked(report: &Report) -> bool {
    matches!(&report.body, Some(Body::Progress(progress)) if progress.phase() == Phase::Parked)
}

/// The newest checkpoint, from its name.
fn newest_checkpoint(folder: &Path) -> String {
    let names = std::fs::read_dir(folder.join("experiments/1")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("checkpoint-") && name.ends_with(".safetensors")).max().unwrap()
}

#[test]
fn parked_at_any_moment_it_goes_on_to_the_same_figures() {
    let [whole, parked] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&tiny(), whole.path(), 1, None);
    let (mut child, mut input) = spawn(&tiny(), parked.path(), 1, &[]);
    let mut parkings = 0;
    let told = read_all(&mut child, |report| {
        // Its lease runs out with each epoch, and is renewed once that is seen to be heeded.
        if matches!(report.body, Some(Body::Epoch(_))) {
            hold(&mut input, Duration::ZERO, EVER);
        } else if is_parked(report) {
            parkings += 1;
            newest_checkpoint(parked.path());
            hold(&mut input, EVER, EVER);
        }
    });
    assert!(child.wait().unwrap().success());
    // The last epoch's is seen in the evaluation that follows it, or not any more.
    assert!(parkings >= 5, "{parkings}");
    assert_eq!((told.epochs(), told.figures()), (undisturbed.epochs(), undisturbed.figures()));
}

#[test]
fn a_parked_child_that_is_told_to_stop_leaves_all_it_computed() {
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&tiny(), whole.path(), 1, None);
    let (mut child, mut input) = spawn(&tiny(), cut.path(), 1, &[]);
    let pid = rustix::process::Pid::from_child(&child);
    let told = read_all(&mut child, |report| {
        if matches!(&report.body, Some(Body::Epoch(epoch)) if epoch.epoch == 2) {
            hold(&mut input, Duration::ZERO, EVER);
        } else if is_parked(report) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(told.outcome().failure(), FailureClass::Interrupted);
    let newest = newest_checkpoint(cut.path());
    let second = run(&tiny(), cut.path(), 2, None);
    assert_eq!(second.started().resumed_from, format!("experiments/1/{newest}"));
    assert_eq!((second.epochs(), second.figures()), (undisturbed.epochs(), undisturbed.figures()));
}

#[test]
fn a_child_that_does_not_come_to_rest_freezes_until_it_is_woken_with_a_lease() {
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&tiny(), whole.path(), 1, None);
    let (mut child, mut input) = spawn(&tiny(), cut.path(), 1, &[]);
    let pid = rustix::process::Pid::from_child(&child);
    // While it still prepares.
    hold(&mut input, Duration::ZERO, Duration::ZERO);
    let options = rustix::process::WaitOptions::UNTRACED;
    let stopped = rustix::process::waitpid(Some(pid), options).unwrap().unwrap().1;
    assert!(stopped.stopped(), "{stopped:?}");
    // Without a lease it freezes again.
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let again = rustix::process::waitpid(Some(pid), options).unwrap().unwrap().1;
    assert!(again.stopped(), "{again:?}");
    hold(&mut input, EVER, EVER);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let told = read_all(&mut child, |_| {});
    assert!(child.wait().unwrap().success());
    assert_eq!((told.epochs(), told.figures()), (undisturbed.epochs(), undisturbed.figures()));
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_figures() {
    let spec = tiny();
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    for attempt in 1..=3 {
        let (mut child, _input) = spawn(&spec, cut.path(), attempt, &[]);
        let pid = rustix::process::Pid::from_child(&child);
        // At its first report of an epoch: other files are being written just then.
        read_all(&mut child, |report| {
            if matches!(&report.body, Some(Body::Epoch(epoch)) if epoch.epoch == attempt) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        });
        assert!(!child.wait().unwrap().success());
    }
    let last = run(&spec, cut.path(), 4, None);
    assert!(last.started().resumed_at_epoch >= 2);
    assert_eq!((last.epochs(), last.figures()), (undisturbed.epochs(), undisturbed.figures()));
}

#[test]
fn failures_carry_their_class_and_exit_0() {
    let mut missing = recipe(Arch::CondenseNet, Dataset::Cifar10);
    missing.name = "missing".to_owned();
    (missing.model.stages, missing.model.growth) = (tiny().model.stages, tiny().model.growth);
    let mut diverging = tiny();
    diverging.train.lr = 1e30;
    let mut too_short = tiny();
    (too_short.train.epochs, too_short.train.batch_size) = (1, 1000);
    let cases = [
        (missing, FailureClass::DataMissing, "cnx data fetch cifar10"),
        (diverging, FailureClass::Diverged, "loss at step"),
        (too_short, FailureClass::BadSpec, "condensing is not over"),
    ];
    for (spec, class, part) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, _input) = spawn(&spec, folder.path(), 1, &[]);
        let told = read_all(&mut child, |_| {});
        assert!(child.wait().unwrap().success());
        told.started();
        let outcome = told.outcome();
        assert_eq!(outcome.failure(), class, "{}", outcome.message);
        assert!(outcome.message.contains(part), "{}", outcome.message);
    }
}

fn worker(arguments: &[&str]) -> Output {
    Command::new(WORKER).args(arguments).output().unwrap()
}

#[test]
fn models_are_evaluated_and_converted_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(&tiny(), folder.path(), 1, None);
    let at = |name: &str| folder.path().join("experiments/1").join(name).display().to_string();
    let errors = |model: &str| -> serde_json::Value {
        let output = worker(&["evaluate", model, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (large, converted) = (told.figures().r#final.unwrap(), told.figures().converted.unwrap());
    let found = errors(&at("final-a1.safetensors"));
    assert_eq!((&found["top1_error"], &found["model"]), (&large.top1_error.into(), &"large".into()));
    assert_eq!(found["images"], 60);
    assert_eq!(errors(&at("checkpoint-0005-a1.safetensors"))["model"], "large");

    let out = at("by-hand.safetensors");
    let output = worker(&["convert", &at("checkpoint-0006-a1.safetensors"), "-o", &out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = errors(&out);
    assert_eq!((&found["top1_error"], &found["model"]), (&converted.top1_error.into(), &"converted".into()));
    let by_hand = std::fs::read(&out).unwrap();
    assert!(by_hand == std::fs::read(at("converted-a1.safetensors")).unwrap());

    // Cut in half.
    std::fs::write(&out, &by_hand[..by_hand.len() / 2]).unwrap();
    let output = worker(&["evaluate", &out]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("by-hand.safetensors: not a whole safetensors file"), "{error}");
}
