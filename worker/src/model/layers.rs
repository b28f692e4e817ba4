//! Batch norm, convolution, dropout, and the unit of all three that the networks are made of.

use cnx_proto::random::{Purpose, Stream};
use tch::{Kind, Tensor};

use super::state::{Init, Scope};
use crate::failure::Result;

/// The buffer in which a batch norm counts the training steps it has seen.
pub(crate) const BATCHES_TRACKED: &str = "num_batches_tracked";

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch norms use their running statistics; nothing is dropped.
    Evaluate,
    /// Batch norms use the batch's statistics; dropout draws the masks of this seed and step.
    Train {
        /// The experiment's seed.
        seed: u64,
        /// The step, from 0.
        step: u64,
    },
}

impl Mode {
    fn trains(self) -> bool {
        self != Mode::Evaluate
    }
}

/// Batch normalisation over the channels, eps 1e-5, momentum 0.1.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    pub(crate) fn new(mut scope: Scope<'_>, channels: i64) -> Result<BatchNorm> {
        let _ = scope.batches_tracked(BATCHES_TRACKED);
        BatchNorm::uncounted(scope, channels)
    }

    /// One that never trains, so that its count of training steps stays 0: of a converted convolution.
    pub(crate) fn converted(mut scope: Scope<'_>, channels: i64) -> Result<BatchNorm> {
        let _ = scope.index(BATCHES_TRACKED, &[])?;
        BatchNorm::uncounted(scope, channels)
    }

    fn uncounted(mut scope: Scope<'_>, channels: i64) -> Result<BatchNorm> {
        Ok(BatchNorm {
            weight: scope.parameter("weight", &[channels], Init::Constant(1.0))?,
            bias: scope.parameter("bias", &[channels], Init::Constant(0.0))?,
            running_mean: scope.buffer("running_mean", &[channels], 0.0)?,
            running_var: scope.buffer("running_var", &[channels], 1.0)?,
        })
    }

    /// The tensors that have an element a channel, under their names.
    pub(crate) fn per_channel(&self) -> [(&'static str, &Tensor); 4] {
        [
            ("weight", &self.weight),
            ("bias", &self.bias),
            ("running_mean", &self.running_mean),
            ("running_var", &self.running_var),
        ]
    }

    /// Normalises [n, channels, h, w], then max(x, 0).
    pub(crate) fn relu(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        Ok(x.f_batch_norm(weight, bias, mean, var, mode.trains(), 0.1, 1e-5, true)?.f_relu()?)
    }
}

/// A convolution without bias; the padding keeps the size of the map.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl Conv {
    pub(crate) fn new(
        mut scope: Scope<'_>,
        inputs: i64,
        outputs: i64,
        kernel: i64,
        groups: i64,
    ) -> Result<Conv> {
        let shape = [outputs, inputs / groups, kernel, kernel];
        let weight = scope.parameter("weight", &shape, kaiming(kernel, outputs))?;
        Ok(Conv { weight, stride: 1, padding: kernel / 2, groups })
    }

    pub(crate) fn stride(self, stride: i64) -> Conv {
        Conv { stride, ..self }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(x.f_conv2d(&self.weight, None::<&Tensor>, stride, padding, [1, 1], self.groups)?)
    }
}

/// Initial weights of a convolution: N(0, sqrt(2/(k·k·out))), whatever its groups.
pub(crate) fn kaiming(kernel: i64, outputs: i64) -> Init {
    Init::Normal((2.0 / (kernel * kernel * outputs) as f64).sqrt())
}

/// Sets activations to 0 with a probability, and scales up the others, in training.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// The probability.
    pub probability: f64,
    /// Tells the masks of a step apart.
    pub layer: u32,
}

impl Dropout {
    pub(crate) fn forward(self, x: Tensor, mode: Mode) -> Result<Tensor> {
        let Mode::Train { seed, step } = mode else { return Ok(x) };
        if self.probability == 0.0 {
            return Ok(x);
        }
        let mask = self.mask(seed, step, x.numel());
        let mask = Tensor::f_from_data_size(&mask, &x.size(), Kind::Uint8)?.f_to_device(x.device())?;
        Ok(x.f_mul(&mask.f_to_kind(x.kind())?)?.f_mul_scalar(1.0 / (1.0 - self.probability))?)
    }

    /// 1 where kept, 0 where dropped. Drawn on the host with 16 bits an element, so the probability is rounded to a
    /// multiple of 2⁻¹⁶: a step has millions of elements.
    fn mask(self, seed: u64, step: u64, elements: usize) -> Vec<u8> {
        let mut random = Stream::new(seed, Purpose::Dropout, [step as u32, self.layer]);
        let threshold = (self.probability * 65536.0).round() as u32;
        let mut mask = Vec::with_capacity(elements + 1);
        while mask.len() < elements {
            let bits = random.next_u32();
            mask.push(u8::from(bits & 0xffff >= threshold));
            mask.push(u8::from(bits >> 16 >= threshold));
        }
        mask.truncate(elements);
        mask
    }
}

/// Batch norm, ReLU, dropout (where it has one), convolution.
#[derive(Debug)]
pub struct NormReluConv {
    norm: BatchNorm,
    dropout: Option<Dropout>,
    conv: Conv,
}

impl NormReluConv {
    pub(crate) fn new(
        mut scope: Scope<'_>,
        inputs: i64,
        outputs: i64,
        kernel: i64,
        groups: i64,
    ) -> Result<NormReluConv> {
        let norm = BatchNorm::new(scope.at("norm"), inputs)?;
        let conv = Conv::new(scope.at("conv"), inputs, outputs, kernel, groups)?;
        Ok(NormReluConv { norm, dropout: None, conv })
    }

    pub(crate) fn dropout(self, dropout: Dropout) -> NormReluConv {
        NormReluConv { dropout: Some(dropout), ..self }
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = self.norm.relu(x, mode)?;
        if let Some(dropout) = self.dropout {
            x = dropout.forward(x, mode)?;
        }
        self.conv.forward(&x)
    }
}
