//! A grouped 3×3 convolution, padded by one pixel.

pub(crate) mod blocks;
mod channels;
pub(crate) mod pairs;
pub(crate) mod planes;
mod squares;
mod winograd;
