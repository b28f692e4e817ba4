//! Batch norm, ReLU and a grouped 1×1 convolution over gathered channels.

pub(crate) mod channels;
mod clip;
pub(crate) mod planes;
