//! Specs of small networks, and how far logits are from those of plain loops.

// A test may panic; and not every test uses all of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use cnx_engine::{Instructions, Model, Runner, reference, sample};
use cnx_formats::StateDict;
use cnx_proto::Spec;
use cnx_proto::dashed::Dashed;
use cnx_proto::spec::{Arch, Dataset};

/// The paper's recipe with these stages.
pub fn spec(arch: Arch, dataset: Dataset, stages: &[u32], growth: &[u32]) -> Spec {
    let mut spec = cnx_proto::recipe::recipe(arch, dataset);
    spec.name = "sample".to_owned();
    spec.model.stages = Dashed(stages.to_vec());
    spec.model.growth = Dashed(growth.to_vec());
    spec
}

/// Those that this CPU has.
pub fn instructions() -> Vec<Instructions> {
    let spec = spec(Arch::CondenseNet, Dataset::Cifar10, &[1], &[4]);
    let state = sample::state(&spec, cnx_proto::architecture::Form::Converted, 0);
    let has = |&i: &Instructions| Model::new(&spec, &state).unwrap().with_instructions(i).is_ok();
    Instructions::ALL.into_iter().filter(has).collect()
}

/// The largest difference of two logits, relative to the largest logit.
pub fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|x| x.is_finite()), "{found:?}");
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let apart = found.iter().zip(expected).fold(0.0f64, |most, (a, b)| most.max((f64::from(*a) - b).abs()));
    apart / largest
}

/// Runs a model on some images twice, on some threads, with every instruction set, and holds each to the plain loops.
pub fn hold(spec: &Spec, state: &StateDict, threads: &[usize], count: usize) {
    let images = sample::images(spec, count, 1);
    let size = spec.data.dataset.image_size() as usize;
    let classes = spec.data.dataset.classes() as usize;
    let expected: Vec<Vec<f64>> =
        images.chunks(3 * size * size).map(|image| reference::logits(spec, state, image)).collect();
    for instructions in instructions() {
        let model = Model::new(spec, state).unwrap().with_instructions(instructions).unwrap();
        let model = Arc::new(model);
        for &threads in threads {
            let mut runner = Runner::new(model.clone(), NonZeroUsize::new(threads).unwrap());
            for turn in 0..2 {
                let logits = runner.logits(&images).unwrap();
                for (logits, expected) in logits.chunks(classes).zip(&expected) {
                    let apart = difference(logits, expected);
                    assert!(
                        apart < 1e-5,
                        "{apart:e} apart: {instructions}, {threads} threads, turn {turn}, {:?}",
                        spec.model
                    );
                }
            }
        }
    }
}
