//! Convolutions and products in bfloat16.

use std::ffi::c_int;
use std::marker::PhantomData;

use tch::Device;

use super::{check, ffi};
use crate::failure::Result;

/// While it lives, this thread's convolutions and products on a kind of device take and give bfloat16, by libtorch's lists; what they
/// are made of stays as it is.
#[derive(Debug)]
pub struct Autocast {
    cuda: c_int,
    before: c_int,
    /// It is about this thread.
    _here: PhantomData<*const ()>,
}

impl Autocast {
    /// From now on.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn bfloat16(device: Device) -> Result<Autocast> {
        let (cuda, mut before) = (c_int::from(device.is_cuda()), 0);
        // SAFETY: a number and a place for one.
        check(unsafe { ffi::cnx_autocast_enter(cuda, &raw mut before) })?;
        Ok(Autocast { cuda, before, _here: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: two numbers, the second of enter. It fails only where enter failed.
        let _ = unsafe { ffi::cnx_autocast_leave(self.cuda, self.before) };
    }
}
