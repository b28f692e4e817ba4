//! The weight of a convolution or of a linear layer.

use tch::Tensor;

use super::layers::Mode;
use crate::failure::Result;

/// A weight, and what enters the layer for it.
#[derive(Debug)]
pub struct Weight {
    parameter: Tensor,
    mask: Option<Tensor>,
    /// What somebody else keeps for passes in [`Mode::TrainAt`]: the parameter times the mask, perhaps of another kind.
    working: Option<Tensor>,
}

impl Weight {
    pub(super) fn new(parameter: Tensor, mask: Option<Tensor>) -> Weight {
        Weight { parameter, mask, working: None }
    }

    /// What the layer computes with.
    pub(super) fn entering(&self, mode: Mode<'_>) -> Result<Tensor> {
        Ok(match (mode, &self.working, &self.mask) {
            (Mode::TrainAt { .. }, Some(working), _) => working.shallow_clone(),
            (_, _, Some(mask)) => self.parameter.f_mul(mask)?,
            (_, _, None) => self.parameter.shallow_clone(),
        })
    }

    /// The trained tensor.
    pub fn parameter(&self) -> &Tensor {
        &self.parameter
    }

    /// 1 where it is used, 0 where it is not; none: all of it is.
    pub fn mask(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }

    pub(super) fn set_working(&mut self, working: &Tensor) {
        self.working = Some(working.shallow_clone());
    }
}
