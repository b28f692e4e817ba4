//! Dense layers, and what stands between dense blocks.

use cnx_proto::spec::Model;
use tch::Tensor;

use super::layers::{Dropout, Mode, NormReluConv};
use super::learned_group_conv::{CondensedConv, LearnedGroupConv, Shape};
use super::state::Scope;
use super::{Form, Plan};
use crate::failure::Result;

/// The 1×1 convolution of a network, in one of its three kinds.
#[derive(Debug)]
pub enum OneByOne {
    /// Of a DenseNet.
    Plain(NormReluConv),
    /// Of a network that condenses.
    Learned(LearnedGroupConv),
    /// What the learned one converts to.
    Condensed(CondensedConv),
}

impl OneByOne {
    pub(crate) fn new(scope: Scope<'_>, plan: &mut Plan<'_>, inputs: i64, outputs: i64) -> Result<OneByOne> {
        let model = plan.model;
        let groups = i64::from(model.group_1x1);
        let dropout = Dropout { probability: model.dropout, layer: plan.next_layer() };
        let shape = Shape { inputs, outputs, groups, condense_factor: model.condense_factor };
        Ok(match plan.form {
            _ if !model.arch.condenses() => {
                OneByOne::Plain(NormReluConv::new(scope, inputs, outputs, 1, groups)?.dropout(dropout))
            }
            Form::Large => OneByOne::Learned(LearnedGroupConv::new(scope, shape, dropout)?),
            Form::Converted => OneByOne::Condensed(CondensedConv::new(scope, shape)?),
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        match self {
            OneByOne::Plain(conv) => conv.forward(x, mode),
            OneByOne::Learned(conv) => conv.forward(x, mode),
            OneByOne::Condensed(conv) => conv.forward(x, mode),
        }
    }

    pub(crate) fn learned(&self) -> Option<&LearnedGroupConv> {
        if let OneByOne::Learned(conv) = self { Some(conv) } else { None }
    }
}

/// Adds `growth` channels to those that enter it: a 1×1 convolution to bottleneck × growth channels, then a 3×3
/// convolution, whose outputs are appended.
#[derive(Debug)]
pub struct DenseLayer {
    conv_1: OneByOne,
    conv_2: NormReluConv,
}

impl DenseLayer {
    fn new(mut scope: Scope<'_>, plan: &mut Plan<'_>, inputs: i64, growth: i64) -> Result<DenseLayer> {
        let Model { bottleneck, group_3x3, .. } = plan.model;
        let middle = i64::from(*bottleneck) * growth;
        Ok(DenseLayer {
            conv_1: OneByOne::new(scope.at("conv_1"), plan, inputs, middle)?,
            conv_2: NormReluConv::new(scope.at("conv_2"), middle, growth, 3, i64::from(*group_3x3))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let new = self.conv_2.forward(&self.conv_1.forward(x, mode)?, mode)?;
        Ok(Tensor::f_cat(&[x, &new], 1)?)
    }
}

/// Dense layers, one after another.
#[derive(Debug)]
pub struct DenseBlock(Vec<DenseLayer>);

impl DenseBlock {
    /// Builds the block, and moves `channels` on from those that enter to those that leave.
    pub(crate) fn new(
        mut scope: Scope<'_>,
        plan: &mut Plan<'_>,
        layers: u32,
        growth: u32,
        channels: &mut i64,
    ) -> Result<DenseBlock> {
        let growth = i64::from(growth);
        let mut block = Vec::new();
        for layer in 1..=layers {
            block.push(DenseLayer::new(scope.at(&format!("denselayer_{layer}")), plan, *channels, growth)?);
            *channels += growth;
        }
        Ok(DenseBlock(block))
    }

    pub(crate) fn forward(&self, mut x: Tensor, mode: Mode) -> Result<Tensor> {
        for layer in &self.0 {
            x = layer.forward(&x, mode)?;
        }
        Ok(x)
    }

    pub(crate) fn learned(&self) -> impl Iterator<Item = &LearnedGroupConv> {
        self.0.iter().filter_map(|layer| layer.conv_1.learned())
    }
}

/// Between two blocks: halves the map; a DenseNet's also reduces the channels.
#[derive(Debug)]
pub struct Transition {
    /// Reduces the channels, where it does.
    pub conv: Option<OneByOne>,
}

impl Transition {
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let reduced = self.conv.as_ref().map(|conv| conv.forward(x, mode)).transpose()?;
        Ok(reduced.as_ref().unwrap_or(x).f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)?)
    }
}
