//! Batch norm, ReLU and a grouped 1×1 convolution over gathered channels.

mod blocks;
pub(crate) mod channels;
mod clip;
pub(crate) mod planes;
