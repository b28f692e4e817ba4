//! Weights as a step computes with them, masked and rounded, made of all parameters in one product; and their gradients, gathered
//! likewise. A GPU takes as long to begin an operation as to multiply all of a network's weights.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::failure::Result;
use crate::model::Network;
use crate::optimizer::Sgd;

/// The weights of a network that are not what their parameters are, at the same addresses step after step.
#[derive(Debug)]
pub struct Working {
    /// As [`Sgd::flat`]: 1, but 0 where a mask is.
    mask: Tensor,
    /// All parameters times `mask`; in bfloat16, if weights enter in it.
    weights: Tensor,
    /// What enters the network in a step for each parameter: a view of `weights`, or the parameter.
    entering: Vec<Tensor>,
    /// Where weights enter in bfloat16: the place of each element of [`Sgd::flat`] among all such elements and then the others.
    order: Option<Tensor>,
}

impl Working {
    /// Those of a network whose parameters an optimizer has: of learned group convolutions the masked weights; with `bfloat16` all
    /// weights, rounded. The network's masks become views of one tensor, and its training passes on the device see these.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(network: &mut Network, optimizer: &Sgd, bfloat16: bool) -> Result<Working> {
        let mask = tch::no_grad(|| optimizer.flat().f_ones_like())?;
        let kind = if bfloat16 { Kind::BFloat16 } else { mask.kind() };
        let weights = mask.f_zeros_like()?.f_to_kind(kind)?;
        let (masks, views) = (optimizer.views(&mask)?, optimizer.views(&weights)?);
        let mut working = BTreeMap::new();
        for (place, weight) in network.weights() {
            if let Some(own) = weight.mask() {
                let (mut own, mut view) = (own.shallow_clone(), masks[place].shallow_clone());
                view.f_copy_(&own)?;
                own.f_set_data(&view)?;
            }
            if bfloat16 || weight.mask().is_some() {
                let mut leaf = views[place].f_empty_like()?;
                leaf.f_set_data(&views[place])?;
                working.insert(place, leaf.f_set_requires_grad(true)?);
            }
        }
        network.set_working(&working);
        let parameters = optimizer.parameters().iter().enumerate();
        let entering: Vec<Tensor> = parameters
            .map(|(place, parameter)| working.get(&place).unwrap_or(parameter).shallow_clone())
            .collect();
        let order = if bfloat16 { Some(order(&entering)?.f_to_device(mask.device())?) } else { None };
        Ok(Working { mask, weights, entering, order })
    }

    /// Makes them of the parameters as they stand.
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
        let gradients = Tensor::f_run_backward(&[loss], &self.entering, false, false)?;
        tch::no_grad(|| {
            let Some(order) = &self.order else {
                return Ok(optimizer.flatten(&gradients)?.f_mul_(&self.mask)?);
            };
            let (rounded, others): (Vec<Tensor>, Vec<Tensor>) =
                gradients.into_iter().partition(|gradient| gradient.kind() == Kind::BFloat16);
            let rounded = optimizer.flatten(&rounded)?.f_to_kind(self.mask.kind())?;
            let all = Tensor::f_cat(&[rounded, optimizer.flatten(&others)?], 0)?;
            Ok(all.f_index_select(0, order)?.f_mul_(&self.mask)?)
        })
    }
}

/// For each element of tensors, one after another: its place when those in bfloat16 come first.
fn order(tensors: &[Tensor]) -> Result<Tensor> {
    let is_rounded = |tensor: &Tensor| tensor.kind() == Kind::BFloat16;
    let mut rounded = 0;
    let mut other: usize = tensors.iter().filter(|tensor| is_rounded(tensor)).map(Tensor::numel).sum();
    let mut places = Vec::new();
    for tensor in tensors {
        let next = if is_rounded(tensor) { &mut rounded } else { &mut other };
        places.extend((*next..*next + tensor.numel()).map(|place| place as i64));
        *next += tensor.numel();
    }
    Ok(Tensor::f_from_slice(&places)?)
}
