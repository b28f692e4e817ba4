//! What tensors take on a GPU.

use tch::Device;

use super::{check, ffi, gpu};
use crate::failure::Result;

/// Bytes that tensors had at most on a GPU since the last [`reset_peak_memory`].
///
/// # Errors
/// When there is no such GPU.
pub fn peak_memory(device: Device) -> Result<u64> {
    let mut out = 0;
    // SAFETY: a number and a place for one.
    check(unsafe { ffi::cnx_peak_memory(gpu(device)?, &raw mut out) })?;
    Ok(out)
}

/// Measures from now on.
///
/// # Errors
/// When there is no such GPU.
pub fn reset_peak_memory(device: Device) -> Result<()> {
    // SAFETY: a number.
    check(unsafe { ffi::cnx_reset_peak_memory(gpu(device)?) })
}
