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
//! A [`Model`] is a converted network's weights; any number of [`Runner`]s share one.

// Loops over registers: an index says which of two arrays' rows meet, where iterators would hide it.
#![allow(clippy::needless_range_loop)]

mod barrier;
mod buffer;
mod error;
mod head;
mod instructions;
mod layout;
mod model;
mod network;
mod packed;
mod pass;
mod place;
mod pointwise;
mod pool;
#[doc(hidden)]
pub mod reference;
mod runner;
#[doc(hidden)]
pub mod sample;
mod schedule;
mod spatial;
mod stem;
mod team;
mod tile;

pub use error::Error;
pub use instructions::Instructions;
pub use model::Model;
pub use runner::Runner;
