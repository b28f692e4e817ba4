//! Stochastic gradient descent with (Nesterov) momentum and weight decay, over all parameters at once.
//!
//! The parameters of a network are views of one flat tensor, and so is the momentum: an update is a handful of
//! operations, not a handful for each of hundreds of tensors.

use std::collections::BTreeMap;

use cnx_proto::spec::Train;
use tch::{Kind, Tensor};

use crate::failure::{Failure, Result};
use crate::model::state::State;
use crate::native;

/// The prefix of momenta in a checkpoint.
const PREFIX: &str = "optimizer.momentum.";

/// The optimizer's state.
#[derive(Debug)]
pub struct Sgd {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    flat: Tensor,
    momentum: Tensor,
    factor: f64,
    nesterov: bool,
    weight_decay: f64,
    channels_last: bool,
}

impl Sgd {
    /// Takes over the parameters of a network: from now on they are views of one tensor.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(state: &State, train: &Train) -> Result<Sgd> {
        let names = state.parameters().map(|entry| entry.name.clone()).collect();
        let parameters: Vec<Tensor> = state.parameters().map(|entry| entry.tensor.shallow_clone()).collect();
        tch::no_grad(|| {
            let Train { momentum: factor, nesterov, weight_decay, channels_last, .. } = *train;
            let flat = flatten(&parameters, channels_last)?;
            let mut views = parameters.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
            for (parameter, view) in views.iter_mut().zip(views_of(&flat, &parameters, channels_last)?) {
                parameter.f_set_data(&view)?;
            }
            let momentum = flat.f_zeros_like()?;
            Ok(Sgd { names, parameters, flat, momentum, factor, nesterov, weight_decay, channels_last })
        })
    }

    /// One step down the gradient of `loss`.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn step(&mut self, loss: &Tensor, learning_rate: f64) -> Result<()> {
        let gradients = Tensor::f_run_backward(&[loss], &self.parameters, false, false)?;
        self.apply(&self.flatten(&gradients)?, learning_rate)
    }

    /// One step against a gradient that is there: that of all parameters, one after another.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn apply(&mut self, gradient: &Tensor, learning_rate: f64) -> Result<()> {
        self.descend(gradient, |direction| Ok(direction.f_mul_scalar(learning_rate)?))
    }

    /// The same with a learning rate on the device, without dimensions and of the parameters' kind: a captured step reads it anew
    /// each time. In single precision it is one pass, whose products need not be rounded before they are added.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn apply_at(&mut self, gradient: &Tensor, learning_rate: &Tensor) -> Result<()> {
        if self.flat.kind() != Kind::Float {
            return self.descend(gradient, |direction| Ok(direction.f_mul(learning_rate)?));
        }
        let Sgd { flat, momentum, factor, nesterov, weight_decay, .. } = self;
        native::fused_sgd(flat, gradient, momentum, learning_rate, *weight_decay, *factor, *nesterov)
    }

    /// All parameters, one after another, as [`Sgd::apply`] takes their gradient.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// The parameters, in that order.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Views of a tensor like [`Sgd::flat`], with the parameters' shapes.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn views(&self, flat: &Tensor) -> Result<Vec<Tensor>> {
        views_of(flat, &self.parameters, self.channels_last)
    }

    /// All elements of tensors with shapes of parameters, one after another as in [`Sgd::flat`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn flatten(&self, tensors: &[Tensor]) -> Result<Tensor> {
        tch::no_grad(|| flatten(tensors, self.channels_last))
    }

    fn descend(&mut self, gradient: &Tensor, scaled: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        tch::no_grad(|| {
            let mut gradient = gradient.shallow_clone();
            if self.weight_decay != 0.0 {
                gradient = gradient.f_add(&self.flat.f_mul_scalar(self.weight_decay)?)?;
            }
            let _ = self.momentum.f_mul_scalar_(self.factor)?.f_add_(&gradient)?;
            let direction = match self.nesterov {
                true => gradient.f_add(&self.momentum.f_mul_scalar(self.factor)?)?,
                false => self.momentum.shallow_clone(),
            };
            let _ = self.flat.f_sub_(&scaled(&direction)?)?;
            Ok(())
        })
    }

    /// The momentum of every parameter, under its name in a checkpoint.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, momentum) in self.names.iter().zip(self.views(&self.momentum)?) {
            tensors.insert(format!("{PREFIX}{name}"), momentum.f_detach_copy()?);
        }
        Ok(tensors)
    }

    /// Sets the momentum of every parameter from a checkpoint.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, mut momentum) in self.names.iter().zip(self.views(&self.momentum)?) {
            let source = tensors.get(&format!("{PREFIX}{name}"));
            let source = source.filter(|source| source.size() == momentum.size()).ok_or_else(|| {
                Failure::bad_spec(format!("the checkpoint has no momentum of the shape of {name}"))
            })?;
            momentum.f_copy_(source)?;
        }
        Ok(())
    }
}

/// All elements, one tensor after another; with `channels_last`, those of four dimensions with the second innermost.
fn flatten(tensors: &[Tensor], channels_last: bool) -> Result<Tensor> {
    let flat = |tensor: &Tensor| match tensor.dim() {
        4 if channels_last => tensor.f_permute([0, 2, 3, 1])?.f_reshape([-1]),
        _ => tensor.f_reshape([-1]),
    };
    let flat: Result<Vec<Tensor>, _> = tensors.iter().map(flat).collect();
    Ok(Tensor::f_cat(&flat?, 0)?)
}

/// Views of `flat`, as [`flatten`] made it, with the shapes of `tensors`.
fn views_of(flat: &Tensor, tensors: &[Tensor], channels_last: bool) -> Result<Vec<Tensor>> {
    let mut start = 0;
    let mut views = Vec::new();
    for tensor in tensors {
        let length = tensor.numel() as i64;
        let part = flat.f_narrow(0, start, length)?;
        views.push(match tensor.size().as_slice() {
            &[outputs, inputs, height, width] if channels_last => {
                part.f_view([outputs, height, width, inputs])?.f_permute([0, 3, 1, 2])?
            }
            size => part.f_view(size)?,
        });
        start += length;
    }
    Ok(views)
}
