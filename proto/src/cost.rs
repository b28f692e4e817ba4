//! What a network costs: multiply-adds and parameters, as pure integer arithmetic.
//!
//! Counted as the paper's tables count: the multiply-adds of convolutions and of the classifier (and its bias), one
//! for each element of a ReLU, k·k for each output element of a pooling, nothing for batch norm. A learned group
//! convolution counts 1/C of its multiply-adds and weights. Parameters are the weights of convolutions and classifier
//! (and its bias), and the scale and shift of batch norms.

use crate::architecture::{Kind, Layer, converted, layers};
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
}

/// The cost of a spec's network.
pub fn cost(spec: &Spec) -> Cost {
    let trained = layers(&spec.model, spec.data.dataset);
    let converted = if spec.model.arch.condenses() { converted(&trained) } else { trained.clone() };
    Cost {
        flops: trained.iter().map(flops).sum(),
        params: trained.iter().map(params).sum(),
        converted_flops: converted.iter().map(flops).sum(),
        converted_params: converted.iter().map(params).sum(),
    }
}

fn flops(layer: &Layer) -> u64 {
    let out_pixels = layer.out_size * layer.out_size;
    match layer.kind {
        Kind::Conv { .. } | Kind::LearnedGroupConv { .. } => params(layer) * out_pixels,
        Kind::Linear => params(layer),
        Kind::Relu => layer.in_channels * layer.in_size * layer.in_size,
        Kind::AvgPool { kernel } => layer.out_channels * out_pixels * u64::from(kernel) * u64::from(kernel),
        Kind::BatchNorm => 0,
    }
}

fn params(layer: &Layer) -> u64 {
    let dense = layer.in_channels * layer.out_channels;
    match layer.kind {
        Kind::Conv { kernel, groups } => dense * u64::from(kernel * kernel) / u64::from(groups.max(1)),
        Kind::LearnedGroupConv { condense_factor, .. } => dense / u64::from(condense_factor.max(1)),
        Kind::Linear => dense + layer.out_channels,
        Kind::BatchNorm => 2 * layer.in_channels,
        Kind::Relu | Kind::AvgPool { .. } => 0,
    }
}
