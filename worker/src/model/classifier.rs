//! The classifier: a linear layer; of a converted model, over the half of the features with the largest weights.

use tch::Tensor;

use super::Form;
use super::state::{Init, Scope, to_host};
use crate::failure::Result;

/// Features to logits.
#[derive(Debug)]
pub struct Classifier {
    /// The features it sees; none: all.
    index: Option<Tensor>,
    weight: Tensor,
    bias: Tensor,
}

impl Classifier {
    pub(crate) fn new(mut scope: Scope<'_>, form: Form, features: i64, classes: i64) -> Result<Classifier> {
        let linear = |mut scope: Scope<'_>, features: i64, index: Option<Tensor>| {
            let bound = Init::Uniform(1.0 / (features as f64).sqrt());
            Ok(Classifier {
                index,
                weight: scope.parameter("weight", &[classes, features], bound)?,
                bias: scope.parameter("bias", &[classes], Init::Constant(0.0))?,
            })
        };
        match form {
            Form::Large => linear(scope, features, None),
            Form::Converted => {
                let index = scope.index("index", &[features / 2])?;
                linear(scope.at("linear"), features / 2, Some(index))
            }
        }
    }

    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let gathered = self.index.as_ref().map(|index| features.f_index_select(1, index)).transpose()?;
        Ok(gathered.as_ref().unwrap_or(features).f_linear(&self.weight, Some(&self.bias))?)
    }

    /// The tensors of the classifier that keeps the ⌊in/2⌋ features of largest summed |weight|, in the order of that
    /// sum, under their names in the converted state dict.
    pub(crate) fn converted(&self) -> Result<Vec<(String, Tensor)>> {
        let weight = self.weight.f_detach()?;
        let strength = to_host(&weight.f_abs()?.f_sum_dim_intlist([0i64].as_slice(), false, None)?)?;
        let mut order: Vec<usize> = (0..strength.len()).collect();
        order.sort_by(|&a, &b| strength[a].total_cmp(&strength[b]).then(a.cmp(&b)));
        let kept = order.split_off(order.len() - order.len() / 2);
        let index: Vec<i64> = kept.into_iter().map(|feature| feature as i64).collect();
        let index = Tensor::f_from_slice(&index)?.f_to_device(weight.device())?;
        Ok(vec![
            ("classifier.linear.weight".to_owned(), weight.f_index_select(1, &index)?),
            ("classifier.linear.bias".to_owned(), self.bias.f_detach()?),
            ("classifier.index".to_owned(), index),
        ])
    }
}
