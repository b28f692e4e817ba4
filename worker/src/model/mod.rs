//! The networks, read like the paper's figure 2 and 4: a first convolution, dense blocks with transitions between
//! them, a last batch norm, global average pooling, a classifier.
//!
//! Start at [`Network::forward`], then `condensenet.rs`, `dense_block.rs`, `learned_group_conv.rs`.

mod classifier;
mod condensenet;
mod dense_block;
mod densenet;
mod layers;
mod learned_group_conv;
pub mod state;

use std::collections::BTreeMap;

use cnx_proto::Spec;
use cnx_proto::spec::{Arch, Dataset, Model, Precision};
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};
use classifier::Classifier;
use dense_block::{DenseBlock, Transition};
pub use layers::Mode;
use layers::{BatchNorm, Conv};
use learned_group_conv::LearnedGroupConv;
use state::State;

/// As trained, or as deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Learned group convolutions under their masks.
    Large,
    /// Group convolutions over gathered inputs (paper, section 3.2).
    Converted,
}

impl Form {
    /// The form that a state dict is of.
    pub fn of(tensors: &BTreeMap<String, Tensor>) -> Form {
        if tensors.contains_key("classifier.index") { Form::Converted } else { Form::Large }
    }
}

/// What the parts of a network need to know while they are made.
pub(crate) struct Plan<'a> {
    model: &'a Model,
    form: Form,
    layers: u32,
}

impl Plan<'_> {
    /// Numbers the 1×1 convolutions in forward order.
    fn next_layer(&mut self) -> u32 {
        self.layers += 1;
        self.layers
    }
}

#[derive(Debug)]
pub(crate) struct Stage {
    block: DenseBlock,
    transition: Option<Transition>,
}

/// A network and its tensors.
#[derive(Debug)]
pub struct Network {
    state: State,
    form: Form,
    init_conv: Conv,
    stages: Vec<Stage>,
    norm_last: BatchNorm,
    classifier: Classifier,
}

impl Network {
    /// The network of a spec with its initial values.
    ///
    /// # Errors
    /// When libtorch fails, e.g. for want of memory.
    pub fn new(spec: &Spec, form: Form, device: Device) -> Result<Network> {
        let (model, dataset) = (&spec.model, spec.data.dataset);
        let kind = match spec.train.precision {
            Precision::Float32 => Kind::Float,
            Precision::Float64 => Kind::Double,
        };
        let mut state = State::new(device, kind, spec.train.seed)?;
        let mut root = state.root();
        let mut features = root.at("features");

        let mut plan = Plan { model, form, layers: 0 };
        let mut channels = 2 * i64::from(model.growth.first().copied().unwrap_or_default());
        let stride = if dataset == Dataset::ImageNet { 2 } else { 1 };
        let init_conv = Conv::new(features.at("init_conv"), 3, channels, 3, 1)?.stride(stride);
        let stages = match model.arch {
            Arch::CondenseNet => condensenet::stages(&mut features, &mut plan, &mut channels)?,
            Arch::DenseNet | Arch::DenseNetLgc => densenet::stages(&mut features, &mut plan, &mut channels)?,
        };
        let norm_last = BatchNorm::new(features.at("norm_last"), channels)?;
        let classes = i64::from(dataset.classes());
        let classifier = Classifier::new(root.at("classifier"), form, channels, classes)?;
        Ok(Network { state, form, init_conv, stages, norm_last, classifier })
    }

    /// Logits [n, classes] of normalised images [n, 3, h, w].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forward(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode != Mode::Evaluate {
            self.state.count_batch()?;
        }
        let mut x = self.init_conv.forward(images)?;
        for stage in &self.stages {
            x = stage.block.forward(x, mode)?;
            if let Some(transition) = &stage.transition {
                x = transition.forward(&x, mode)?;
            }
        }
        let x = self.norm_last.relu(&x, mode)?;
        let features = x.f_mean_dim([2i64, 3].as_slice(), false, None)?;
        self.classifier.forward(&features)
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
    pub fn lasso(&self) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for conv in self.learned() {
            let Some(lasso) = conv.lasso()? else { continue };
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

    /// Kept share of the learned group convolutions' weights; 1 for a network that has none.
    pub fn density(&self) -> f64 {
        let (kept, all) =
            self.learned().map(LearnedGroupConv::density).fold((0, 0), |sum, d| (sum.0 + d.0, sum.1 + d.1));
        if all == 0 { 1.0 } else { kept as f64 / all as f64 }
    }

    /// Sets all tensors from a state dict.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
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

    /// The state dict of the converted network.
    ///
    /// # Errors
    /// When condensing is not over, or the network has nothing to convert.
    pub(crate) fn converted_state(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.form == Form::Converted {
            return Err(Failure::bad_spec("cannot convert: the model is converted already"));
        }
        if self.learned().next().is_none() {
            return Err(Failure::bad_spec(
                "cannot convert: the network has no learned group convolutions (condensenet and densenet-lgc have)",
            ));
        }
        let mut tensors = self.state.snapshot()?;
        for conv in self.learned() {
            tensors.extend(conv.converted()?);
        }
        tensors.extend(self.classifier.converted()?);
        Ok(tensors)
    }

    /// The learned group convolutions, in forward order.
    fn learned(&self) -> impl Iterator<Item = &LearnedGroupConv> {
        self.stages.iter().flat_map(|stage| {
            let transition = stage.transition.as_ref().and_then(|t| t.conv.as_ref());
            stage.block.learned().chain(transition.and_then(|conv| conv.learned()))
        })
    }
}
