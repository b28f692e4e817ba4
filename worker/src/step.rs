//! One step of training, by libtorch: forward, loss, lasso, backward, update.

use tch::{Kind, Reduction, Tensor};

use crate::data::batches::{Batch, Normalisation};
use crate::failure::Result;
use crate::model::{Mode, Network};
use crate::optimizer::Sgd;

/// What decides a step besides network and batch.
#[derive(Debug, Clone, Copy)]
pub struct StepSettings<'a> {
    /// The step, from 0.
    pub step: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// The rest.
    pub train: &'a cnx_proto::spec::Train,
}

/// Figures of a step, still on the device.
#[derive(Debug)]
pub struct StepFigures {
    /// Mean cross-entropy of the batch before the update, lasso not included.
    pub loss: Tensor,
    /// Images whose class was right.
    pub right: Tensor,
    /// Σ of the group lasso, before λ; none once condensing is over, or without λ.
    pub lasso: Option<Tensor>,
}

/// Forward, loss, lasso, backward, update.
///
/// # Errors
/// When libtorch fails.
pub fn train_step(
    network: &mut Network,
    optimizer: &mut Sgd,
    normalisation: &Normalisation,
    batch: &Batch,
    settings: &StepSettings<'_>,
) -> Result<StepFigures> {
    let StepSettings { step, learning_rate, train } = *settings;
    let mode = Mode::Train { seed: train.seed, step };
    let (objective, figures) = objective(network, normalisation, batch, mode, train.group_lasso)?;
    optimizer.step(&objective, learning_rate)?;
    Ok(figures)
}

/// What a step makes smaller, cross-entropy and λ times the group lasso; and its figures.
///
/// # Errors
/// When libtorch fails.
pub(crate) fn objective(
    network: &mut Network,
    normalisation: &Normalisation,
    batch: &Batch,
    mode: Mode<'_>,
    lambda: f64,
) -> Result<(Tensor, StepFigures)> {
    let logits = network.forward(&normalisation.apply(&batch.images)?, mode)?;
    let loss = logits.f_cross_entropy_loss(&batch.labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
    let lasso = if lambda > 0.0 { network.lasso(mode)? } else { None };
    let objective = match &lasso {
        Some(lasso) => loss.f_add(&lasso.f_mul_scalar(lambda)?)?,
        None => loss.shallow_clone(),
    };
    let right = logits.f_argmax(1, false)?.f_eq_tensor(&batch.labels)?.f_sum(Kind::Double)?;
    let lasso = lasso.map(|lasso| lasso.f_detach()).transpose()?;
    Ok((objective, StepFigures { loss: loss.f_detach()?, right, lasso }))
}
