//! The tensors of a layer: names, shapes, and how they start.

use super::{Layer, Op};

/// The buffer in which a batch norm counts the training steps it has seen.
pub const BATCHES_TRACKED: &str = "num_batches_tracked";

/// Whether a tensor is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Trained by gradient descent.
    Parameter,
    /// Kept beside: masks, statistics, counts, indices.
    Buffer,
}

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element this.
    Constant(f64),
    /// Normal, of mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this.
    Uniform(f64),
}

/// A tensor of a state dict.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its sizes, slowest first; none of a single number.
    pub shape: Vec<u64>,
    /// Whether it is trained.
    pub role: Role,
    /// Whether its elements are real numbers; else they are whole ones, of 64 bits.
    pub real: bool,
    /// How it starts.
    pub init: Init,
}

impl Layer {
    /// Its tensors, under their names in the state dict.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let (inputs, outputs) = (self.in_channels, self.out_channels);
        match self.op {
            Op::Conv { kernel, groups, bias, .. } => {
                let edge = u64::from(kernel);
                let shape = [outputs, inputs / u64::from(groups.max(1)), edge, edge];
                let mut tensors = vec![self.parameter("weight", &shape, he(edge, outputs))];
                tensors.extend(bias.then(|| self.parameter("bias", &[outputs], Init::Constant(0.0))));
                tensors
            }
            Op::LearnedGroupConv { .. } => {
                let shape = [outputs, inputs, 1, 1];
                vec![
                    self.parameter("conv.weight", &shape, he(1, outputs)),
                    self.buffer("_mask", &shape, 1.0),
                    self.buffer("_count", &[1], 0.0),
                    self.buffer("_stage", &[1], 0.0),
                ]
            }
            Op::BatchNorm => vec![
                self.whole(BATCHES_TRACKED, &[]),
                self.parameter("weight", &[inputs], Init::Constant(1.0)),
                self.parameter("bias", &[inputs], Init::Constant(0.0)),
                self.buffer("running_mean", &[inputs], 0.0),
                self.buffer("running_var", &[inputs], 1.0),
            ],
            Op::Gather => vec![self.whole("index", &[outputs])],
            Op::Linear => vec![
                self.parameter("weight", &[outputs, inputs], Init::Uniform(1.0 / (inputs as f64).sqrt())),
                self.parameter("bias", &[outputs], Init::Constant(0.0)),
            ],
            _ => Vec::new(),
        }
    }

    fn parameter(&self, name: &str, shape: &[u64], init: Init) -> TensorInfo {
        self.tensor(name, shape, Role::Parameter, true, init)
    }

    fn buffer(&self, name: &str, shape: &[u64], value: f64) -> TensorInfo {
        self.tensor(name, shape, Role::Buffer, true, Init::Constant(value))
    }

    fn whole(&self, name: &str, shape: &[u64]) -> TensorInfo {
        self.tensor(name, shape, Role::Buffer, false, Init::Constant(0.0))
    }

    fn tensor(&self, name: &str, shape: &[u64], role: Role, real: bool, init: Init) -> TensorInfo {
        TensorInfo { name: format!("{}.{name}", self.name), shape: shape.to_vec(), role, real, init }
    }
}

/// Initial weights of a convolution: N(0, sqrt(2/(k·k·out))), whatever its groups.
fn he(kernel: u64, outputs: u64) -> Init {
    Init::Normal((2.0 / (kernel * kernel * outputs) as f64).sqrt())
}
