//! A training step through dense blocks on CPUs, forward and backward, in float32, without libtorch.
//!
//! What makes it fast is what it does not do. A library that runs the network operation by operation writes every normalised
//! activation to memory and reads it again, copies features to concatenate them, and sums up the statistics of the same
//! features once a layer. Here:
//!
//! - The features of a block lie in one buffer ([`features`]); a layer writes its maps behind those that it sees. Their
//!   statistics are summed up once, when they are made, since every batch norm that sees them would find the same.
//! - Batch norm and ReLU happen while a panel of pixels is brought into the cache, forward and again backward
//!   ([`pointwise`], [`spatial`]); no activation is stored.
//! - What batch norms send back to the features is a sum of γ·dz over all layers that see them, corrected by two numbers a
//!   channel. So each layer adds its γ·dz at once, and the correction is made once, when the gradient is used ([`norm`]).
//! - A learned group convolution computes only with the inputs that its groups still use ([`groups`]), at every condensing
//!   stage, not only once condensing is over.
//!
//! [`trunk`] puts these together; [`head`] is the last batch norm, ReLU and global pooling; [`threads`] splits a batch. Which vector instructions there are
//! is asked when it runs (crate pulp); tiles of registers are in [`tile`].
//!
//! Images are split among threads in one fixed way, and what threads sum up is added in their order: the same number of
//! threads gives the same bits.

// Loops over registers: an index says which of two arrays' rows meet, where iterators would hide it.
#![allow(clippy::needless_range_loop)]

pub mod features;
pub mod groups;
pub mod head;
pub mod norm;
pub mod pack;
pub mod pointwise;
pub mod spatial;
pub mod threads;
pub mod tile;
pub mod trunk;

pub use features::{Features, Shape};
pub use groups::Group;
pub use norm::{Affine, Norm, Upstream};
pub use pointwise::Pointwise;
pub use spatial::Spatial;
pub use threads::Threads;
pub use trunk::{Layer, NormPlace, Pass, Trunk};
