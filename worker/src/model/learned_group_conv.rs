//! The learned group convolution (paper, section 3.1) and what it converts to (section 3.2).

use std::cell::Cell;

use tch::{Kind, Tensor};

use super::layers::{BATCHES_TRACKED, BatchNorm, Conv, Dropout, Mode, kaiming};
use super::state::{Scope, to_host};
use crate::condensing;
use crate::failure::{Failure, Result};

/// Batch norm, ReLU, dropout, and a 1×1 convolution whose groups learn which inputs they need: stage by stage, each
/// drops its weakest, until it has 1/C of them. Output o belongs to group o mod G.
#[derive(Debug)]
pub struct LearnedGroupConv {
    name: String,
    norm: BatchNorm,
    dropout: Dropout,
    weight: Tensor,
    /// [outputs, inputs, 1, 1]: 1 where the output's group still uses the input, 0 where it dropped it.
    mask: Tensor,
    count: Tensor,
    stage: Tensor,
    shape: Shape,
    /// What `stage` holds, on the host: asking the device every step would wait for it.
    reached: Cell<u32>,
}

/// The sizes of a learned group convolution.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Channels that enter.
    pub inputs: i64,
    /// Channels that leave.
    pub outputs: i64,
    /// Groups G.
    pub groups: i64,
    /// Condense factor C.
    pub condense_factor: u32,
}

impl LearnedGroupConv {
    pub(crate) fn new(mut scope: Scope<'_>, shape: Shape, dropout: Dropout) -> Result<LearnedGroupConv> {
        let sizes = [shape.outputs, shape.inputs, 1, 1];
        Ok(LearnedGroupConv {
            name: scope.path().to_owned(),
            norm: BatchNorm::new(scope.at("norm"), shape.inputs)?,
            dropout,
            weight: scope.at("conv").parameter("weight", &sizes, kaiming(1, shape.outputs))?,
            mask: scope.buffer("_mask", &sizes, 1.0)?,
            count: scope.buffer("_count", &[1], 0.0)?,
            stage: scope.buffer("_stage", &[1], 0.0)?,
            shape,
            reached: Cell::new(0),
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = self.dropout.forward(self.norm.relu(x, mode)?, mode)?;
        let weight = self.weight.f_mul(&self.mask)?;
        Ok(x.f_conv2d(&weight, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1)?)
    }

    /// Drops inputs until those of a condensing stage are gone; a stage that has been reached changes nothing.
    pub(crate) fn condense_to(&self, stage: u32) -> Result<()> {
        if stage <= self.reached.get() {
            return Ok(());
        }
        let (inputs, groups) = (self.shape.inputs as usize, self.shape.groups as usize);
        let dropped = condensing::dropped(stage, inputs, self.shape.condense_factor);
        let mut mask = to_host(&self.mask)?;
        condensing::drop_weakest(&to_host(&self.weight)?, &mut mask, inputs, groups, dropped);
        let mask = Tensor::f_from_slice(&mask)?.f_view_as(&self.mask)?;
        tch::no_grad(|| -> Result<()> {
            self.mask.shallow_clone().f_copy_(&mask)?;
            let _ = self.count.shallow_clone().f_fill_(dropped as f64)?;
            let _ = self.stage.shallow_clone().f_fill_(f64::from(stage))?;
            Ok(())
        })?;
        self.reached.set(stage);
        Ok(())
    }

    /// Reads back which stage was reached, after the state was loaded.
    pub(crate) fn refresh(&self) -> Result<()> {
        let stage = to_host(&self.stage)?.first().copied().unwrap_or(0.0);
        self.reached.set(stage as u32);
        Ok(())
    }

    /// Inputs that each group has dropped so far.
    pub fn dropped(&self) -> usize {
        condensing::dropped(self.reached.get(), self.shape.inputs as usize, self.shape.condense_factor)
    }

    /// Weights in use, and all weights.
    pub(crate) fn density(&self) -> (u64, u64) {
        let all = (self.shape.outputs * self.shape.inputs) as u64;
        (all - self.shape.outputs as u64 * self.dropped() as u64, all)
    }

    /// Σ over groups and inputs of sqrt(Σ w², at least 1e-6), w being the masked weights from the input to the group's
    /// outputs; nothing once condensing is over.
    pub(crate) fn lasso(&self) -> Result<Option<Tensor>> {
        let Shape { inputs, groups, condense_factor, .. } = self.shape;
        if self.reached.get() + 1 >= condense_factor {
            return Ok(None);
        }
        let squares = self.weight.f_mul(&self.mask)?.f_square()?.f_view([-1, groups, inputs])?;
        let sums = squares.f_sum_dim_intlist([0i64].as_slice(), false, None)?;
        Ok(Some(sums.f_clamp_min(1e-6)?.f_sqrt()?.f_sum(None)?))
    }

    /// The tensors of the group convolution that computes the same, under their names in the converted state dict.
    ///
    /// # Errors
    /// When not exactly 1/C of the inputs are left in every group.
    pub(crate) fn converted(&self) -> Result<Vec<(String, Tensor)>> {
        let Shape { inputs, outputs, groups, condense_factor } = self.shape;
        let expected = inputs as usize / condense_factor as usize;
        let kept = condensing::surviving(&to_host(&self.mask)?, inputs as usize, groups as usize);
        let kept = kept.filter(|kept| kept.iter().all(|inputs| inputs.len() == expected)).ok_or_else(|| {
            let (name, stage, last) = (&self.name, self.reached.get(), condense_factor - 1);
            Failure::bad_spec(format!(
                "cannot convert: condensing is not over: every group of {name} must keep exactly {expected} of its {inputs} \
                 inputs (1/{condense_factor}), but the mask says otherwise (stage {stage} of {last}); train on, past \
                 half of the epochs"
            ))
        })?;

        let device = self.weight.device();
        let index: Vec<i64> = kept.iter().flatten().map(|&input| input as i64).collect();
        let index = Tensor::f_from_slice(&index)?.f_to_device(device)?;
        // Row o = k·G + g of the weight becomes row k of group g; the channel shuffle after it undoes that.
        let per_group = self.weight.f_detach()?.f_view([outputs / groups, groups, inputs])?;
        let mut blocks = Vec::new();
        for (group, inputs) in kept.iter().enumerate() {
            let inputs: Vec<i64> = inputs.iter().map(|&input| input as i64).collect();
            let inputs = Tensor::f_from_slice(&inputs)?.f_to_device(device)?;
            blocks.push(per_group.f_select(1, group as i64)?.f_index_select(1, &inputs)?);
        }
        let weight = Tensor::f_cat(&blocks, 0)?.f_view([outputs, expected as i64, 1, 1])?;

        let name = |tensor: &str| format!("{}.{tensor}", self.name);
        let mut out = vec![(name("index"), index.shallow_clone()), (name("conv.weight"), weight)];
        out.push((name(&format!("norm.{BATCHES_TRACKED}")), Tensor::f_zeros([0; 0], (Kind::Int64, device))?));
        for (suffix, tensor) in self.norm.per_channel() {
            let gathered = tensor.f_detach()?.f_index_select(0, &index)?;
            out.push((name(&format!("norm.{suffix}")), gathered));
        }
        Ok(out)
    }
}

/// A converted learned group convolution: gather the inputs that each group kept, batch norm, ReLU, grouped 1×1
/// convolution, channel shuffle.
#[derive(Debug)]
pub struct CondensedConv {
    index: Tensor,
    norm: BatchNorm,
    conv: Conv,
    groups: i64,
}

impl CondensedConv {
    pub(crate) fn new(mut scope: Scope<'_>, shape: Shape) -> Result<CondensedConv> {
        let Shape { inputs, outputs, groups, condense_factor } = shape;
        let gathered =
            cnx_proto::architecture::gathered_channels(inputs as u64, groups as u32, condense_factor) as i64;
        Ok(CondensedConv {
            index: scope.index("index", &[gathered])?,
            norm: BatchNorm::converted(scope.at("norm"), gathered)?,
            conv: Conv::new(scope.at("conv"), gathered, outputs, 1, groups)?,
            groups,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = x.f_index_select(1, &self.index)?;
        let x = self.conv.forward(&self.norm.relu(&x, mode)?)?;
        Ok(x.f_channel_shuffle(self.groups)?)
    }
}
