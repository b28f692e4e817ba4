//! Condensed networks on CPUs: from a model file to logits, without libtorch.
//!
//! ```no_run
//! use std::{num::NonZeroUsize, path::Path, sync::Arc};
//! use cnx_engine::{Model, Runner};
//!
//! let model = Arc::new(Model::open(Path::new("model.safetensors"))?);
//! let mut runner = Runner::new(model, NonZeroUsize::MIN);
//! let image = vec![0.0; 3 * 32 * 32];
//! let logits = runner.logits(&image)?;
//! # Ok::<(), cnx_engine::Error>(())
//! ```
//!
//! A [`Model`] is a network's weights, folded and packed for the CPU; any number of [`Runner`]s share one.
//!
//! What makes it fast is what it does not do:
//!
//! - The features of a block lie in one place; a layer writes its planes behind those that it sees, and halves them for the next
//!   block while they are in the cache. Nothing is concatenated, and index layer and shuffle are tables of where planes lie (`place.rs`).
//! - The first batch norm and ReLU of a layer are a maximum or a minimum on the way into the registers (`pointwise/clip.rs`), the second
//!   batch norm is part of the 1×1 convolution's weights (`network.rs`), its ReLU of what that writes.
//! - Each thread makes some rows of large maps and whole planes of small ones, in buffers of its own (`schedule/`), so none waits for
//!   another's cache lines; they meet at a barrier that spins (`barrier.rs`, `pass/`, `team.rs`).
//! - A block's maps decide what vectors go along (`layout.rs`): rows of pixels, whole planes, or outputs. `pointwise/` has the 1×1
//!   kernels, `spatial/` the 3×3, `stem.rs`, `pool.rs` and `head.rs` what is before, between and after.
//! - Where it pays, the 3×3 makes two outputs of four products instead of six (`spatial/winograd.rs`).
//!
//! All kernels are loops over two tiles of sums (`tile.rs`), which read rows that were checked once (`rows.rs`); tiles whose sums a
//! compiler would not leave in their registers are in assembly (`assembly/`). These, `prefetch.rs` and `buffer.rs` are all the unsafe code that
//! there is.
//!
//! `reference.rs` is the same network as plain loops in double precision, which the tests hold all of this against.

// Loops over registers: an index says which of two arrays' rows meet, where iterators would hide it.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod assembly;
mod barrier;
mod buffer;
mod error;
mod head;
mod instructions;
#[cfg(test)]
mod kernel_tests;
pub mod latency;
mod layout;
mod model;
mod network;
mod packed;
mod pass;
pub mod peak;
mod place;
mod pointwise;
mod pool;
mod prefetch;
#[doc(hidden)]
pub mod profile;
#[doc(hidden)]
pub mod reference;
mod rows;
mod runner;
#[doc(hidden)]
pub mod sample;
mod schedule;
mod spatial;
mod stem;
mod team;
mod tile;
mod transpose;

pub use error::Error;
pub use instructions::Instructions;
pub use model::Model;
pub use runner::Runner;
