//! Flags of the whole process.

use std::ffi::c_int;

use super::{check, ffi};
use crate::failure::Result;

/// Only algorithms whose sums always have the same order: an operation that has none fails.
///
/// # Errors
/// When libtorch fails.
pub fn set_deterministic(deterministic: bool) -> Result<()> {
    // SAFETY: a number.
    check(unsafe { ffi::cnx_set_deterministic(c_int::from(deterministic)) })
}

/// Whether products and convolutions of float32 on GPUs may round what enters them to TF32 (10 bits of mantissa).
///
/// # Errors
/// When libtorch fails.
pub fn set_tf32(allowed: bool) -> Result<()> {
    // SAFETY: a number.
    check(unsafe { ffi::cnx_set_tf32(c_int::from(allowed)) })
}
