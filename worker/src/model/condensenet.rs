//! CondenseNet (paper, section 3.3): growth doubles from block to block, and a transition only halves the map, so
//! that every layer sees all layers before it, across blocks.

use super::dense_block::{DenseBlock, Transition};
use super::state::Scope;
use super::{Plan, Stage};
use crate::failure::Result;

pub(crate) fn stages(scope: &mut Scope<'_>, plan: &mut Plan<'_>, channels: &mut i64) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for (i, (&layers, &growth)) in plan.model.stages.iter().zip(plan.model.growth.iter()).enumerate() {
        let last = i + 1 == plan.model.stages.len();
        let block_scope = scope.at(&format!("denseblock_{}", i + 1));
        let block = DenseBlock::new(block_scope, plan, layers, growth, channels)?;
        let transition = (!last).then_some(Transition { conv: None });
        stages.push(Stage { block, transition });
    }
    Ok(stages)
}
