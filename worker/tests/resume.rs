//! An attempt that goes on from a checkpoint computes, to the bit, what an undisturbed one computes, wherever the one before was
//! stopped and however it ended.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::spec::Kernels;
use cnx_proto::v1::{FailureClass, outcome::Kind, report::Body};
use cnx_worker::stop::Stop;
use common::{NEVER, Told, read_all, run, run_with, spawn, tiny};
use rustix::process::Signal;

/// 35 steps in 7 epochs of 5. The condensing stages begin at the steps 6, 12 and 18 (from 0): in the middle of epochs. Dropout
/// is on, and three threads prepare batches.
fn eventful() -> Spec {
    let mut spec = tiny();
    (spec.train.epochs, spec.data.workers) = (7, 3);
    spec
}

/// The bytes of a model; its metadata hold the spec, its tensors everything else.
fn model(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join("experiments/1").join(name)).unwrap()
}

/// `resumed` by its attempt of this number.
fn assert_same_end(undisturbed: (&Told, &Path), resumed: (&Told, &Path), attempt: u32) {
    let ((whole, whole_folder), (cut, cut_folder)) = (undisturbed, resumed);
    assert_eq!((whole.outcome().kind(), cut.outcome().kind()), (Kind::Succeeded, Kind::Succeeded));
    assert_eq!(bits(whole), bits(cut));
    assert_eq!(whole.figures(), cut.figures());
    for name in ["final", "converted"] {
        let first = model(whole_folder, &format!("{name}-a1.safetensors"));
        let second = model(cut_folder, &format!("{name}-a{attempt}.safetensors"));
        assert!(first == second, "{name} differs");
    }
}

/// All figures of all epochs, without those that measure time, as bits.
fn bits(told: &Told) -> Vec<[u64; 11]> {
    let epochs = told.epochs().into_iter();
    let bits = epochs.map(|e| {
        [
            u64::from(e.epoch),
            e.steps,
            e.learning_rate.to_bits(),
            e.train_loss.to_bits(),
            e.train_top1_error.to_bits(),
            e.lasso.to_bits(),
            e.test_loss.to_bits(),
            e.test_top1_error.to_bits(),
            e.test_top5_error.to_bits(),
            u64::from(e.condensing_stage),
            e.density.to_bits(),
        ]
    });
    bits.collect()
}

/// Files that are there, without their hashes.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.join("experiments/1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".sha256"))
        .collect();
    names.sort();
    names
}

/// Attempts that are each stopped at their check of this number, until all is trained; then an undisturbed one. What the last
/// one told, and its number.
fn chain(spec: &Spec, folder: &Path, at_check: u64) -> (Told, u32) {
    let mut attempt = 1;
    while {
        let told = run_with(spec, folder, attempt, Stop::at_check(at_check), None, NEVER);
        assert_eq!(told.outcome().failure(), FailureClass::Interrupted, "{}", told.outcome().message);
        attempt += 1;
        told.epochs().len() < spec.train.epochs as usize
    } {}
    (run(spec, folder, attempt, None), attempt)
}

#[test]
fn stopped_at_every_step_of_one_training_it_ends_the_same() {
    let spec = eventful();
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    // Each attempt does one step, or one evaluation, which is of one batch.
    let (last, attempts) = chain(&spec, cut.path(), 1);
    assert!(attempts > 35, "{attempts}");
    assert_same_end((&undisturbed, whole.path()), (&last, cut.path()), attempts);
}

#[test]
fn stopped_at_every_step_from_data_on_the_device_it_ends_the_same() {
    let mut spec = eventful();
    spec.resources.kernels = Kernels::Graph;
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    let (last, attempts) = chain(&spec, cut.path(), 1);
    assert!(attempts > 35, "{attempts}");
    assert_same_end((&undisturbed, whole.path()), (&last, cut.path()), attempts);
}

#[test]
fn stopped_within_evaluations_it_ends_the_same() {
    let mut spec = eventful();
    // Two batches.
    spec.data.test_images = Some(300);
    let [whole, cut, twice] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    // Between the two batches of the evaluation after the first epoch, before any checkpoint but this one.
    let first = run_with(&spec, cut.path(), 1, Stop::at_check(6), None, NEVER);
    assert_eq!(first.outcome().failure(), FailureClass::Interrupted);
    assert!(first.epochs().is_empty());
    let second = run(&spec, cut.path(), 2, None);
    assert_eq!(second.started().resumed_from, "experiments/1/checkpoint-0000-s000005-a1.safetensors");
    assert_same_end((&undisturbed, whole.path()), (&second, cut.path()), 2);
    // And wherever each fourth check leads to.
    let (last, attempts) = chain(&spec, twice.path(), 4);
    assert_same_end((&undisturbed, whole.path()), (&last, twice.path()), attempts);
}

#[test]
fn a_stop_before_the_first_step_needs_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let told = run_with(&eventful(), folder.path(), 1, Stop::at_check(0), None, NEVER);
    assert_eq!(told.outcome().failure(), FailureClass::Interrupted);
    assert!(told.artifacts().is_empty() && !folder.path().join("experiments").exists());
}

#[test]
fn checkpoints_in_the_middle_of_epochs_change_nothing_and_only_two_are_kept() {
    let spec = eventful();
    let [whole, often] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    let told = run_with(&spec, often.path(), 1, Stop::default(), None, Duration::ZERO);
    assert_same_end((&undisturbed, whole.path()), (&told, often.path()), 1);
    let middle = told.artifacts().iter().filter(|artifact| artifact.name.contains("-s0000")).count();
    assert!(middle > 0, "{:?}", told.artifacts());
    let there = files(often.path());
    let checkpoints: Vec<&String> = there.iter().filter(|name| name.starts_with("checkpoint-")).collect();
    assert_eq!(checkpoints.len(), 2, "{there:?}");
    assert_eq!(checkpoints[1], "checkpoint-0007-a1.safetensors");
}

#[test]
fn stopped_and_killed_at_random_it_ends_the_same_with_two_threads() {
    let mut spec = eventful();
    spec.resources.threads = 2;
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (mut child, _input) = spawn(&spec, whole.path(), 1, &[]);
    let undisturbed = read_all(&mut child, |_| {});
    assert!(child.wait().unwrap().success());

    let mut random = fastrand::Rng::with_seed(5);
    let mut resumed_in_the_middle = 0;
    const DISTURBED: u32 = 12;
    for attempt in 1..=DISTURBED {
        let (mut child, _input) = spawn(&spec, cut.path(), attempt, &["--checkpoint-every", "0s"]);
        // So many reports after it has started, and then a moment later: in any step, and in the writing of any file.
        let (after, pause) = (random.u32(1..6), Duration::from_micros(random.u64(..30_000)));
        let how = if random.bool() { Signal::TERM } else { Signal::KILL };
        let pid = rustix::process::Pid::from_child(&child);
        let mut heard = 0;
        let told = read_all(&mut child, |report| {
            heard += u32::from(!matches!(report.body, Some(Body::Started(_))));
            if heard == after {
                std::thread::sleep(pause);
                let _ = rustix::process::kill_process(pid, how);
            }
        });
        child.wait().unwrap();
        let started = told.reports.iter().find_map(|report| match &report.body {
            Some(Body::Started(started)) => Some(started.resumed_from.clone()),
            _ => None,
        });
        resumed_in_the_middle += u32::from(started.is_some_and(|from| from.contains("-s0")));
    }
    let (mut child, _input) = spawn(&spec, cut.path(), DISTURBED + 1, &[]);
    let last = read_all(&mut child, |_| {});
    assert!(child.wait().unwrap().success());
    assert!(resumed_in_the_middle > 0);
    assert_same_end((&undisturbed, whole.path()), (&last, cut.path()), DISTURBED + 1);
}

#[test]
fn killed_in_the_middle_of_writing_a_checkpoint_it_uses_the_one_before() {
    let mut spec = eventful();
    spec.model.growth = serde_json::from_value("8-8-16".into()).unwrap();
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    let bytes = undisturbed.artifacts().iter().map(|artifact| artifact.bytes).max().unwrap();
    assert!(bytes > 66_536, "all {bytes} bytes fit into a pipe, and what was read of it");

    // A disk that takes the second epoch's checkpoint as slowly as somebody reads it.
    let folder = cut.path().join("experiments/1");
    fs::create_dir_all(&folder).unwrap();
    let slow = folder.join("checkpoint-0002-a1.safetensors.a1.part");
    assert!(Command::new("mkfifo").arg(&slow).status().unwrap().success());
    let (mut child, _input) = spawn(&spec, cut.path(), 1, &[]);
    let pid = rustix::process::Pid::from_child(&child);
    let reader = std::thread::spawn(move || {
        // Opens once the child writes.
        let mut slow = File::open(slow).unwrap();
        slow.read_exact(&mut [0; 1000]).unwrap();
        slow
    });
    let mut trained_on = false;
    let told = read_all(&mut child, |report| {
        if let Some(Body::Progress(progress)) = &report.body
            && progress.epoch > 2
            && !trained_on
        {
            // It did not wait for the disk.
            trained_on = true;
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
    });
    child.wait().unwrap();
    drop(reader.join().unwrap());
    assert!(trained_on);
    let epochs: Vec<u32> = told.epochs().iter().map(|epoch| epoch.epoch).collect();
    assert_eq!(epochs, [1], "an epoch is told of once its checkpoint is on the disk");

    let second = run(&spec, cut.path(), 2, None);
    assert_eq!(second.started().resumed_from, "experiments/1/checkpoint-0001-a1.safetensors");
    assert_same_end((&undisturbed, whole.path()), (&second, cut.path()), 2);
    assert!(files(cut.path()).iter().all(|name| !name.ends_with(".part")));
}

#[test]
fn a_disk_that_refuses_a_checkpoint_ends_the_attempt_and_tells_of_no_epoch_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = folder.path().join("experiments/1");
    fs::create_dir_all(&experiment).unwrap();
    // Every write there fails with "no space left on device".
    let full = experiment.join("checkpoint-0002-a1.safetensors.a1.part");
    std::os::unix::fs::symlink("/dev/full", full).unwrap();
    let told = run(&eventful(), folder.path(), 1, None);
    assert_eq!(told.outcome().failure(), FailureClass::DiskFull, "{}", told.outcome().message);
    assert_eq!(told.epochs().len(), 1);
}

#[test]
fn stopping_after_any_epoch_changes_nothing() {
    let spec = tiny();
    let whole = tempfile::tempdir().unwrap();
    let undisturbed = run(&spec, whole.path(), 1, None);
    assert_eq!(undisturbed.outcome().kind(), Kind::Succeeded);
    assert_eq!(undisturbed.epochs().len(), 6);

    // Before, between and after the condensing stages, and before the last epoch.
    for stop_after in [1, 2, 3, 5] {
        let cut = tempfile::tempdir().unwrap();
        let first = run(&spec, cut.path(), 1, Some(stop_after));
        assert_eq!(first.outcome().failure(), FailureClass::Interrupted);
        let second = run(&spec, cut.path(), 2, None);
        assert!(second.started().resumed_at_epoch >= stop_after);
        assert_same_end((&undisturbed, whole.path()), (&second, cut.path()), 2);
    }
}

#[test]
fn more_loader_threads_change_nothing() {
    let [one, three] = [1, 3].map(|workers| {
        let mut spec = tiny();
        (spec.data.workers, spec.train.epochs) = (workers, 2);
        let folder = tempfile::tempdir().unwrap();
        run(&spec, folder.path(), 1, None).epochs()
    });
    assert_eq!(one, three);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before_it() {
    let spec = tiny();
    let whole = tempfile::tempdir().unwrap();
    let undisturbed = run(&spec, whole.path(), 1, None);

    let damage: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes[5000] ^= 4, |bytes| bytes.clear()];
    for damage in damage {
        let cut = tempfile::tempdir().unwrap();
        let first = run(&spec, cut.path(), 1, Some(3));
        let newest = first.artifacts().pop().unwrap().name;
        let path = cut.path().join(&newest);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();

        let second = run(&spec, cut.path(), 2, None);
        let resumed_from = second.started().resumed_from;
        assert!(!resumed_from.is_empty() && resumed_from < newest, "{resumed_from}, {newest}");
        assert_same_end((&undisturbed, whole.path()), (&second, cut.path()), 2);
    }
}

#[test]
fn a_damaged_checkpoint_does_not_count_among_the_two_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = |attempt, at_check| {
        run_with(&eventful(), folder.path(), attempt, Stop::at_check(at_check), None, NEVER);
        files(folder.path())
    };
    stopped(1, 2);
    let [first, damaged] = [1, 2].map(|of| format!("checkpoint-0000-s00000{}-a{of}.safetensors", 2 * of));
    assert_eq!(stopped(2, 2), [first.as_str(), &damaged]);
    fs::write(folder.path().join("experiments/1").join(&damaged), "").unwrap();
    let third = "checkpoint-0000-s000003-a3.safetensors";
    assert_eq!(stopped(3, 1), [first.as_str(), third, &damaged]);
}

#[test]
fn a_finished_training_is_only_evaluated_again() {
    let spec = tiny();
    let folder = tempfile::tempdir().unwrap();
    let first = run(&spec, folder.path(), 1, None);
    let second = run(&spec, folder.path(), 2, None);
    assert_eq!(second.started().resumed_at_epoch, 6);
    assert_eq!((first.epochs(), first.figures()), (second.epochs(), second.figures()));
    // Its models have taken the place of the first attempt's.
    for name in ["final", "converted"] {
        let of = |attempt: u32| folder.path().join(format!("experiments/1/{name}-a{attempt}.safetensors"));
        assert!(of(2).exists() && !of(1).exists(), "{name}");
    }
}

#[test]
fn a_checkpoint_of_another_spec_is_not_gone_on_from() {
    let mut spec = tiny();
    spec.train.epochs = 1;
    spec.run.steps.truncate(2);
    let folder = tempfile::tempdir().unwrap();
    run(&spec, folder.path(), 1, None);
    spec.train.lr = 0.05;
    let other = run(&spec, folder.path(), 2, None);
    assert_eq!((other.started().resumed_at_epoch, other.outcome().kind()), (0, Kind::Succeeded));
}

#[test]
fn two_checkpoints_are_kept_and_every_hash_fits() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(&tiny(), folder.path(), 1, None);
    let there = files(folder.path());
    let expected = [
        "best-a1.safetensors",
        "checkpoint-0005-a1.safetensors",
        "checkpoint-0006-a1.safetensors",
        "converted-a1.safetensors",
        "final-a1.safetensors",
    ];
    assert_eq!(there, expected);
    let artifacts = told.artifacts();
    let deleted: Vec<&String> = artifacts.iter().flat_map(|artifact| &artifact.deleted).collect();
    assert_eq!(deleted.len(), 4);
    for name in there {
        let artifact = artifacts.iter().rev().find(|artifact| artifact.name.ends_with(&name)).unwrap();
        let path = folder.path().join(&artifact.name);
        assert_eq!(artifact.bytes, fs::metadata(&path).unwrap().len());
        let line = fs::read_to_string(format!("{}.sha256", path.display())).unwrap();
        assert_eq!(line, format!("{}  {name}\n", artifact.sha256));
    }
}
