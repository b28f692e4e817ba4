//! Loss, top-1 and top-5 error of a network on a set of images.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cnx_engine::{Model, Runner};
use cnx_formats::StateDict;
use cnx_images::normalise::Normalise;
use cnx_proto::Spec;
use cnx_proto::spec::Engine;
use cnx_proto::v1::Errors;
use tch::{Kind, Reduction, Tensor};

use crate::cpu_step::CpuStep;
use crate::data::Images;
use crate::data::batches::{self, Normalisation};
use crate::failure::{Failure, Result};
use crate::model::state::to_host;
use crate::model::{Mode, Network};
use crate::stop::Stop;
use crate::tensor_file::to_host as to_arrays;

/// Images a batch. Fixed, so that figures do not depend on the training's batch size.
const BATCH: usize = 250;

/// Evaluates a network on all images, in their order. `progress` hears batches done and batches in all.
///
/// # Errors
/// When libtorch fails, or when asked to stop.
pub fn evaluate(
    network: &mut Network,
    images: &Arc<Images>,
    spec: &Spec,
    stop: &Stop,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Errors> {
    let device = network.state().device();
    let all = batches::steps_per_epoch(images.len(), BATCH as u32);
    let mut forward = Forward::new(network, spec)?;
    let mut sums = Sums::default();
    for (done, batch) in batches::in_order(images, spec, BATCH, device).enumerate() {
        stop.check()?;
        progress(done as u64, all);
        let batch = batch?;
        if batch.is_empty() {
            continue;
        }
        let logits = forward.logits(network, &batch.images)?;
        sums.add(&logits, &batch.labels)?;
    }
    progress(all, all);
    if sums.images != images.usable() as u64 {
        return Err(Failure::internal("a thread that prepares batches died while evaluating"));
    }
    Ok(sums.errors())
}

/// What runs the network.
enum Forward {
    Libtorch(Normalisation),
    /// libtorch, but for the dense blocks.
    Kernels(Normalisation, Box<CpuStep>),
    /// The engine without libtorch.
    Native(Box<Native>),
}

impl Forward {
    fn new(network: &Network, spec: &Spec) -> Result<Forward> {
        if spec.run.engine == Engine::Native {
            return Ok(Forward::Native(Box::new(Native::new(network, spec)?)));
        }
        let normalisation = Normalisation::new(spec, network.state().kind(), network.state().device())?;
        Ok(match CpuStep::new(spec, network)? {
            Some(kernels) => Forward::Kernels(normalisation, Box::new(kernels)),
            None => Forward::Libtorch(normalisation),
        })
    }

    /// Bytes [n, 3, h, w] → logits [n, classes].
    fn logits(&mut self, network: &mut Network, images: &Tensor) -> Result<Tensor> {
        match self {
            Forward::Libtorch(normalisation) => {
                let images = normalisation.apply(images)?;
                tch::no_grad(|| network.forward(&images, Mode::Evaluate))
            }
            Forward::Kernels(normalisation, kernels) => {
                kernels.logits(network, &normalisation.apply(images)?)
            }
            Forward::Native(native) => native.logits(images),
        }
    }
}

/// A network on the engine without libtorch.
struct Native {
    normalise: Normalise,
    runner: Runner,
    /// A batch, normalised.
    values: Vec<f32>,
}

impl Native {
    fn new(network: &Network, spec: &Spec) -> Result<Native> {
        let state = StateDict { tensors: to_arrays(&network.state().snapshot()?)?, spec_json: None };
        let threads = NonZeroUsize::new(tch::get_num_threads() as usize).unwrap_or(NonZeroUsize::MIN);
        let runner = Runner::new(Arc::new(Model::new(spec, &state)?), threads);
        let normalise = Normalise::new(spec.data.dataset.normalisation());
        Ok(Native { normalise, runner, values: Vec::new() })
    }

    fn logits(&mut self, images: &Tensor) -> Result<Tensor> {
        let (n, _, height, width) = images.size4()?;
        let mut pixels = vec![0u8; images.numel()];
        images.f_copy_data_u8(&mut pixels, images.numel())?;
        self.values.clear();
        self.normalise.append(&pixels, (height * width) as usize, &mut self.values);
        Ok(Tensor::f_from_slice(self.runner.logits(&self.values)?)?.f_view([n, -1])?)
    }
}

#[derive(Default)]
struct Sums {
    loss: f64,
    top1: u64,
    top5: u64,
    images: u64,
}

impl Sums {
    fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<()> {
        let loss = logits.f_to_kind(Kind::Double)?.f_cross_entropy_loss(
            labels,
            None::<&Tensor>,
            Reduction::Sum,
            -100,
            0.0,
        )?;
        let images = labels.numel() as u64;
        // The label's rank: how many classes have a larger logit. An equal one counts as larger, and so does one that is
        // no number: a network without an opinion is wrong.
        let own = logits.f_gather(1, &labels.f_unsqueeze(1)?, false)?;
        let not_above = logits.f_lt_tensor(&own)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?;
        let rank = not_above.f_neg()?.f_add_scalar(logits.size2()?.1 - 1)?;
        let within = |k: i64| -> Result<Tensor> { Ok(rank.f_lt(k)?.f_sum(Kind::Double)?) };
        let figures = to_host(&Tensor::f_stack(&[loss, within(1)?, within(5)?], 0)?)?;
        self.loss += figures[0];
        self.top1 += figures[1] as u64;
        self.top5 += figures[2] as u64;
        self.images += images;
        Ok(())
    }

    fn errors(&self) -> Errors {
        let error = |right: u64| 100.0 * (self.images - right) as f64 / self.images.max(1) as f64;
        Errors {
            loss: self.loss / self.images.max(1) as f64,
            top1_error: error(self.top1),
            top5_error: error(self.top5),
            images: self.images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_what_is_not_within_the_first_and_the_first_five() {
        let logits = Tensor::from_slice2(&[
            [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ]);
        let mut sums = Sums::default();
        sums.add(&logits, &Tensor::from_slice(&[0i64, 3, 1, 0])).unwrap();
        let errors = sums.errors();
        assert_eq!((errors.top1_error, errors.top5_error, errors.images), (75.0, 50.0, 4));
    }
}
