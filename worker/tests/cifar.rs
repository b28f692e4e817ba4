//! A short real training on CIFAR-10, where `CNX_TEST_CIFAR` names a folder that holds some of it in the binary format.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Engine, Step};
use cnx_proto::v1::{Errors, outcome::Kind};
use common::run;
use sha2::{Digest, Sha256};

#[test]
fn a_few_epochs_on_cifar_10_end_well_above_chance() {
    let Some(root) = std::env::var_os("CNX_TEST_CIFAR").filter(|value| !value.is_empty()) else {
        println!("not run: set CNX_TEST_CIFAR to a folder with data_batch_1.bin and test_batch.bin");
        return;
    };
    let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
    spec.name = "cifar-smoke".to_owned();
    spec.model.stages = serde_json::from_value("2-2-2".into()).unwrap();
    spec.model.growth = serde_json::from_value("8-16-32".into()).unwrap();
    (spec.data.root, spec.data.train_images) = (Some(root.into()), Some(2000));
    (spec.train.epochs, spec.train.batch_size) = (4, 32);
    let folder = tempfile::tempdir().unwrap();
    let told = run(&spec, folder.path(), 1, None);
    assert_eq!(told.outcome().kind(), Kind::Succeeded, "{}", told.outcome().message);
    // Chance is 90 %.
    let (large, converted) = (told.figures().r#final.unwrap(), told.figures().converted.unwrap());
    println!("top-1 error {:.1} %, converted {:.1} %", large.top1_error, converted.top1_error);
    assert!(large.top1_error < 75.0, "top-1 error {} %", large.top1_error);
    // And the native engine says the same of the whole set.
    let file = folder.path().join("experiments/1/converted-a1.safetensors");
    let hash = Sha256::digest(std::fs::read(&file).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    let mut native = spec.job(vec![Step::EvaluateConverted], file.display().to_string(), hash);
    native.run.engine = Engine::Native;
    let natively = run(&native, folder.path(), 1, None).figures().converted.unwrap();
    let counts = |e: &Errors| (e.images, e.top1_error, e.top5_error);
    assert_eq!(counts(&natively), counts(&converted));
    assert!(converted.top1_error < 80.0, "converted: top-1 error {} %", converted.top1_error);
}
