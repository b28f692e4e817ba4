//! What the reference saved, in its own files, computes here what it computed there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cnx_formats::check::{Listed, check};
use cnx_formats::{checkpoint, safetensors};
use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_worker::data::batches::Normalisation;
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Form, Mode, Network};
use cnx_worker::tensor_file;
use tch::{Device, Kind, Tensor};

/// Images that the fixture's logits are of: its last.
const IMAGES: i64 = 4;
const TOLERANCE: f64 = 1e-5;

fn worker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn spec() -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
    "condensenet-c4".clone_into(&mut spec.name);
    spec.model.stages = serde_json::from_value("2-2-2".into()).unwrap();
    spec.model.growth = serde_json::from_value("4-8-16".into()).unwrap();
    spec
}

/// The logits of the fixture's images through a checkpoint of the reference, brought in as `cnx import` does.
fn logits(file: &str, form: Form, spec: &Spec, fixture: &BTreeMap<String, Tensor>) -> Vec<f64> {
    let path = worker().parent().unwrap().join("formats/tests/fixtures").join(file);
    let found = checkpoint::read(&std::fs::read(path).unwrap()).unwrap();
    let report = check(&found.state, spec);
    assert!(report.problems.is_empty(), "{file}: {}", Listed(&report));
    assert_eq!(report.form, form, "{file}");

    let model = tensor_file::decode(&safetensors::write(&found.state).unwrap()).unwrap();
    let mut network = Network::new(spec, form, Device::Cpu).unwrap();
    network.load(&model.tensors).unwrap();
    let images = &fixture["images"];
    let last = images.narrow(0, images.size()[0] - IMAGES, IMAGES);
    let images = Normalisation::new(spec, Kind::Float, Device::Cpu).unwrap().apply(&last).unwrap();
    to_host(&tch::no_grad(|| network.forward(&images, Mode::Evaluate)).unwrap()).unwrap()
}

#[test]
fn the_reference_s_checkpoints_compute_the_reference_s_logits() {
    tch::set_num_threads(1);
    let bytes = std::fs::read(worker().join("tests/fixtures/condensenet-c4.safetensors")).unwrap();
    let (fixture, spec) = (tensor_file::decode(&bytes).unwrap().tensors, spec());
    for (file, form, expected) in [
        ("condensenet-c4.zip.pth.tar", Form::Large, "eval.logits"),
        ("condensenet-c4.legacy.pth.tar", Form::Large, "eval.logits"),
        ("condensenet-c4.converted.legacy.pth.tar", Form::Converted, "converted.logits"),
    ] {
        let expected = to_host(&fixture[expected]).unwrap();
        let found = logits(file, form, &spec, &fixture);
        assert_eq!(found.len(), expected.len(), "{file}");
        let apart = expected.iter().zip(&found).map(|(e, f)| (e - f).abs()).fold(0.0, f64::max);
        println!("{file}: {apart:.1e} apart");
        assert!(apart <= TOLERANCE, "{file}: {apart} apart");
    }
}
