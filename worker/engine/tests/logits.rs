//! The engine's logits against plain loops in double precision.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use cnx_engine::{Model, Runner, reference, sample};
use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::spec::{Arch, Dataset};

fn spec(arch: Arch, stages: &[u32], growth: &[u32]) -> Spec {
    let mut spec = cnx_proto::recipe::recipe(arch, Dataset::Cifar10);
    spec.name = "sample".to_owned();
    spec.model.stages = cnx_proto::dashed::Dashed(stages.to_vec());
    spec.model.growth = cnx_proto::dashed::Dashed(growth.to_vec());
    spec
}

/// The largest difference of two logits, relative to the largest logit.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let apart = found.iter().zip(expected).fold(0.0f64, |most, (a, b)| most.max((f64::from(*a) - b).abs()));
    apart / largest
}

#[test]
fn a_converted_model_s_file_gives_its_logits() {
    let spec = spec(Arch::CondenseNet, &[1, 1, 1], &[8, 16, 32]);
    let state = sample::state(&spec, Form::Converted, 1);
    let model = Model::decode(&cnx_formats::safetensors::write(&state).unwrap()).unwrap();
    assert_eq!(model.spec(), &spec);
    let images = sample::images(&spec, 2, 1);
    let mut runner = Runner::new(Arc::new(model), NonZeroUsize::MIN);
    let logits = runner.logits(&images).unwrap();
    for (image, logits) in images.chunks(3 * 32 * 32).zip(logits.chunks(10)) {
        assert!(difference(logits, &reference::logits(&spec, &state, image)) < 1e-5);
    }
}
