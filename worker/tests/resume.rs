//! An attempt that goes on from a checkpoint computes, to the bit, what an undisturbed one computes.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use cnx_proto::v1::{FailureClass, outcome::Kind};
use common::{Told, run, tiny};

/// The bytes of a model; its metadata hold the spec, its tensors everything else.
fn model(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join("experiments/1").join(name)).unwrap()
}

fn assert_same_end(undisturbed: (&Told, &Path), resumed: (&Told, &Path)) {
    assert_eq!(undisturbed.0.epochs(), resumed.0.epochs());
    assert_eq!(undisturbed.0.figures(), resumed.0.figures());
    for name in ["final", "converted"] {
        let [first, second] = [(undisturbed.1, 1), (resumed.1, 2)]
            .map(|(folder, attempt)| model(folder, &format!("{name}-a{attempt}.safetensors")));
        assert!(first == second, "{name} differs");
    }
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
        // The stop is seen at the next step or, if it came late, the one after: an epoch may have been finished.
        assert!(second.started().resumed_at_epoch >= stop_after);
        assert_same_end((&undisturbed, whole.path()), (&second, cut.path()));
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
        let newest = first.epochs().last().unwrap().epoch;
        let path = cut.path().join(format!("experiments/1/checkpoint-{newest:04}-a1.safetensors"));
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();

        let second = run(&spec, cut.path(), 2, None);
        assert_eq!(second.started().resumed_at_epoch, newest - 1);
        assert_same_end((&undisturbed, whole.path()), (&second, cut.path()));
    }
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
    let mut there: Vec<String> = fs::read_dir(folder.path().join("experiments/1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".sha256"))
        .collect();
    there.sort();
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
