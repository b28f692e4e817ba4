//! A training step on the CPU: dense blocks by cnx-kernels, the first convolution, the classifier and the loss by libtorch.
//!
//! The same function as [`crate::step::train_step`] with libtorch alone, to rounding, and several times as fast. It is for
//! networks that are made of dense blocks as CondenseNet's are, in float32; [`CpuStep::new`] tells.

mod lasso;
mod plan;

use cnx_kernels::norm::Moments;
use cnx_kernels::pointwise::Dropout;
use cnx_kernels::{Group, Pass, Shape, Threads, Trunk};
use cnx_proto::Spec;
use cnx_proto::architecture::{self, Form};
use cnx_proto::spec::{Kernels, Precision, Train};
use tch::{Device, Kind, Reduction, Tensor};

use crate::data::batches::{Batch, Normalisation};
use crate::failure::{Failure, Result};
use crate::model::Network;
use crate::model::state::to_host;
use crate::optimizer::Sgd;
use crate::step::{StepFigures, StepSettings};
use plan::Plan;

/// The share of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.1;

/// What takes the steps of one training.
#[derive(Debug)]
pub struct CpuStep {
    plan: Plan,
    trunk: Trunk,
    /// By layer of the trunk: inputs and the first weight of its 1×1 convolution.
    convolutions: Vec<(usize, usize)>,
    first_weight: Tensor,
    classifier: [Tensor; 2],
    classifier_offsets: [usize; 2],
    first_offset: usize,
    running: Vec<[Tensor; 2]>,
    /// The inputs that each learned group convolution had dropped when the trunk's groups were made.
    dropped: Vec<usize>,
    kept: Vec<Vec<Vec<usize>>>,
    dropout: f64,
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    entering: Vec<f32>,
}

impl CpuStep {
    /// For a network as it is trained, with as many threads as libtorch has; none where libtorch has to do it: where the spec
    /// says so, on another device, in another precision, of another kind of network.
    ///
    /// # Errors
    /// When its threads cannot be started, or libtorch fails.
    pub fn new(spec: &Spec, network: &Network) -> Result<Option<CpuStep>> {
        CpuStep::with_threads(spec, network, tch::get_num_threads().max(1) as usize)
    }

    /// The same with so many threads.
    ///
    /// # Errors
    /// See [`CpuStep::new`].
    pub fn with_threads(spec: &Spec, network: &Network, threads: usize) -> Result<Option<CpuStep>> {
        let state = network.state();
        let Train { precision, channels_last, .. } = spec.train;
        if spec.resources.kernels != Kernels::Auto || precision != Precision::Float32 || channels_last {
            return Ok(None);
        }
        if state.device() != Device::Cpu || state.kind() != Kind::Float || network.form() != Form::Large {
            return Ok(None);
        }
        let layers = architecture::layers(&spec.model, spec.data.dataset, Form::Large);
        let Some(plan) = plan::plan(&layers) else { return Ok(None) };
        let tensor = |name: String| -> Result<Tensor> {
            let entry = state.entries.iter().find(|entry| entry.name == name);
            let entry =
                entry.ok_or_else(|| Failure::internal(format!("the network has no tensor {name}")))?;
            Ok(entry.tensor.shallow_clone())
        };
        let offsets = plan::offsets(&layers);
        let offset = |name: &str| offsets.get(name).copied().unwrap_or_default();
        let first = format!("{}.weight", layers[plan.first].name);
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", plan.classifier));
        let running = |norm: &String| -> Result<[Tensor; 2]> {
            Ok([tensor(format!("{norm}.running_mean"))?, tensor(format!("{norm}.running_var"))?])
        };
        let threads = Threads::new(threads).map_err(Failure::internal)?;
        let convolutions = plan.blocks.iter().flatten().map(|layer| (layer.norm_1.channels, layer.conv_1));
        Ok(Some(CpuStep {
            convolutions: convolutions.collect(),
            trunk: Trunk::new(threads, plan.blocks.clone(), plan.last_norm),
            first_offset: offset(&first),
            classifier_offsets: [offset(&weight), offset(&bias)],
            first_weight: tensor(first)?,
            classifier: [tensor(weight)?, tensor(bias)?],
            running: plan.norms.iter().map(running).collect::<Result<_>>()?,
            plan,
            dropped: Vec::new(),
            kept: Vec::new(),
            dropout: spec.model.dropout,
            parameters: Vec::new(),
            gradient: Vec::new(),
            entering: Vec::new(),
        }))
    }

    /// Forward, loss, lasso, backward, update: as [`crate::step::train_step`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn step(
        &mut self,
        network: &mut Network,
        optimizer: &mut Sgd,
        normalisation: &Normalisation,
        batch: &Batch,
        settings: &StepSettings<'_>,
    ) -> Result<StepFigures> {
        let StepSettings { step, learning_rate, train } = *settings;
        self.follow_condensing(network)?;
        self.read_parameters(network)?;
        self.gradient.resize(self.parameters.len(), 0.0);
        network.count_batch()?;
        let (first, shape) = self.enter(&normalisation.apply(&batch.images)?)?;

        let masks = self.masks(shape, train.seed, step);
        let scale = (1.0 / (1.0 - self.dropout)) as f32;
        let dropouts: Vec<Dropout<'_>> = masks.iter().map(|mask| Dropout { mask, scale }).collect();
        let pooled = self.trunk.forward(&self.parameters, &self.entering, shape, Pass::Train(&dropouts));
        let pooled =
            Tensor::f_from_slice(pooled)?.f_view([batch.len() as i64, -1])?.f_set_requires_grad(true)?;
        self.update_running()?;

        let [weight, bias] = &self.classifier;
        let logits = pooled.f_linear(weight, Some(bias))?;
        let loss = logits.f_cross_entropy_loss(&batch.labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
        let gradients = Tensor::f_run_backward(&[&loss], &[&pooled, weight, bias], false, false)?;
        let mut pooled_gradient = vec![0.0; pooled.numel()];
        read(&gradients[0], &mut pooled_gradient)?;
        for (gradient, &offset) in gradients[1..].iter().zip(&self.classifier_offsets) {
            read(gradient, &mut self.gradient[offset..][..gradient.numel()])?;
        }

        let coming_back =
            self.trunk.backward(&self.parameters, &pooled_gradient, &dropouts, &mut self.gradient);
        let coming_back = Tensor::f_from_slice(coming_back)?.f_view_as(&first)?;
        let product = first.f_mul(&coming_back)?.f_sum(None)?;
        let gradients = Tensor::f_run_backward(&[&product], &[&self.first_weight], false, false)?;
        let floats = self.first_weight.numel();
        read(&gradients[0], &mut self.gradient[self.first_offset..][..floats])?;

        let lasso = self.lasso(network, train.group_lasso)?;
        optimizer.apply(&Tensor::f_from_slice(&self.gradient)?, learning_rate)?;
        let right = logits.f_argmax(1, false)?.f_eq_tensor(&batch.labels)?.f_sum(Kind::Double)?;
        Ok(StepFigures { loss: loss.f_detach()?, right, lasso })
    }

    /// Logits [n, classes] of normalised images [n, 3, h, w], batch norms with their running statistics: as
    /// [`Network::forward`] when it evaluates.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn logits(&mut self, network: &Network, images: &Tensor) -> Result<Tensor> {
        self.follow_condensing(network)?;
        self.read_parameters(network)?;
        let (_, shape) = tch::no_grad(|| self.enter(images))?;
        let moments: Vec<Vec<Moments>> = self.running.iter().map(running_moments).collect::<Result<_>>()?;
        let pooled = self.trunk.forward(&self.parameters, &self.entering, shape, Pass::Evaluate(&moments));
        let pooled = Tensor::f_from_slice(pooled)?.f_view([shape.images as i64, -1])?;
        let [weight, bias] = &self.classifier;
        tch::no_grad(|| Ok(pooled.f_linear(weight, Some(bias))?))
    }

    fn read_parameters(&mut self, network: &Network) -> Result<()> {
        let floats = network.state().parameters().map(|entry| entry.tensor.numel()).sum();
        self.parameters.resize(floats, 0.0);
        let mut rest = self.parameters.as_mut_slice();
        for entry in network.state().parameters() {
            let (own, others) = rest.split_at_mut(entry.tensor.numel());
            read(&entry.tensor, own)?;
            rest = others;
        }
        Ok(())
    }

    /// What enters the trunk, and its shape.
    fn enter(&mut self, images: &Tensor) -> Result<(Tensor, Shape)> {
        let stride = self.first_stride(images);
        let first = images.f_conv2d(&self.first_weight, None::<&Tensor>, stride, [1, 1], [1, 1], 1)?;
        let Plan { channels, size, .. } = self.plan;
        let images = images.size().first().copied().unwrap_or(0) as usize;
        let shape = Shape { images, channels, height: size, width: size };
        self.entering.resize(shape.floats(), 0.0);
        read(&first.f_detach()?, &mut self.entering)?;
        Ok((first, shape))
    }

    fn first_stride(&self, images: &Tensor) -> [i64; 2] {
        let size = images.size().last().copied().unwrap_or(1);
        [size / self.plan.size as i64; 2]
    }

    /// Computes with the inputs that are left, once some were dropped.
    fn follow_condensing(&mut self, network: &Network) -> Result<()> {
        let dropped = network.dropped();
        if dropped == self.dropped && self.kept.len() == dropped.len() {
            return Ok(());
        }
        self.kept = network.kept()?;
        let group = |(group, inputs, outputs, groups): (usize, &Vec<usize>, usize, usize)| Group {
            outputs: (group..outputs).step_by(groups).map(|o| o as u32).collect(),
            inputs: inputs.iter().map(|&i| i as u32).collect(),
        };
        let layers = self.plan.blocks.iter().flatten().zip(&self.kept);
        let groups = layers.map(|(layer, kept)| {
            let each = kept.iter().enumerate();
            each.map(|(g, inputs)| group((g, inputs, layer.norm_2.channels, kept.len()))).collect()
        });
        self.trunk.regroup(groups.collect());
        self.dropped = dropped;
        Ok(())
    }

    /// The dropout masks of a step, one a layer; none without dropout.
    fn masks(&self, shape: Shape, seed: u64, step: u64) -> Vec<Vec<u8>> {
        if self.plan.dropouts.iter().all(Option::is_none) {
            return Vec::new();
        }
        let mut masks = Vec::new();
        let mut layers = self.convolutions.iter().zip(&self.plan.dropouts);
        for (i, block) in self.plan.blocks.iter().enumerate() {
            let size = shape.height >> i;
            for ((inputs, _), number) in layers.by_ref().take(block.len()) {
                let elements = shape.images * inputs * size * size;
                masks.push(crate::model::dropout_mask(
                    self.dropout,
                    seed,
                    step,
                    number.unwrap_or(0),
                    elements,
                ));
            }
        }
        masks
    }

    /// Lets the running statistics follow the batch's.
    fn update_running(&mut self) -> Result<()> {
        for ((moments, count), tensors) in self.trunk.statistics().into_iter().zip(&mut self.running) {
            // What a batch norm keeps is the unbiased variance.
            let unbiased = count / (count - 1.0).max(1.0);
            let news: [Vec<f32>; 2] = [
                moments.iter().map(|moments| moments.mean as f32).collect(),
                moments.iter().map(|moments: &Moments| (moments.variance * unbiased) as f32).collect(),
            ];
            for (tensor, news) in tensors.iter_mut().zip(&news) {
                let _ = tensor.f_lerp_(&Tensor::f_from_slice(news)?, MOMENTUM)?;
            }
        }
        Ok(())
    }

    /// The group lasso before λ, its gradient added; none once condensing is over, or without λ.
    fn lasso(&mut self, network: &Network, lambda: f64) -> Result<Option<Tensor>> {
        if lambda == 0.0 || self.kept.is_empty() || network.is_condensed() {
            return Ok(None);
        }
        let mut sum = 0.0;
        for ((&(inputs, start), kept), layer) in
            self.convolutions.iter().zip(&self.kept).zip(self.plan.blocks.iter().flatten())
        {
            let floats = inputs * layer.norm_2.channels;
            let gradient = &mut self.gradient[start..][..floats];
            sum += lasso::lasso(&self.parameters[start..][..floats], kept, inputs, lambda, gradient);
        }
        Ok(Some(Tensor::from(sum)))
    }
}

fn running_moments([mean, variance]: &[Tensor; 2]) -> Result<Vec<Moments>> {
    let (means, variances) = (to_host(mean)?, to_host(variance)?);
    Ok(means.into_iter().zip(variances).map(|(mean, variance)| Moments { mean, variance }).collect())
}

fn read(tensor: &Tensor, to: &mut [f32]) -> Result<()> {
    let count = to.len();
    Ok(tensor.f_contiguous()?.f_copy_data(to, count)?)
}
