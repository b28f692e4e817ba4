//! A grouped 3×3 convolution, padded by one pixel.

pub(crate) mod blocks;
pub(crate) mod channels;
pub(crate) mod pairs;
pub(crate) mod planes;
pub(crate) mod rows;
mod squares;
mod winograd;
