//! Models in and out of files, as plain arrays on the host: no libtorch, so that a command that only moves a model from
//! one format to another needs none.
//!
//! Start at [`StateDict`], what every format here is read to and written from; [`safetensors`] is our own, [`pth`]
//! PyTorch's, [`onnx`] everybody's, both written. [`checkpoint`] reads what others made, and trusts nothing of it;
//! [`mod@check`] says whether it is of a spec's network.

mod budget;
pub mod check;
pub mod checkpoint;
mod element;
mod error;
pub mod onnx;
mod pickle;
pub mod pth;
pub mod safetensors;
mod state_dict;
mod torch;

pub use checkpoint::{Checkpoint, Container};
pub use error::ReadError;
pub use state_dict::{Array, Dtype, StateDict};
