//! The state dict of the converted network (paper, section 3.2).

use std::collections::BTreeMap;

use cnx_proto::architecture::Form;
use tch::Tensor;

use super::Network;
use super::state::to_host;
use crate::failure::{Failure, Result};

impl Network {
    /// The state dict of the network that computes the same with group convolutions over gathered inputs.
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
            conv.convert(&mut tensors)?;
        }
        convert_classifier(&mut tensors)?;
        Ok(tensors)
    }
}

/// Keeps the ⌊in/2⌋ features of largest summed |weight|, in the order of that sum.
fn convert_classifier(tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let [weight, bias] = ["classifier.weight", "classifier.bias"].map(|name| tensors.remove(name));
    let (Some(weight), Some(bias)) = (weight, bias) else {
        return Err(Failure::internal("a network without a classifier cannot be converted"));
    };
    let strength = to_host(&weight.f_abs()?.f_sum_dim_intlist([0i64].as_slice(), false, None)?)?;
    let mut order: Vec<usize> = (0..strength.len()).collect();
    order.sort_by(|&a, &b| strength[a].total_cmp(&strength[b]).then(a.cmp(&b)));
    let kept = order.split_off(order.len() - order.len() / 2);
    let index: Vec<i64> = kept.into_iter().map(|feature| feature as i64).collect();
    let index = Tensor::f_from_slice(&index)?.f_to_device(weight.device())?;
    tensors.insert("classifier.linear.weight".to_owned(), weight.f_index_select(1, &index)?);
    tensors.insert("classifier.linear.bias".to_owned(), bias);
    tensors.insert("classifier.index".to_owned(), index);
    Ok(())
}
