//! The step by cnx-kernels is the step by libtorch: from the same state, both come within rounding of the step in double
//! precision, at every condensing stage, whatever the shape of the network.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Kernels, Model, Precision};
use cnx_worker::cpu_step::CpuStep;
use cnx_worker::data::batches::{Batch, Normalisation};
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Form, Mode, Network};
use cnx_worker::optimizer::Sgd;
use cnx_worker::step::{StepFigures, StepSettings, train_step};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// Relative to the largest element of tensors of a kind. The gradients of some batch norms are small differences of large sums:
/// what follows a shift in the network is normalised again.
const TOLERANCE: f64 = 5e-4;

/// Where libtorch's own step in single precision is further off than that (sums that cancel), so many times as far.
const TIMES: f64 = 3.0;

struct Trainer {
    spec: Spec,
    network: Network,
    optimizer: Sgd,
    normalisation: Normalisation,
    cpu_step: Option<CpuStep>,
}

impl Trainer {
    fn new(spec: &Spec, precision: Precision, threads: usize) -> Trainer {
        let mut spec = spec.clone();
        spec.train.precision = precision;
        let network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        let optimizer = Sgd::new(network.state(), &spec.train).unwrap();
        let normalisation = Normalisation::new(&spec, network.state().kind(), Device::Cpu).unwrap();
        let cpu_step = CpuStep::with_threads(&spec, &network, threads).unwrap();
        Trainer { spec, network, optimizer, normalisation, cpu_step }
    }

    fn adopt(&mut self, other: &Trainer) {
        self.network.load(&other.network.state().snapshot().unwrap()).unwrap();
        self.optimizer.load(&other.optimizer.snapshot().unwrap()).unwrap();
    }

    fn step(&mut self, batch: &Batch, step: u64, stage: u32) -> StepFigures {
        let Trainer { spec, network, optimizer, normalisation, cpu_step } = self;
        network.condense_to(stage).unwrap();
        let settings = StepSettings { step, learning_rate: 0.1, train: &spec.train };
        match cpu_step {
            Some(cpu_step) => cpu_step.step(network, optimizer, normalisation, batch, &settings).unwrap(),
            None => train_step(network, optimizer, normalisation, batch, &settings).unwrap(),
        }
    }

    fn state(&self) -> BTreeMap<String, Vec<f64>> {
        let mut tensors = self.network.state().snapshot().unwrap();
        tensors.extend(self.optimizer.snapshot().unwrap());
        tensors.into_iter().map(|(name, tensor)| (name, to_host(&tensor).unwrap())).collect()
    }
}

fn spec(stages: &str, growth: &str, change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
    let dashed = |text: &str| serde_json::from_value(text.into()).unwrap();
    (spec.model.stages, spec.model.growth) = (dashed(stages), dashed(growth));
    spec.name = "small".to_owned();
    change(&mut spec);
    assert!(Spec::from_json(&spec.to_json()).is_ok(), "{:?}", Spec::from_json(&spec.to_json()));
    spec
}

fn batch(images: i64, seed: i64) -> Batch {
    tch::manual_seed(seed);
    let pixels = Tensor::randint(256, [images, 3, 32, 32], (Kind::Uint8, Device::Cpu));
    Batch { images: pixels, labels: Tensor::randint(10, [images], (Kind::Int64, Device::Cpu)) }
}

/// Batches that a step is tried on before it counts as wrong. Where an activation lies within rounding of zero, a ReLU may open
/// in one precision and not in the other, which moves sums that cancel by more than rounding does. Such a batch is rare (one in
/// some hundreds), so other images tell it from a step that is wrong.
const BATCHES: i64 = 3;

/// Some steps at each condensing stage; the truth is in double precision, by libtorch.
fn check(spec: &Spec, images: i64, threads: usize) {
    let mut truth = Trainer::new(spec, Precision::Float64, threads);
    let mut kernels = Trainer::new(spec, Precision::Float32, threads);
    assert!(truth.cpu_step.is_none() && kernels.cpu_step.is_some());
    let mut libtorch = Trainer::new(spec, Precision::Float32, threads);
    libtorch.cpu_step = None;
    let mut start = Trainer::new(spec, Precision::Float64, threads);
    let mut step = 0;
    for stage in 0..spec.model.condense_factor {
        for images in [images, 1 + images / 3] {
            start.adopt(&truth);
            let differences: Vec<String> = (0..BATCHES)
                .map_while(|draw| {
                    for trainer in [&mut truth, &mut kernels, &mut libtorch] {
                        trainer.adopt(&start);
                    }
                    let batch = batch(images, step as i64 + draw * 1000);
                    step_alike(&mut truth, &mut libtorch, &mut kernels, &batch, step, stage).err()
                })
                .collect();
            assert!(differences.len() < BATCHES as usize, "step {step} at stage {stage}: {differences:#?}");
            step += 1;
        }
    }
}

/// One step of each from the same state, on the same batch: what differs, if anything.
fn step_alike(
    truth: &mut Trainer,
    libtorch: &mut Trainer,
    kernels: &mut Trainer,
    batch: &Batch,
    step: u64,
    stage: u32,
) -> Result<(), String> {
    let expected = told(&truth.step(batch, step, stage));
    let found = told(&kernels.step(batch, step, stage));
    libtorch.step(batch, step, stage);
    for (what, expected, found) in [("loss", expected[0], found[0]), ("lasso", expected[2], found[2])] {
        if (expected - found).abs() > TOLERANCE * expected.abs() {
            return Err(format!("{what} is {found}, expected {expected}"));
        }
    }
    if expected[1] != found[1] {
        return Err(format!("{} images are right, expected {}", found[1], expected[1]));
    }
    compare(&truth.state(), &libtorch.state(), &kernels.state())
}

/// Loss, images that were right, lasso.
fn told(figures: &StepFigures) -> [f64; 3] {
    let lasso = figures.lasso.as_ref().map_or(0.0, |lasso| lasso.double_value(&[]));
    [figures.loss.double_value(&[]), figures.right.double_value(&[]), lasso]
}

type State = BTreeMap<String, Vec<f64>>;

fn compare(truth: &State, libtorch: &State, kernels: &State) -> Result<(), String> {
    // Of the same kind: names that differ in the layer only.
    let kind = |name: &str| -> String {
        let parts: Vec<&str> = name.split('.').collect();
        format!("{}…{}", parts[0], parts[parts.len().saturating_sub(3)..].join("."))
    };
    let mut largest: BTreeMap<String, f64> = BTreeMap::new();
    for (name, values) in truth {
        let largest = largest.entry(kind(name)).or_insert(1e-6);
        *largest = values.iter().fold(*largest, |largest, x| largest.max(x.abs()));
    }
    for (name, expected) in truth {
        let largest = largest[&kind(name)];
        let error = |found: &[f64]| {
            assert_eq!(expected.len(), found.len());
            expected.iter().zip(found).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max)
        };
        let (found, allowed) = (error(&kernels[name]), TOLERANCE.max(TIMES * error(&libtorch[name])));
        if found > allowed {
            return Err(format!("{name} is off by {found:e} of {largest:e}, allowed {allowed:e}"));
        }
    }
    Ok(())
}

#[test]
fn a_step_is_that_of_libtorch_at_every_condensing_stage() {
    check(&spec("2-2-2", "8-16-32", |_| {}), 6, 2);
}

#[test]
fn the_lasso_and_its_gradient_are_in_it() {
    check(&spec("2-1", "8-16", |spec| spec.train.group_lasso = 1e-2), 5, 1);
}

#[test]
fn dropout_draws_the_same_masks() {
    check(&spec("2-2", "8-16", |spec| spec.model.dropout = 0.2), 5, 2);
}

#[test]
fn what_it_cannot_compute_is_left_to_libtorch() {
    let densenet = spec("1-1-1", "12-12-12", |spec| {
        *spec = Spec {
            name: spec.name.clone(),
            model: Model {
                stages: spec.model.stages.clone(),
                growth: spec.model.growth.clone(),
                ..recipe(Arch::DenseNet, Dataset::Cifar10).model
            },
            ..recipe(Arch::DenseNet, Dataset::Cifar10)
        }
    });
    let network = Network::new(&densenet, Form::Large, Device::Cpu).unwrap();
    assert!(CpuStep::new(&densenet, &network).unwrap().is_none());
    let small = spec("1-1", "4-4", |_| {});
    let network = Network::new(&small, Form::Converted, Device::Cpu).unwrap();
    assert!(CpuStep::new(&small, &network).unwrap().is_none(), "a converted network is not trained");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_shape(
        stages in prop::collection::vec(1_u32..3, 1..4),
        growth in prop::collection::vec(1_u32..4, 3),
        (group_1x1, condense_factor) in prop::sample::select(vec![(1, 2), (2, 2), (2, 4), (4, 2), (4, 4)]),
        group_3x3 in prop::sample::select(vec![1_u32, 2, 4]),
        images in 1_i64..7,
        threads in 1_usize..4,
    ) {
        let text = |numbers: Vec<u32>| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join("-");
        let growth = growth[..stages.len()].iter().map(|n| n * 4).collect();
        let spec = spec(&text(stages), &text(growth), |spec| {
            (spec.model.group_1x1, spec.model.condense_factor) = (group_1x1, condense_factor);
            spec.model.group_3x3 = group_3x3;
        });
        check(&spec, images + 1, threads);
    }
}

#[test]
fn it_evaluates_as_libtorch_does_and_is_left_out_where_the_spec_says_so() {
    let mut spec = spec("2-2", "8-16", |_| {});
    let mut kernels = Trainer::new(&spec, Precision::Float32, 2);
    for step in 0..3 {
        kernels.step(&batch(8, step), step as u64, step as u32);
    }
    let images = kernels.normalisation.apply(&batch(7, 9).images).unwrap();
    let expected = tch::no_grad(|| kernels.network.forward(&images, Mode::Evaluate)).unwrap();
    let found = kernels.cpu_step.as_mut().unwrap().logits(&kernels.network, &images).unwrap();
    let (expected, found) = (to_host(&expected).unwrap(), to_host(&found).unwrap());
    let largest = expected.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    for (expected, found) in expected.iter().zip(&found) {
        assert!((expected - found).abs() <= 1e-5 * largest, "{found}, expected {expected}");
    }
    spec.resources.kernels = Kernels::Libtorch;
    assert!(CpuStep::new(&spec, &kernels.network).unwrap().is_none());
}
