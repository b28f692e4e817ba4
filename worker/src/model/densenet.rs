//! DenseNet-BC, and the same with learned group convolutions (paper, section 4.3): a transition reduces the channels by a
//! 1×1 convolution, then halves the map.

use cnx_proto::architecture::transition_channels;

use super::dense_block::{DenseBlock, OneByOne, Transition};
use super::state::Scope;
use super::{Plan, Stage};
use crate::failure::Result;

pub(crate) fn stages(scope: &mut Scope<'_>, plan: &mut Plan<'_>, channels: &mut i64) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    let model = plan.model;
    for (i, (&layers, &growth)) in model.stages.iter().zip(model.growth.iter()).enumerate() {
        let last = i + 1 == model.stages.len();
        let block_scope = scope.at(&format!("denseblock_{}", i + 1));
        let block = DenseBlock::new(block_scope, plan, layers, growth, channels)?;
        let mut transition = None;
        if !last {
            let kept = transition_channels(*channels as u64, model.reduction, model.group_1x1) as i64;
            let mut transition_scope = scope.at(&format!("transition_{}", i + 1));
            let conv = OneByOne::new(transition_scope.at("conv"), plan, *channels, kept)?;
            transition = Some(Transition { conv: Some(conv) });
            *channels = kept;
        }
        stages.push(Stage { block, transition });
    }
    Ok(stages)
}
