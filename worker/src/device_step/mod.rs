//! A training step from data that lie on the device. Images, learning rates and the step's number are there already, and its figures
//! stay there until somebody asks: nothing crosses to the device or back within a step. So on a GPU a step can be captured
//! once as a graph and replayed; on a CPU it is the same operations, one by one.
//!
//! The same function as [`crate::step::train_step`], to the rounding of products in the update.

mod graphs;
mod inputs;
mod working;

use std::sync::Arc;

use cnx_proto::Spec;
use cnx_proto::spec::{Kernels, Precision, Train};
use tch::{Kind, Tensor};

use crate::data::Images;
use crate::data::batches::{self, Normalisation};
use crate::failure::Result;
use crate::model::{Mode, Network};
use crate::optimizer::Sgd;
use crate::step::{StepFigures, objective};
use graphs::Graphs;
use inputs::Inputs;
use working::Working;

/// What takes the steps of one training.
pub struct DeviceStep {
    /// None on a CPU.
    graphs: Option<Graphs>,
    inputs: Inputs,
    working: Working,
    normalisation: Normalisation,
    /// The step of the epoch and the step of the training, both from 0.
    place: Tensor,
    /// The learning rate of each step of the epoch.
    rates: Tensor,
    /// [steps, 3]: loss, images that were right, lasso of each step of the epoch.
    figures: Tensor,
    /// [steps, 1]: 0, 1, …
    rows: Tensor,
}

impl DeviceStep {
    /// For a training on these images; none where batches come from the host: where the spec says so, and on CPUs unless it asks.
    ///
    /// # Errors
    /// When libtorch fails, e.g. for want of memory on the device.
    pub fn new(
        spec: &Spec,
        images: &Arc<Images>,
        network: &mut Network,
        optimizer: &Sgd,
    ) -> Result<Option<DeviceStep>> {
        let (device, kind) = (network.state().device(), network.state().kind());
        let asked = match spec.resources.kernels {
            Kernels::Auto => device.is_cuda(),
            Kernels::Libtorch => false,
            Kernels::Graph => true,
        };
        if !asked {
            return Ok(None);
        }
        let graphs = if device.is_cuda() { Some(Graphs::new(device)?) } else { None };
        let steps = batches::steps_per_epoch(images.len(), spec.train.batch_size) as i64;
        // The group lasso is of the weights as they are: libtorch then rounds them one by one.
        let bfloat16 = spec.train.precision == Precision::Bfloat16 && spec.train.group_lasso == 0.0;
        Ok(Some(DeviceStep {
            graphs,
            inputs: Inputs::new(spec, images, device)?,
            working: Working::new(network, optimizer, bfloat16)?,
            normalisation: Normalisation::new(spec, kind, device)?,
            place: Tensor::f_zeros([2], (Kind::Int64, device))?,
            rates: Tensor::f_zeros([steps], (kind, device))?,
            figures: Tensor::f_zeros([steps, 3], (Kind::Double, device))?,
            rows: Tensor::f_arange(steps, (Kind::Int64, device))?.f_view([-1, 1])?,
        }))
    }

    /// The same without graphs: operation by operation on a GPU too, to compare with.
    #[must_use]
    pub fn uncaptured(self) -> DeviceStep {
        DeviceStep { graphs: None, ..self }
    }

    /// Makes ready for an epoch (from 0) whose first `done` steps are done. `rates`: the learning rate of each of its steps, those
    /// included.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn start_epoch(&mut self, spec: &Spec, epoch: u32, done: u64, rates: &[f64]) -> Result<()> {
        self.inputs.start(spec, epoch, done as usize)?;
        self.rates.f_copy_(&Tensor::f_from_slice(rates)?)?;
        let before = rates.len() as u64 * u64::from(epoch);
        self.place.f_copy_(&Tensor::f_from_slice(&[done as i64, (before + done) as i64])?)?;
        Ok(())
    }

    /// The next step. Returns its number of images.
    ///
    /// # Errors
    /// When libtorch fails; DATA_MISSING when too many images are damaged.
    pub fn step(&mut self, network: &mut Network, optimizer: &mut Sgd, train: &Train) -> Result<usize> {
        let images = self.inputs.next()?;
        let kind = graphs::Kind { lasso: train.group_lasso > 0.0 && !network.is_condensed(), images };
        // Taken out while it calls what is left.
        let Some(mut graphs) = self.graphs.take() else {
            self.compute(network, optimizer, train, images)?;
            return Ok(images);
        };
        let done = graphs.step(kind, || self.compute(network, optimizer, train, images));
        self.graphs = Some(graphs);
        done.map(|()| images)
    }

    /// The figures of the epoch's steps, as [`crate::meter::Meter::read_from`] takes them.
    pub fn figures(&self) -> &Tensor {
        &self.figures
    }

    /// All that a step asks of the device.
    fn compute(
        &mut self,
        network: &mut Network,
        optimizer: &mut Sgd,
        train: &Train,
        images: usize,
    ) -> Result<()> {
        let [at, step] = [self.place.f_narrow(0, 0, 1)?, self.place.f_narrow(0, 1, 1)?];
        let batch = self.inputs.batch(images, &at)?;
        self.working.renew(optimizer)?;
        let mode = Mode::TrainAt { seed: train.seed, step: &step };
        let (objective, figures) = objective(network, &self.normalisation, &batch, mode, train.group_lasso)?;
        let rate = self.rates.f_index_select(0, &at)?.f_view([0i64; 0].as_slice())?;
        let gradient = self.working.gradient(&objective, optimizer)?;
        optimizer.apply_at(&gradient, &rate)?;
        self.note(&figures, &at)?;
        let _ = self.place.f_add_scalar_(1)?;
        Ok(())
    }

    /// Puts the figures of a step in its row. Not by index: with deterministic algorithms that sorts first.
    fn note(&mut self, figures: &StepFigures, at: &Tensor) -> Result<()> {
        let StepFigures { loss, right, lasso } = figures;
        let lasso = match lasso {
            Some(lasso) => lasso.f_to_kind(Kind::Double)?,
            None => right.f_zeros_like()?,
        };
        let row = Tensor::f_stack(&[&loss.f_to_kind(Kind::Double)?, right, &lasso], 0)?.f_view([1, 3])?;
        let noted = row.f_where_self(&self.rows.f_eq_tensor(at)?, &self.figures)?;
        self.figures.f_copy_(&noted)?;
        Ok(())
    }
}
