//! What each kind of layer computes.

use cnx_proto::architecture::{Layer, Op};
use tch::Tensor;

use super::dropout::Dropout;
use super::groups::Groups;
use super::learned_group_conv::LearnedGroupConv;
use super::state::{State, Tensors};
use super::weight::Weight;
use crate::failure::{Failure, Result};

/// What a forward pass is for.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Batch norms use their running statistics; nothing is dropped.
    Evaluate,
    /// Batch norms use the batch's statistics; dropout draws the masks of this seed and step.
    Train {
        /// The experiment's seed.
        seed: u64,
        /// The step, from 0.
        step: u64,
    },
    /// The same, the masks drawn on the device: a captured pass reads the step anew each time.
    TrainAt {
        /// The experiment's seed.
        seed: u64,
        /// The step, from 0: one integer.
        step: &'a Tensor,
    },
}

impl Mode<'_> {
    /// Whether it is training.
    pub fn trains(self) -> bool {
        !matches!(self, Mode::Evaluate)
    }
}

/// A layer with its tensors.
#[derive(Debug)]
pub(super) enum Module {
    Conv {
        weight: Weight,
        bias: Option<Tensor>,
        stride: i64,
        padding: i64,
        groups: Groups,
    },
    LearnedGroupConv(LearnedGroupConv),
    BatchNorm(BatchNorm),
    Dropout(Dropout),
    Gather {
        index: Tensor,
    },
    Linear {
        weight: Weight,
        bias: Tensor,
    },
    /// One without tensors.
    Plain(Op),
}

impl Module {
    /// Makes a layer, and its tensors in a state; `dropout` is the probability of all dropouts.
    pub fn new(layer: &Layer, state: &mut State, dropout: f64) -> Result<Module> {
        let mut tensors = state.add(layer)?;
        Ok(match layer.op {
            Op::Conv { kernel, stride, groups, bias } => Module::Conv {
                weight: Weight::new(tensors.take("weight")?, None),
                bias: if bias { Some(tensors.take("bias")?) } else { None },
                stride: i64::from(stride),
                padding: i64::from(kernel / 2),
                groups: Groups::new(groups, kernel, state)?,
            },
            Op::LearnedGroupConv { groups, condense_factor } => {
                Module::LearnedGroupConv(LearnedGroupConv::new(layer, groups, condense_factor, tensors)?)
            }
            Op::BatchNorm => Module::BatchNorm(BatchNorm::new(tensors)?),
            Op::Dropout { number } => Module::Dropout(Dropout { probability: dropout, layer: number }),
            Op::Gather => Module::Gather { index: tensors.take("index")? },
            Op::Linear => Module::Linear {
                weight: Weight::new(tensors.take("weight")?, None),
                bias: tensors.take("bias")?,
            },
            op => Module::Plain(op),
        })
    }

    /// The weight of a convolution or linear layer.
    pub fn weight(&self) -> Option<&Weight> {
        match self {
            Module::Conv { weight, .. } | Module::Linear { weight, .. } => Some(weight),
            Module::LearnedGroupConv(conv) => Some(conv.weight()),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn weight_mut(&mut self) -> Option<&mut Weight> {
        match self {
            Module::Conv { weight, .. } | Module::Linear { weight, .. } => Some(weight),
            Module::LearnedGroupConv(conv) => Some(conv.weight_mut()),
            _ => None,
        }
    }

    /// Maps [n, channels, h, w] to such a map; a linear layer and what is pooled wholly have [n, channels].
    pub fn forward(&self, inputs: &[&Tensor], mode: Mode<'_>) -> Result<Tensor> {
        let [x, others @ ..] = inputs else {
            return Err(Failure::internal("a layer of the network sees nothing"));
        };
        Ok(match self {
            Module::Conv { weight, bias, stride, padding, groups } => {
                let (weight, groups) = groups.computed(weight.entering(mode)?)?;
                x.f_conv2d(&weight, bias.as_ref(), [*stride; 2], [*padding; 2], [1, 1], groups)?
            }
            Module::LearnedGroupConv(conv) => conv.forward(x, mode)?,
            Module::BatchNorm(norm) => norm.forward(x, mode)?,
            Module::Dropout(dropout) => dropout.forward(x, mode)?,
            Module::Gather { index } => x.f_index_select(1, index)?,
            Module::Linear { weight, bias } => x.f_linear(&weight.entering(mode)?, Some(bias))?,
            Module::Plain(op) => plain(*op, x, others)?,
        })
    }
}

fn plain(op: Op, x: &Tensor, others: &[&Tensor]) -> Result<Tensor> {
    let square = |edge: u32| [i64::from(edge); 2];
    Ok(match op {
        Op::Relu => x.f_relu()?,
        Op::MaxPool { kernel, stride, padding } => {
            x.f_max_pool2d(square(kernel), square(stride), square(padding), [1, 1], false)?
        }
        Op::AvgPool { kernel, stride, padding } => {
            x.f_avg_pool2d(square(kernel), square(stride), square(padding), false, true, None)?
        }
        Op::GlobalAvgPool => x.f_mean_dim([2i64, 3].as_slice(), false, None)?,
        Op::Flatten => x.f_flatten(1, -1)?,
        Op::Shuffle { groups } => x.f_channel_shuffle(i64::from(groups))?,
        Op::Concat => Tensor::f_cat(&[&[x], others].concat(), 1)?,
        Op::Add => others.iter().try_fold(x.shallow_clone(), |sum, other| sum.f_add(other))?,
        _ => x.shallow_clone(),
    })
}

/// Batch normalisation over the channels, eps 1e-5, momentum 0.1.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    fn new(mut tensors: Tensors) -> Result<BatchNorm> {
        Ok(BatchNorm {
            weight: tensors.take("weight")?,
            bias: tensors.take("bias")?,
            running_mean: tensors.take("running_mean")?,
            running_var: tensors.take("running_var")?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        Ok(x.f_batch_norm(weight, bias, mean, var, mode.trains(), 0.1, 1e-5, true)?)
    }
}
