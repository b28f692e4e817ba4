//! What a network costs: multiply-adds and parameters, as pure integer arithmetic.
//!
//! Counted as the paper's tables count: the multiply-adds of convolutions and of the classifier (and its bias), one
//! for each element of a ReLU, k·k for each output element of a pooling, nothing for batch norm. A learned group
//! convolution counts 1/C of its multiply-adds and weights. Parameters are the weights and biases of convolutions and fully
//! connected layers, and the scale and shift of batch norms.

use crate::architecture::{Form, Layer, Op, layers};
use crate::spec::Spec;

/// The cost of a network on one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Cost {
    /// Multiply-adds, as the published tables count them.
    pub flops: u64,
    /// Parameters, as the published tables count them.
    pub params: u64,
    /// Multiply-adds of the converted model (its classifier keeps half of its inputs).
    pub converted_flops: u64,
    /// Parameters of the converted model.
    pub converted_params: u64,
    /// Multiply-adds of convolutions and fully connected layers alone, as most other papers count.
    pub multiply_adds: u64,
    /// Multiply-adds of convolutions alone.
    pub conv_multiply_adds: u64,
    /// Multiply-adds of the converted model's convolutions and fully connected layers.
    pub converted_multiply_adds: u64,
}

/// The cost of a spec's network.
pub fn cost(spec: &Spec) -> Cost {
    let trained = layers(&spec.model, spec.data.dataset, Form::Large);
    let converted = layers(&spec.model, spec.data.dataset, Form::Converted);
    let convolutions = trained.iter().filter(|layer| layer.op != Op::Linear);
    Cost {
        flops: trained.iter().map(flops).sum(),
        params: trained.iter().map(params).sum(),
        converted_flops: converted.iter().map(flops).sum(),
        converted_params: converted.iter().map(params).sum(),
        multiply_adds: trained.iter().map(multiply_adds).sum(),
        conv_multiply_adds: convolutions.map(multiply_adds).sum(),
        converted_multiply_adds: converted.iter().map(multiply_adds).sum(),
    }
}

fn flops(layer: &Layer) -> u64 {
    let out_elements = layer.out_channels * layer.out_size * layer.out_size;
    let square = |edge: u64| out_elements * edge * edge;
    match layer.op {
        Op::Linear => params(layer),
        Op::Relu => out_elements,
        Op::MaxPool { kernel, .. } | Op::AvgPool { kernel, .. } => square(u64::from(kernel)),
        Op::GlobalAvgPool => square(layer.in_size),
        _ => multiply_adds(layer),
    }
}

/// Of convolutions and fully connected layers, without their biases.
fn multiply_adds(layer: &Layer) -> u64 {
    weights(layer) * layer.out_size * layer.out_size
}

fn weights(layer: &Layer) -> u64 {
    let dense = layer.in_channels * layer.out_channels;
    match layer.op {
        Op::Conv { kernel, groups, .. } => dense * u64::from(kernel * kernel) / u64::from(groups.max(1)),
        Op::LearnedGroupConv { condense_factor, .. } => dense / u64::from(condense_factor.max(1)),
        Op::Linear => dense,
        _ => 0,
    }
}

fn params(layer: &Layer) -> u64 {
    weights(layer)
        + match layer.op {
            Op::Linear | Op::Conv { bias: true, .. } => layer.out_channels,
            Op::BatchNorm => 2 * layer.in_channels,
            _ => 0,
        }
}
