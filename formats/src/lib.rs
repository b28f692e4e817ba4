//! Models in and out of files, as plain arrays on the host: no libtorch, so that a command that only moves a model from
//! one format to another needs none.
//!
//! Start at [`StateDict`], what every format here is read to and written from; [`safetensors`] is our own, [`pth`]
//! PyTorch's, [`onnx`] everybody's.

pub mod onnx;
mod pickle;
pub mod pth;
pub mod safetensors;
mod state_dict;

pub use state_dict::{Array, Dtype, StateDict};
