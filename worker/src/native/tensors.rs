//! Operations on tensors.

use std::ffi::c_int;
use std::ptr::null_mut;

use tch::Tensor;

use super::{check, ffi};
use crate::failure::Result;

/// The shim takes tensors by what it may do with them, not by C's types.
pub(super) fn handle(tensor: &Tensor) -> ffi::Tensor {
    tensor.as_ptr().cast_mut().cast()
}

/// A tensor that the shim made.
///
/// # Safety
/// `handle` is an at::Tensor that nobody else will free.
pub(super) unsafe fn owned(handle: ffi::Tensor) -> Tensor {
    // SAFETY: as the caller says; tch frees it.
    unsafe { Tensor::from_ptr(handle.cast()) }
}

/// One step of stochastic gradient descent with momentum, in one pass over tensors of one shape and kind: `parameter` and `momentum`
/// are changed. The learning rate is a tensor without dimensions on their device, float32: a captured step reads it anew
/// each time.
///
/// # Errors
/// When libtorch fails, e.g. for shapes that differ.
pub fn fused_sgd(
    parameter: &mut Tensor,
    gradient: &Tensor,
    momentum: &mut Tensor,
    learning_rate: &Tensor,
    weight_decay: f64,
    factor: f64,
    nesterov: bool,
) -> Result<()> {
    let [parameter, momentum] = [parameter, momentum].map(|tensor| handle(tensor));
    let (gradient, lr) = (handle(gradient), handle(learning_rate));
    // SAFETY: four tensors that live while this runs; the two that are changed are ours alone to change.
    check(unsafe {
        ffi::cnx_fused_sgd(parameter, gradient, momentum, lr, weight_decay, factor, c_int::from(nesterov))
    })
}

/// The same values, of [n, channels, h, w], with the channels innermost in memory.
///
/// # Errors
/// When libtorch fails, e.g. for a tensor of other than four dimensions.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    let mut out = null_mut();
    // SAFETY: a tensor that lives while this runs, and a place for another.
    check(unsafe { ffi::cnx_channels_last(handle(tensor), &raw mut out) })?;
    // SAFETY: without an error, `out` holds a tensor made for us.
    Ok(unsafe { owned(out) })
}

/// Whether the channels of [n, channels, h, w] are innermost in memory.
///
/// # Errors
/// When libtorch fails.
pub fn is_channels_last(tensor: &Tensor) -> Result<bool> {
    let mut out = 0;
    // SAFETY: a tensor that lives while this runs, and a place for a number.
    check(unsafe { ffi::cnx_is_channels_last(handle(tensor), &raw mut out) })?;
    Ok(out != 0)
}
