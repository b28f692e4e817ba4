//! The networks on libtorch. What a network is made of stands in [`cnx_proto::architecture`]; here its layers get tensors and
//! run.
//!
//! Start at [`Network::forward`], then `layers.rs` and `learned_group_conv.rs`.

mod convert;
mod dropout;
mod groups;
mod layers;
mod learned_group_conv;
pub mod state;
mod weight;

use std::collections::BTreeMap;

use cnx_proto::Spec;
pub use cnx_proto::architecture::Form;
use cnx_proto::architecture::{self, Layer};
use cnx_proto::spec::Precision;
use tch::{Device, Kind, Tensor};

use crate::failure::Result;
use crate::native::{self, Autocast};
pub(crate) use dropout::dropout_mask;
pub use layers::Mode;
use layers::Module;
use learned_group_conv::LearnedGroupConv;
use state::State;
pub use weight::Weight;

/// A network and its tensors.
#[derive(Debug)]
pub struct Network {
    state: State,
    form: Form,
    layers: Vec<Layer>,
    /// One a layer.
    modules: Vec<Module>,
    /// For each layer the last one that sees its map.
    last_uses: Vec<usize>,
    /// Products and convolutions compute in bfloat16.
    bfloat16: bool,
    channels_last: bool,
}

impl Network {
    /// The network of a spec with its initial values.
    ///
    /// # Errors
    /// When libtorch fails, e.g. for want of memory.
    pub fn new(spec: &Spec, form: Form, device: Device) -> Result<Network> {
        let kind = match spec.train.precision {
            Precision::Float64 => Kind::Double,
            Precision::Float32 | Precision::Tf32 | Precision::Bfloat16 => Kind::Float,
        };
        let layers = architecture::layers(&spec.model, spec.data.dataset, form);
        let mut state = State::new(device, kind, spec.train.seed, form)?;
        let module = |layer: &Layer| Module::new(layer, &mut state, spec.model.dropout);
        let modules = layers.iter().map(module).collect::<Result<_>>()?;
        let mut last_uses = vec![0; layers.len()];
        for (i, layer) in layers.iter().enumerate() {
            layer.inputs.iter().for_each(|&input| last_uses[input] = i);
        }
        let (bfloat16, channels_last) =
            (spec.train.precision == Precision::Bfloat16, spec.train.channels_last);
        Ok(Network { state, form, layers, modules, last_uses, bfloat16, channels_last })
    }

    /// Logits [n, classes] of normalised images [n, 3, h, w].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forward(&mut self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        if mode.trains() {
            self.count_batch()?;
        }
        let device = self.state.device();
        let _autocast = if self.bfloat16 { Some(Autocast::bfloat16(device)?) } else { None };
        // The first layer is the input.
        let mut x = if self.channels_last { native::channels_last(images)? } else { images.shallow_clone() };
        let mut maps = vec![Some(x.shallow_clone())];
        for (i, (layer, module)) in self.layers.iter().zip(&self.modules).enumerate().skip(1) {
            let inputs: Vec<&Tensor> =
                layer.inputs.iter().filter_map(|&input| maps[input].as_ref()).collect();
            x = module.forward(&inputs, mode)?;
            maps.push(Some(x.shallow_clone()));
            // What nobody sees any more is freed at once.
            layer
                .inputs
                .iter()
                .filter(|&&input| self.last_uses[input] == i)
                .for_each(|&input| maps[input] = None);
        }
        Ok(x.f_to_kind(self.state.kind())?)
    }

    /// Drops the inputs that a condensing stage says, in every learned group convolution.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn condense_to(&self, stage: u32) -> Result<()> {
        self.learned().try_for_each(|conv| conv.condense_to(stage))
    }

    /// The group lasso: Σ over the learned group convolutions, before λ; nothing once condensing is over.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn lasso(&self, mode: Mode<'_>) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for conv in self.learned() {
            let Some(lasso) = conv.lasso(mode)? else { continue };
            sum = Some(match sum {
                Some(sum) => sum.f_add(&lasso)?,
                None => lasso,
            });
        }
        Ok(sum)
    }

    /// Inputs that each learned group convolution has dropped so far, in forward order.
    pub fn dropped(&self) -> Vec<usize> {
        self.learned().map(LearnedGroupConv::dropped).collect()
    }

    /// The inputs that each group of each learned group convolution keeps, in forward order.
    ///
    /// # Errors
    /// When libtorch fails, or the outputs of a group differ in their inputs.
    pub fn kept(&self) -> Result<Vec<Vec<Vec<usize>>>> {
        self.learned().map(LearnedGroupConv::kept_by_group).collect()
    }

    /// Whether condensing is over; true also where there is nothing to condense.
    pub fn is_condensed(&self) -> bool {
        self.learned().all(LearnedGroupConv::is_condensed)
    }

    /// The weights of convolutions and linear layers, each with its place among the parameters.
    pub fn weights(&self) -> impl Iterator<Item = (usize, &Weight)> {
        let place = |tensor: &Tensor| {
            self.state.parameters().position(|entry| entry.tensor.data_ptr() == tensor.data_ptr())
        };
        let weights = self.modules.iter().filter_map(Module::weight);
        weights.filter_map(move |weight| Some((place(weight.parameter())?, weight)))
    }

    /// Has training passes on the device see these in place of weights; by place among the parameters.
    pub(crate) fn set_working(&mut self, working: &BTreeMap<usize, Tensor>) {
        let places: Vec<usize> = self.weights().map(|(place, _)| place).collect();
        for (weight, place) in self.modules.iter_mut().filter_map(Module::weight_mut).zip(places) {
            if let Some(tensor) = working.get(&place) {
                weight.set_working(tensor);
            }
        }
    }

    /// Counts a training step for all batch norms.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn count_batch(&mut self) -> Result<()> {
        self.state.count_batch()
    }

    /// Kept share of the learned group convolutions' weights, as the masks say; 1 for a network that has none.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn density(&self) -> Result<f64> {
        let (mut kept, mut all) = (0, 0);
        for conv in self.learned() {
            let density = conv.density()?;
            (kept, all) = (kept + density.0, all + density.1);
        }
        Ok(if all == 0 { 1.0 } else { kept as f64 / all as f64 })
    }

    /// Sets all tensors from a state dict.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or holds what is not a finite number; when a mask is not that of the
    /// stage that it is said to be at.
    pub fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.state.load(tensors)?;
        self.learned().try_for_each(LearnedGroupConv::refresh)
    }

    /// The tensors, their names and roles.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// As trained, or as deployed.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The learned group convolutions, in forward order.
    fn learned(&self) -> impl Iterator<Item = &LearnedGroupConv> {
        self.modules.iter().filter_map(|module| match module {
            Module::LearnedGroupConv(conv) => Some(conv),
            _ => None,
        })
    }
}
