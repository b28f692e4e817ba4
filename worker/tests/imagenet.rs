//! Training on ImageNet's layout: class folders and packs that the tests make, of a few small JPEGs.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use cnx_images::decode::encode_jpeg;
use cnx_images::folder::{Folders, SPLITS};
use cnx_images::pack::{Options, pack};
use cnx_images::raster::Raster;
use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Kernels, Precision, Step};
use cnx_proto::v1::FailureClass;
use cnx_proto::v1::outcome::Kind;
use cnx_worker::data::{self, batches};
use cnx_worker::stop::Stop;
use common::{NEVER, run, run_with};
use tch::Device;

const CLASSES: [&str; 3] = ["n01440764", "n01443537", "n02102040"];

/// A picture of its class: stripes of another width and colour each, of another size and brightness each time.
fn picture(class: u32, number: u32) -> Vec<u8> {
    let (width, height) = (60 + 7 * (number % 5), 50 + 11 * (number % 3));
    let pixel = |x: u32, y: u32| {
        let stripe = (x / (2 + 3 * class) + y / 9) % 2 * 120;
        [0, 1, 2].map(|channel| (stripe + if channel == class { 100 } else { 13 * (number % 7) }) as u8)
    };
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    encode_jpeg(&Raster { width, height, pixels }, 90).unwrap()
}

/// Eight training and three test images of each class.
fn folders(root: &Path) -> PathBuf {
    let set = root.join("imagenet");
    for (split, numbers) in [("train", 0..8), ("val", 8..11)] {
        for (class, name) in (0..).zip(CLASSES) {
            fs::create_dir_all(set.join(split).join(name)).unwrap();
            for number in numbers.clone() {
                fs::write(
                    set.join(split).join(name).join(format!("{name}_{number}.JPEG")),
                    picture(class, number),
                )
                .unwrap();
            }
        }
    }
    set
}

fn packed(set: &Path, out: &Path) {
    let folders = Folders::open(set).unwrap();
    let splits = SPLITS.map(|split| (split, folders.list(split).unwrap()));
    pack(&folders, &splits, out, Options { shard_bytes: 8000, shorter_side: None }, &mut |_, _| {}).unwrap();
}

/// A CondenseNet of ImageNet's shape and 1000 classes that takes a second or two.
fn small(root: &Path) -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::ImageNet);
    spec.name = "small".to_owned();
    spec.model.stages = serde_json::from_value("1-1-1-1-1".into()).unwrap();
    spec.model.growth = serde_json::from_value("4-4-4-4-8".into()).unwrap();
    spec.data.root = Some(root.to_path_buf());
    (spec.train.epochs, spec.train.batch_size) = (2, 10);
    spec.resources.threads = 1;
    spec
}

#[test]
fn folders_and_their_pack_give_the_same_figures_on_any_number_of_threads() {
    let root = tempfile::tempdir().unwrap();
    let set = folders(root.path());
    packed(&set, &root.path().join("elsewhere/imagenet-packed"));
    let train = |data: &Path, workers: u32, artifacts: &str| {
        let mut spec = small(data);
        spec.data.workers = workers;
        let folder = root.path().join(artifacts);
        fs::create_dir(&folder).unwrap();
        let told = run(&spec, &folder, 1, None);
        assert_eq!(told.outcome().kind(), Kind::Succeeded, "{}", told.outcome().message);
        told
    };
    // By the set's own folder, and by the one that holds it.
    let one = train(&set, 1, "one");
    let three = train(root.path(), 3, "three");
    let pack = train(&root.path().join("elsewhere"), 2, "two");
    assert_eq!(one.epochs(), three.epochs());
    assert_eq!(one.epochs(), pack.epochs());
    assert_eq!(one.figures(), pack.figures());
    assert_eq!(one.figures().r#final.unwrap().images, 9);
    let hash = |told: &common::Told| told.started().environment.unwrap().data_hash;
    assert_eq!(hash(&one), hash(&three));
    assert!(hash(&pack).len() == 64 && hash(&pack) != hash(&one), "of the bytes, and of names and sizes");
}

#[test]
fn a_damaged_image_is_passed_over_and_a_resumed_run_sees_the_same() {
    let root = tempfile::tempdir().unwrap();
    let set = folders(root.path());
    let broken = set.join("train/n01443537/n01443537_3.JPEG");
    fs::write(&broken, &fs::read(&broken).unwrap()[..200]).unwrap();
    fs::write(set.join("val/n01440764/n01440764_9.JPEG"), "no image").unwrap();
    let spec = small(&set);
    let artifacts = ["whole", "parts"].map(|name| root.path().join(name));
    artifacts.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let whole = run(&spec, &artifacts[0], 1, None);
    assert_eq!(whole.outcome().kind(), Kind::Succeeded, "{}", whole.outcome().message);
    assert_eq!(whole.figures().r#final.unwrap().images, 8, "the damaged one is not counted");
    run(&spec, &artifacts[1], 1, Some(1));
    let resumed = run(&spec, &artifacts[1], 2, None);
    // Later, where an epoch was over before the disk had the one before.
    assert!(resumed.started().resumed_at_epoch >= 1);
    assert_eq!(whole.epochs(), resumed.epochs());
    assert_eq!(whole.figures(), resumed.figures());
}

#[test]
fn steps_that_are_fed_from_files_are_the_same_steps_and_resume_to_the_bit() {
    let root = tempfile::tempdir().unwrap();
    let mut spec = small(&folders(root.path()));
    spec.train.precision = Precision::Float64;
    let artifacts = ["host", "fed", "cut"].map(|name| root.path().join(name));
    for folder in &artifacts {
        fs::create_dir(folder).unwrap();
    }
    let host = run(&spec, &artifacts[0], 1, None);
    spec.resources.kernels = Kernels::Graph;
    let fed = run(&spec, &artifacts[1], 1, None);
    assert_eq!(host.epochs(), fed.epochs());
    run_with(&spec, &artifacts[2], 1, Stop::at_check(1), None, NEVER);
    let resumed = run(&spec, &artifacts[2], 2, None);
    assert!(resumed.started().resumed_from.contains("-s000001-"), "{:?}", resumed.started());
    assert_eq!((fed.epochs(), fed.figures()), (resumed.epochs(), resumed.figures()));
}

#[test]
fn too_many_damaged_images_end_the_attempt_and_are_named() {
    let root = tempfile::tempdir().unwrap();
    let set = folders(root.path());
    let broken = [set.join("train/n01440764/n01440764_1.JPEG"), set.join("train/n02102040/n02102040_6.JPEG")];
    fs::write(&broken[0], "").unwrap();
    fs::write(&broken[1], "GIF89a").unwrap();
    let told = run(&small(&set), root.path(), 1, None);
    let outcome = told.outcome();
    assert_eq!(outcome.failure(), FailureClass::DataMissing);
    for part in
        ["n01440764_1.JPEG: the file is empty", "n02102040_6.JPEG: unknown first bytes", "cnx data verify"]
    {
        assert!(outcome.message.contains(part), "{}", outcome.message);
    }
}

#[test]
fn a_damaged_shard_is_named() {
    let root = tempfile::tempdir().unwrap();
    let set = folders(root.path());
    let out = root.path().join("packed");
    packed(&set, &out);
    let shard = out.join("train-00000.shard");
    let mut bytes = fs::read(&shard).unwrap();
    bytes.iter_mut().skip(100).step_by(1000).for_each(|byte| *byte ^= 1);
    fs::write(&shard, bytes).unwrap();
    let outcome = run(&small(&out), root.path(), 1, None).outcome();
    assert_eq!(outcome.failure(), FailureClass::DataMissing);
    assert!(outcome.message.contains("train-00000.shard is damaged"), "{}", outcome.message);
}

#[test]
fn an_epoch_can_be_entered_at_any_batch() {
    let root = tempfile::tempdir().unwrap();
    let mut spec = small(&folders(root.path()));
    spec.train.batch_size = 7;
    let data = data::load(&spec, None).unwrap();
    let bytes = |batch: batches::Batch| {
        let labels: Vec<i64> = Vec::try_from(&batch.labels).unwrap();
        (labels, Vec::<u8>::try_from(batch.images.flatten(0, -1)).unwrap(), batch.images.size())
    };
    let all: Vec<_> =
        batches::training(&data.train, &spec, 3, Device::Cpu).map(|b| bytes(b.unwrap())).collect();
    assert_eq!(all.iter().map(|batch| batch.0.len()).collect::<Vec<_>>(), [7, 7, 7, 3]);
    assert_eq!(all[0].2, [7, 3, 224, 224]);
    for first in 0..6 {
        let rest =
            batches::training_from(&data.train, &spec, 3, first, Device::Cpu).map(|b| bytes(b.unwrap()));
        assert!(rest.eq(all.iter().skip(first).cloned()), "from batch {first}");
    }
}

#[test]
fn the_first_images_are_of_all_classes() {
    let root = tempfile::tempdir().unwrap();
    let mut spec = small(&folders(root.path()));
    (spec.data.train_images, spec.data.test_images) = (Some(6), Some(3));
    let data = data::load(&spec, None).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (6, 3));
    let labels = batches::in_order(&data.train, &spec, 100, Device::Cpu).next().unwrap().unwrap().labels;
    assert_eq!(Vec::<i64>::try_from(&labels).unwrap(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn to_measure_a_model_takes_no_training_images() {
    let root = tempfile::tempdir().unwrap();
    let set = folders(root.path());
    fs::remove_dir_all(set.join("train")).unwrap();
    let spec = small(&set);
    assert_eq!(data::load_test(&spec, None).unwrap().test.len(), 9);
    let failure = data::load(&spec, None).unwrap_err();
    assert!(
        failure.class == FailureClass::DataMissing && failure.message.contains("has no train"),
        "{failure}"
    );
}

#[test]
fn what_is_laid_out_otherwise_is_refused_with_what_was_expected() {
    let root = tempfile::tempdir().unwrap();
    let mut spec = small(root.path());
    spec.run.steps = vec![Step::Train, Step::Evaluate];
    let said = || data::load(&spec, None).unwrap_err().message;
    assert!(said().contains("no imagenet in") && said().contains("cnx data pack"), "{}", said());
    // As the archive of test images unpacks.
    let set = folders(root.path());
    fs::remove_dir_all(set.join("val")).unwrap();
    fs::create_dir(set.join("val")).unwrap();
    fs::write(set.join("val/ILSVRC2012_val_00000001.JPEG"), picture(0, 0)).unwrap();
    assert!(said().contains("1 images that lie in none"), "{}", said());
    for class in 0..1001 {
        fs::create_dir_all(set.join(format!("train/n{class:08}"))).unwrap();
        fs::write(set.join(format!("train/n{class:08}/1.JPEG")), "").unwrap();
    }
    fs::remove_dir_all(set.join("val")).unwrap();
    spec.data.test_images = Some(0);
    let failure = data::load(&spec, None).unwrap_err();
    assert!(failure.message.contains("has 1004 classes, expected at most imagenet's 1000"), "{failure}");
}
