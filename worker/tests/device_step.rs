//! The step from data on the device is the step by libtorch from batches of the host, at every condensing stage, odd last batches
//! included; and what switches of the arithmetic change.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use cnx_proto::Spec;
use cnx_proto::spec::{Kernels, Precision};
use cnx_proto::v1::outcome;
use cnx_worker::data::batches::{self, Normalisation};
use cnx_worker::data::{self, Data};
use cnx_worker::device_step::DeviceStep;
use cnx_worker::meter::Meter;
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Form, Network};
use cnx_worker::native;
use cnx_worker::optimizer::Sgd;
use cnx_worker::record::UnderWay;
use cnx_worker::step::{StepSettings, train_step};
use common::{run, tiny};
use tch::{Device, Kind};

/// Two epochs of five steps, the last of 32 images; dropout and the group lasso are on.
const EPOCHS: u32 = 2;
const STEPS: u64 = 5;

struct Trained {
    tensors: BTreeMap<String, Vec<f64>>,
    /// Of the last epoch.
    sums: UnderWay,
}

struct Trainer {
    spec: Spec,
    data: Data,
    network: Network,
    optimizer: Sgd,
}

impl Trainer {
    fn new(spec: &Spec) -> Trainer {
        let data = data::load(spec, None).unwrap();
        let network = Network::new(spec, Form::Large, Device::Cpu).unwrap();
        let optimizer = Sgd::new(network.state(), &spec.train).unwrap();
        Trainer { spec: spec.clone(), data, network, optimizer }
    }

    fn rates(epoch: u32) -> Vec<f64> {
        (0..STEPS).map(|step| 0.1 / f64::from(1 + epoch) / (1.0 + step as f64)).collect()
    }

    /// Condensing is over with the second epoch.
    fn condense(&self, epoch: u32, step: u64) {
        self.network.condense_to(epoch * 2 + u32::from(step > 1)).unwrap();
    }

    fn train_from_host(mut self) -> Trained {
        let normalisation = Normalisation::new(&self.spec, self.network.state().kind(), Device::Cpu).unwrap();
        let mut sums = UnderWay::default();
        for epoch in 0..EPOCHS {
            let mut meter = Meter::new(STEPS * u64::from(epoch), None);
            let images = Arc::clone(&self.data.train);
            for batch in batches::training(&images, &self.spec, epoch, Device::Cpu) {
                let (batch, at) = (batch.unwrap(), meter.steps());
                self.condense(epoch, at);
                let Trainer { spec, network, optimizer, .. } = &mut self;
                let settings = StepSettings {
                    step: meter.next_step(),
                    learning_rate: Trainer::rates(epoch)[at as usize],
                    train: &spec.train,
                };
                let figures = train_step(network, optimizer, &normalisation, &batch, &settings);
                meter.add(figures.unwrap(), batch.len());
            }
            sums = meter.under_way().unwrap();
        }
        self.end(sums)
    }

    /// `begin_again`: in the middle of an epoch, as after a resume.
    fn train_from_device(mut self, begin_again: bool) -> Trained {
        self.spec.resources.kernels = Kernels::Graph;
        let new = |trainer: &mut Trainer| {
            let Trainer { spec, data, network, optimizer } = trainer;
            DeviceStep::new(spec, &data.train, network, optimizer).unwrap().unwrap()
        };
        let mut device_step = new(&mut self);
        let mut sums = UnderWay::default();
        for epoch in 0..EPOCHS {
            let mut meter = Meter::new(STEPS * u64::from(epoch), None);
            while meter.steps() < STEPS {
                let at = meter.steps();
                if at == 0 || (begin_again && at == 3) {
                    meter = Meter::new(STEPS * u64::from(epoch), Some(meter.under_way().unwrap()));
                    device_step = new(&mut self);
                    device_step.start_epoch(&self.spec, epoch, at, &Trainer::rates(epoch)).unwrap();
                    meter.read_from(device_step.figures());
                }
                self.condense(epoch, at);
                let Trainer { network, optimizer, spec, .. } = &mut self;
                meter.add_noted(device_step.step(network, optimizer, &spec.train).unwrap());
            }
            sums = meter.under_way().unwrap();
        }
        self.end(sums)
    }

    fn end(self, sums: UnderWay) -> Trained {
        let mut tensors = self.network.state().snapshot().unwrap();
        tensors.extend(self.optimizer.snapshot().unwrap());
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, to_host(&tensor).unwrap()));
        Trained { tensors: tensors.collect(), sums: UnderWay { train_wall_s: 0.0, ..sums } }
    }
}

fn spec(precision: Precision) -> Spec {
    let mut spec = tiny();
    spec.train.precision = precision;
    spec
}

/// The largest difference of a tensor, in units of its largest element.
fn furthest(a: &Trained, b: &Trained) -> f64 {
    let differences = a.tensors.iter().map(|(name, values)| {
        let largest = values.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
        let pairs = values.iter().zip(&b.tensors[name]);
        pairs.map(|(x, y)| (x - y).abs() / largest).fold(0.0, f64::max)
    });
    differences.fold(0.0, f64::max)
}

#[test]
fn in_double_precision_it_is_the_same_training_to_the_bit() {
    let spec = spec(Precision::Float64);
    let host = Trainer::new(&spec).train_from_host();
    let device = Trainer::new(&spec).train_from_device(false);
    assert_eq!(host.sums, device.sums);
    assert_eq!(host.tensors, device.tensors);
    assert!(host.sums.lasso > 0.0 && host.sums.images == 192, "{:?}", host.sums);
}

#[test]
fn in_single_precision_it_is_the_same_training_to_rounding() {
    let spec = spec(Precision::Float32);
    let host = Trainer::new(&spec).train_from_host();
    let device = Trainer::new(&spec).train_from_device(false);
    let off = furthest(&host, &device);
    assert!(off < 1e-3, "{off}");
    assert!((host.sums.loss - device.sums.loss).abs() < 1e-3 * host.sums.loss);
}

#[test]
fn begun_again_in_the_middle_of_epochs_it_ends_the_same_to_the_bit() {
    let spec = spec(Precision::Float32);
    let whole = Trainer::new(&spec).train_from_device(false);
    let cut = Trainer::new(&spec).train_from_device(true);
    assert_eq!((whole.sums, whole.tensors), (cut.sums, cut.tensors));
}

#[test]
fn with_channels_last_it_is_the_same_training_to_rounding() {
    let mut spec = spec(Precision::Float64);
    let plain = Trainer::new(&spec).train_from_device(false);
    spec.train.channels_last = true;
    let moved = Trainer::new(&spec).train_from_device(false);
    let off = furthest(&plain, &moved);
    assert!(off < 1e-9, "{off}");
}

#[test]
fn in_bfloat16_it_is_another_training_near_by() {
    let single = Trainer::new(&spec(Precision::Float32)).train_from_device(false);
    let half = Trainer::new(&spec(Precision::Bfloat16)).train_from_device(false);
    let apart = (single.sums.loss - half.sums.loss).abs() / single.sums.loss;
    assert!(apart > 1e-6 && apart < 0.1, "{apart}");
}

#[test]
fn weights_rounded_all_at_once_are_those_rounded_one_by_one() {
    let mut spec = spec(Precision::Bfloat16);
    // One step, after which the momentum is the gradient.
    (spec.train.group_lasso, spec.train.weight_decay) = (0.0, 0.0);
    (spec.data.train_images, spec.train.batch_size) = (Some(40), 40);
    for channels_last in [false, true] {
        spec.train.channels_last = channels_last;
        let [mut one_by_one, mut at_once] = [(); 2].map(|()| Trainer::new(&spec));
        let normalisation = Normalisation::new(&spec, Kind::Float, Device::Cpu).unwrap();
        let batch = batches::training(&one_by_one.data.train, &spec, 0, Device::Cpu).next().unwrap().unwrap();
        let settings = StepSettings { step: 0, learning_rate: 0.1, train: &spec.train };
        let Trainer { network, optimizer, .. } = &mut one_by_one;
        network.condense_to(1).unwrap();
        train_step(network, optimizer, &normalisation, &batch, &settings).unwrap();
        let Trainer { spec, data, network, optimizer } = &mut at_once;
        network.condense_to(1).unwrap();
        spec.resources.kernels = Kernels::Graph;
        let mut device_step = DeviceStep::new(spec, &data.train, network, optimizer).unwrap().unwrap();
        device_step.start_epoch(spec, 0, 0, &[0.1]).unwrap();
        device_step.step(network, optimizer, &spec.train).unwrap();
        let [expected, found] = [&one_by_one, &at_once].map(|trainer| trainer.optimizer.snapshot().unwrap());
        for (name, expected) in expected {
            assert_eq!(to_host(&found[&name]).unwrap(), to_host(&expected).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_whole_attempt_in_bfloat16_with_channels_last_succeeds_and_resumes_to_the_bit() {
    let mut spec = spec(Precision::Bfloat16);
    spec.train.channels_last = true;
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let undisturbed = run(&spec, whole.path(), 1, None);
    assert_eq!(undisturbed.outcome().kind(), outcome::Kind::Succeeded, "{}", undisturbed.outcome().message);
    run(&spec, cut.path(), 1, Some(2));
    let resumed = run(&spec, cut.path(), 2, None);
    assert_eq!(undisturbed.epochs(), resumed.epochs());
    assert_eq!(undisturbed.figures(), resumed.figures());
}

#[test]
fn tf32_is_refused_where_there_is_no_gpu() {
    let mut spec = spec(Precision::Tf32);
    spec.resources.gpus = 1;
    let folder = tempfile::tempdir().unwrap();
    let told = run(&spec, folder.path(), 1, None);
    assert!(told.outcome().message.contains("train.precision is tf32"), "{}", told.outcome().message);
}

#[test]
fn a_training_draws_nothing_from_libtorch_s_generator() {
    let before = native::generator_state(Device::Cpu).unwrap();
    Trainer::new(&spec(Precision::Float32)).train_from_device(false);
    assert_eq!(native::generator_state(Device::Cpu).unwrap(), before);
}
