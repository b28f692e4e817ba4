//! The state of libtorch's random numbers. Nothing here draws any: this is how that is checked.

use std::ffi::c_int;
use std::ptr::null_mut;

use tch::{Device, Tensor};

use super::tensors::{handle, owned};
use super::{check, ffi, gpu};
use crate::failure::Result;

/// The state of a device's generator, as bytes.
///
/// # Errors
/// When libtorch fails, e.g. for a GPU that is not there.
pub fn generator_state(device: Device) -> Result<Tensor> {
    let mut out = null_mut();
    // SAFETY: a number and a place for a tensor.
    check(unsafe { ffi::cnx_generator_state(number(device)?, &raw mut out) })?;
    // SAFETY: without an error, `out` holds a tensor made for us.
    Ok(unsafe { owned(out) })
}

/// Sets the state that [`generator_state`] gave.
///
/// # Errors
/// When it is not one of such a device.
pub fn set_generator_state(device: Device, state: &Tensor) -> Result<()> {
    // SAFETY: a number, and a tensor that lives while this runs.
    check(unsafe { ffi::cnx_set_generator_state(number(device)?, handle(state)) })
}

fn number(device: Device) -> Result<c_int> {
    if device == Device::Cpu { Ok(-1) } else { gpu(device) }
}
