//! A small training, step by step.

use std::collections::BTreeMap;

use cnx_proto::Spec;
use cnx_proto::dashed::Dashed;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Kernels};
use cnx_proto::v1::Errors;
use cnx_worker::data::batches::{self, Normalisation};
use cnx_worker::data::{self, Data};
use cnx_worker::device_step::DeviceStep;
use cnx_worker::evaluate::evaluate;
use cnx_worker::failure::{Failure, Result};
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Form, Network};
use cnx_worker::optimizer::Sgd;
use cnx_worker::step::{StepSettings, train_step};
use cnx_worker::stop::Stop;
use tch::Device;

/// A CondenseNet of three blocks that learns from 500 generated images in batches of 64, with the group lasso.
pub fn small() -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::Synthetic);
    spec.name = "check".to_owned();
    (spec.model.stages, spec.model.growth) = (Dashed(vec![2, 2, 2]), Dashed(vec![8, 16, 32]));
    (spec.data.train_images, spec.data.test_images) = (Some(500), Some(300));
    (spec.train.group_lasso, spec.train.epochs, spec.resources.gpus) = (1e-5, 6, 1);
    spec
}

pub struct Trainer {
    spec: Spec,
    data: Data,
    network: Network,
    optimizer: Sgd,
}

impl Trainer {
    pub fn new(spec: &Spec, device: Device) -> Result<Trainer> {
        let mut spec = spec.clone();
        spec.resources.kernels = Kernels::Graph;
        let network = Network::new(&spec, Form::Large, device)?;
        let optimizer = Sgd::new(network.state(), &spec.train)?;
        Ok(Trainer { data: data::load(&spec, None)?, spec, network, optimizer })
    }

    /// Steps an epoch.
    pub fn steps(&self) -> u64 {
        batches::steps_per_epoch(self.data.train.len(), self.spec.train.batch_size)
    }

    /// Goes on from where another stands.
    pub fn adopt(&mut self, other: &Trainer) -> Result<()> {
        self.network.load(&other.network.state().snapshot()?)?;
        self.optimizer.load(&other.optimizer.snapshot()?)
    }

    /// The first step of an epoch that is the stage's, from a batch of the host.
    pub fn host_step(&mut self, stage: u32) -> Result<()> {
        let Trainer { spec, data, network, optimizer } = self;
        let device = network.state().device();
        let normalisation = Normalisation::new(spec, network.state().kind(), device)?;
        network.condense_to(stage)?;
        let batch = batches::training(&data.train, spec, stage, device).next();
        let batch = batch.ok_or_else(|| Failure::internal("there are no images"))??;
        let settings = StepSettings { step: 0, learning_rate: 0.1, train: &spec.train };
        train_step(network, optimizer, &normalisation, &batch, &settings).map(drop)
    }

    /// Steps from data on the device, in epochs that begin with the stage's; on a GPU captured, or operation by operation.
    pub fn device_steps(&mut self, stage: u32, steps: u64, captured: bool) -> Result<()> {
        let rates = vec![0.1; self.steps() as usize];
        let Trainer { spec, data, network, optimizer } = self;
        network.condense_to(stage)?;
        let step = DeviceStep::new(spec, &data.train, network, optimizer)?;
        let mut step = step.ok_or_else(|| Failure::internal("the spec asks for no steps on the device"))?;
        if !captured {
            step = step.uncaptured();
        }
        for number in 0..steps {
            if number % rates.len() as u64 == 0 {
                let epoch = stage + (number / rates.len() as u64) as u32;
                step.start_epoch(spec, epoch, 0, &rates)?;
            }
            step.step(network, optimizer, &spec.train)?;
        }
        Ok(())
    }

    pub fn evaluate(&mut self) -> Result<Errors> {
        evaluate(&mut self.network, &self.data.test, &self.spec, &Stop::default(), &mut |_, _| {})
    }

    /// All that a checkpoint holds of it.
    fn tensors(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let mut tensors = self.network.state().snapshot()?;
        tensors.extend(self.optimizer.snapshot()?);
        tensors.into_iter().map(|(name, tensor)| Ok((name, to_host(&tensor)?))).collect()
    }
}

/// The largest difference of two trainings, in units of the largest element of its tensor (at least 0.001), and that tensor.
pub fn difference(a: &Trainer, b: &Trainer) -> Result<(f64, String)> {
    let (a, b) = (a.tensors()?, b.tensors()?);
    let mut furthest = (0.0, "none".to_owned());
    for (name, values) in a {
        let largest = values.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
        let others = b.get(&name).map_or(&[][..], Vec::as_slice);
        for (x, y) in values.iter().zip(others) {
            let off = (x - y).abs() / largest;
            // What is no number is as far as can be.
            if off > furthest.0 || off.is_nan() {
                furthest = (if off.is_nan() { f64::INFINITY } else { off }, name.clone());
            }
        }
    }
    Ok(furthest)
}
