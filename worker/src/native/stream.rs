//! Streams and points in them.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;

use tch::Device;

use super::{check, ffi, gpu};
use crate::failure::Result;

/// While it lives, what this thread does on a GPU goes into a stream of its own: the default stream cannot be captured. What was
/// under way before is done then, and what goes into it is done when it ends.
#[derive(Debug)]
pub struct OwnStream {
    device: c_int,
    before: i64,
    /// It is about this thread.
    _here: PhantomData<*const ()>,
}

impl OwnStream {
    /// From now on.
    ///
    /// # Errors
    /// When there is no such GPU.
    pub fn enter(device: Device) -> Result<OwnStream> {
        let (device, mut before) = (gpu(device)?, 0);
        // SAFETY: a number and a place for one.
        check(unsafe { ffi::cnx_stream_enter(device, &raw mut before) })?;
        Ok(OwnStream { device, before, _here: PhantomData })
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        // SAFETY: two numbers, the second of enter. What fails here fails again, with its error, where next something is read.
        let _ = unsafe { ffi::cnx_stream_leave(self.device, self.before) };
    }
}

/// A point in a GPU's stream.
#[derive(Debug)]
pub struct Event {
    event: *mut c_void,
    device: c_int,
}

impl Event {
    /// One that can be waited for.
    ///
    /// # Errors
    /// When there is no such GPU.
    pub fn new(device: Device) -> Result<Event> {
        let (device, mut event) = (gpu(device)?, null_mut());
        // SAFETY: a place for a pointer.
        check(unsafe { ffi::cnx_event_new(&raw mut event) })?;
        Ok(Event { event, device })
    }

    /// Puts it where this thread's stream stands.
    ///
    /// # Errors
    /// When the device failed.
    pub fn record(&mut self) -> Result<()> {
        // SAFETY: the event is the shim's and lives.
        check(unsafe { ffi::cnx_event_record(self.event, self.device) })
    }

    /// Waits until the device has come to it; not at all, if it was never recorded.
    ///
    /// # Errors
    /// When the device failed.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is the shim's and lives.
        check(unsafe { ffi::cnx_event_wait(self.event) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the shim made it, and nobody has it after this.
        unsafe { ffi::cnx_event_free(self.event) }
    }
}
