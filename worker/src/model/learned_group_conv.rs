//! The learned group convolution (paper, section 3.1) and what it converts to (section 3.2).

use std::cell::Cell;
use std::collections::BTreeMap;

use cnx_proto::architecture::{BATCHES_TRACKED, Layer};
use tch::{Kind, Tensor};

use super::layers::Mode;
use super::state::{Tensors, to_host};
use super::weight::Weight;
use crate::condensing;
use crate::failure::{Failure, Result};

/// A 1×1 convolution whose groups learn which inputs they need: stage by stage, each drops its weakest, until it has 1/C of
/// them. Output o belongs to group o mod G.
#[derive(Debug)]
pub(super) struct LearnedGroupConv {
    name: String,
    weight: Weight,
    /// [outputs, inputs, 1, 1]: 1 where the output's group still uses the input, 0 where it dropped it.
    mask: Tensor,
    count: Tensor,
    stage: Tensor,
    inputs: usize,
    outputs: usize,
    /// Groups G.
    groups: usize,
    /// Condense factor C.
    condense_factor: u32,
    /// What `stage` holds, on the host: asking the device every step would wait for it.
    reached: Cell<u32>,
}

impl LearnedGroupConv {
    pub fn new(
        layer: &Layer,
        groups: u32,
        condense_factor: u32,
        mut tensors: Tensors,
    ) -> Result<LearnedGroupConv> {
        let mask = tensors.take("_mask")?;
        Ok(LearnedGroupConv {
            name: layer.name.clone(),
            weight: Weight::new(tensors.take("conv.weight")?, Some(mask.shallow_clone())),
            mask,
            count: tensors.take("_count")?,
            stage: tensors.take("_stage")?,
            inputs: layer.in_channels as usize,
            outputs: layer.out_channels as usize,
            groups: groups as usize,
            condense_factor,
            reached: Cell::new(0),
        })
    }

    pub fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let weight = self.weight.entering(mode)?;
        Ok(x.f_conv2d(&weight, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1)?)
    }

    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    pub fn weight_mut(&mut self) -> &mut Weight {
        &mut self.weight
    }

    /// Drops inputs until those of a condensing stage are gone; a stage that has been reached changes nothing.
    pub fn condense_to(&self, stage: u32) -> Result<()> {
        if stage <= self.reached.get() {
            return Ok(());
        }
        let (inputs, groups) = (self.inputs, self.groups);
        let dropped = condensing::dropped(stage, inputs, self.condense_factor);
        let mut mask = to_host(&self.mask)?;
        condensing::drop_weakest(&to_host(self.weight.parameter())?, &mut mask, inputs, groups, dropped);
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
    ///
    /// # Errors
    /// When the mask is not one of that stage.
    pub fn refresh(&self) -> Result<()> {
        let stage = to_host(&self.stage)?.first().copied().unwrap_or(0.0);
        self.reached.set(stage as u32);
        let (name, inputs, last) = (&self.name, self.inputs, self.condense_factor - 1);
        let expected = inputs - self.dropped().min(inputs);
        let whole = stage >= 0.0 && stage <= f64::from(last) && stage.fract() == 0.0;
        if whole && self.kept()?.is_some_and(|groups| groups.iter().all(|kept| kept.len() == expected)) {
            return Ok(());
        }
        Err(Failure::bad_spec(format!(
            "the mask of {name} is not that of condensing stage {stage} (of {last}), at which every group keeps {expected} of \
             {inputs} inputs: a stage was left half done, or the spec is of another network"
        )))
    }

    /// The inputs that each group keeps, ascending; nothing if the rows of a group differ.
    fn kept(&self) -> Result<Option<Vec<Vec<usize>>>> {
        Ok(condensing::surviving(&to_host(&self.mask)?, self.inputs, self.groups))
    }

    /// The inputs that each group keeps, ascending.
    ///
    /// # Errors
    /// When libtorch fails, or the outputs of a group differ in their inputs.
    pub fn kept_by_group(&self) -> Result<Vec<Vec<usize>>> {
        self.kept()?
            .ok_or_else(|| Failure::internal(format!("the mask of {} differs within a group", self.name)))
    }

    /// Whether the last stage was reached.
    pub fn is_condensed(&self) -> bool {
        self.reached.get() + 1 >= self.condense_factor
    }

    /// Inputs that each group has dropped so far.
    pub fn dropped(&self) -> usize {
        condensing::dropped(self.reached.get(), self.inputs, self.condense_factor)
    }

    /// Weights in use by the mask, and all weights.
    pub fn density(&self) -> Result<(u64, u64)> {
        let kept = self.mask.f_sum(Kind::Double)?.f_double_value(&[])?;
        Ok((kept as u64, (self.outputs * self.inputs) as u64))
    }

    /// Σ over groups and inputs of sqrt(Σ w², at least 1e-6), w being the masked weights from the input to the group's
    /// outputs; nothing once condensing is over.
    pub fn lasso(&self, mode: Mode<'_>) -> Result<Option<Tensor>> {
        if self.is_condensed() {
            return Ok(None);
        }
        let shape = [-1, self.groups as i64, self.inputs as i64];
        let squares = self.weight.entering(mode)?.f_square()?.f_view(shape)?;
        let sums = squares.f_sum_dim_intlist([0i64].as_slice(), false, None)?;
        Ok(Some(sums.f_clamp_min(1e-6)?.f_sqrt()?.f_sum(None)?))
    }

    /// Puts in a state dict, in place of the tensors of this convolution and of the batch norm before it, those of the gather,
    /// batch norm and group convolution that compute the same.
    ///
    /// # Errors
    /// When not exactly 1/C of the inputs are left in every group.
    pub fn convert(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let (inputs, condense_factor) = (self.inputs, self.condense_factor);
        let expected = inputs / condense_factor as usize;
        let kept = self.kept()?;
        let kept = kept.filter(|kept| kept.iter().all(|inputs| inputs.len() == expected)).ok_or_else(|| {
            let (name, stage, last) = (&self.name, self.reached.get(), condense_factor - 1);
            Failure::bad_spec(format!(
                "cannot convert: condensing is not over: every group of {name} must keep exactly {expected} of its {inputs} \
                 inputs (1/{condense_factor}), but the mask says otherwise (stage {stage} of {last}); train on, past \
                 half of the epochs"
            ))
        })?;

        let device = self.weight.parameter().device();
        let index_of = |inputs: &[usize]| -> Result<Tensor> {
            let inputs: Vec<i64> = inputs.iter().map(|&input| input as i64).collect();
            Ok(Tensor::f_from_slice(&inputs)?.f_to_device(device)?)
        };
        // Row o = k·G + g of the weight becomes row k of group g; the channel shuffle after it undoes that.
        let (outputs, groups) = (self.outputs as i64, self.groups as i64);
        let per_group =
            self.weight.parameter().f_detach()?.f_view([outputs / groups, groups, inputs as i64])?;
        let mut blocks = Vec::new();
        for (group, inputs) in kept.iter().enumerate() {
            blocks.push(per_group.f_select(1, group as i64)?.f_index_select(1, &index_of(inputs)?)?);
        }
        let weight = Tensor::f_cat(&blocks, 0)?.f_view([outputs, expected as i64, 1, 1])?;
        let index = index_of(&kept.concat())?;

        let name = |tensor: &str| format!("{}.{tensor}", self.name);
        for mask in ["_mask", "_count", "_stage"] {
            tensors.remove(&name(mask));
        }
        for norm in ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"].map(name) {
            if let Some(tensor) = tensors.get_mut(&norm) {
                *tensor = tensor.f_index_select(0, &index)?;
            }
        }
        // Nothing trains a converted batch norm.
        tensors.insert(
            name(&format!("norm.{BATCHES_TRACKED}")),
            Tensor::f_zeros([0; 0], (Kind::Int64, device))?,
        );
        tensors.insert(name("conv.weight"), weight);
        tensors.insert(name("index"), index);
        Ok(())
    }
}
