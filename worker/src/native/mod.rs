//! What libtorch can and tch has no binding for: CUDA graphs, streams, events, generator states, memory formats, autocast with a
//! kind, fused SGD, flags of the arithmetic.
//!
//! The only unsafe code of this crate's arithmetic: calls of the shim in `worker/native/shim.cpp`, whose functions catch every exception.
//! What is about CUDA fails with a message where this was built for CPUs.

#![allow(unsafe_code)]

mod autocast;
mod ffi;
mod flags;
mod generator;
mod graph;
mod memory;
mod stream;
mod tensors;

use std::ffi::{CStr, c_int};

use tch::{Device, TchError};

use crate::failure::{Failure, Result};
pub use autocast::Autocast;
pub use flags::{set_deterministic, set_tf32};
pub use generator::{generator_state, set_generator_state};
pub use graph::{Capture, Graph, Pool};
pub use memory::{peak_memory, reset_peak_memory};
pub use stream::{Event, OwnStream};
pub use tensors::{channels_last, fused_sgd, is_channels_last};

/// Whether this was built for CUDA.
pub fn has_cuda() -> bool {
    // SAFETY: it takes nothing and returns a number.
    unsafe { ffi::cnx_has_cuda() != 0 }
}

/// What a function of the shim returned.
fn check(error: ffi::Error) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, it points to text that ends with 0 and that stands until this thread calls the shim again.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    Err(TchError::Torch(text).into())
}

/// The number of a GPU.
fn gpu(device: Device) -> Result<c_int> {
    match device {
        Device::Cuda(number) => Ok(number as c_int),
        other => Err(Failure::internal(format!("{other:?} is no GPU: it has no streams and no graphs"))),
    }
}
