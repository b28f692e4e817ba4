//! The weights of all learned group convolutions with their masks applied, in one product a step, and in one more backward: a GPU
//! takes as long to begin an operation as to multiply all of a network's weights.

use tch::Tensor;

use crate::failure::Result;
use crate::model::Network;
use crate::optimizer::Sgd;

/// Masked weights of a network, at the same addresses step after step.
#[derive(Debug)]
pub struct Masked {
    /// As [`Sgd::flat`]: 1, but 0 where a mask is.
    mask: Tensor,
    /// All parameters times `mask`.
    weights: Tensor,
    /// What enters the network in a step: of learned group convolutions views of `weights`, else the parameters.
    entering: Vec<Tensor>,
}

impl Masked {
    /// Those of a network whose parameters an optimizer has. The network's masks become views of one tensor, and its training passes
    /// on the device see the masked weights.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(network: &mut Network, optimizer: &Sgd) -> Result<Masked> {
        let mask = tch::no_grad(|| optimizer.flat().f_ones_like())?;
        let weights = mask.f_zeros_like()?;
        let mut entering: Vec<Tensor> = optimizer.parameters().iter().map(Tensor::shallow_clone).collect();
        let (masks, views) = (optimizer.views(&mask)?, optimizer.views(&weights)?);
        for (place, own_mask) in network.masks() {
            let mut view = masks[place].shallow_clone();
            let mut own_mask = own_mask.shallow_clone();
            tch::no_grad(|| -> Result<()> {
                view.f_copy_(&own_mask)?;
                Ok(own_mask.f_set_data(&view)?)
            })?;
            let mut leaf = views[place].f_empty_like()?;
            leaf.f_set_data(&views[place])?;
            entering[place] = leaf.f_set_requires_grad(true)?;
        }
        network.enter_masked(&entering);
        Ok(Masked { mask, weights, entering })
    }

    /// Applies the masks to the parameters as they stand.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn renew(&self, optimizer: &Sgd) -> Result<()> {
        let _ = tch::no_grad(|| optimizer.flat().f_mul_out(&self.weights, &self.mask))?;
        Ok(())
    }

    /// The gradient of a loss with respect to the parameters, one after another.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn gradient(&self, loss: &Tensor, optimizer: &Sgd) -> Result<Tensor> {
        let mut gradient = optimizer.gradient(loss, &self.entering)?;
        Ok(tch::no_grad(|| gradient.f_mul_(&self.mask))?)
    }
}
