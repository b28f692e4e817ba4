//! Reading under a meter: no file may take more memory than its size allows, whether it is read or refused.

// A test may panic; and not every test uses all of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use cnx_formats::{Checkpoint, ReadError, checkpoint};
use peak_alloc::PeakAlloc;

#[global_allocator]
static METER: PeakAlloc = PeakAlloc;

/// The meter is one for the whole process: a test that measures has it alone.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Most bytes that may be in use for a file of so many: what [`checkpoint::read`] promises.
fn allowed(file_bytes: usize) -> usize {
    (16 << 20) + 4 * file_bytes
}

/// Measures memory while files are read.
pub struct Meter(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Meter {
    /// Waits until no other test measures.
    pub fn alone() -> Meter {
        Meter(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a file, and holds it to its allowance.
    pub fn read(&self, bytes: &[u8]) -> Result<Checkpoint, ReadError> {
        METER.reset_peak_usage();
        let before = METER.current_usage();
        let result = checkpoint::read(bytes);
        let used = METER.peak_usage().saturating_sub(before);
        eprintln!("{used} for {} = {}", bytes.len(), used as f64 / bytes.len().max(1) as f64);
        assert!(used <= allowed(bytes.len()), "{used} bytes of memory for a file of {}", bytes.len());
        result
    }

    /// Reads a file that is refused, with a message that says so.
    pub fn refused(&self, bytes: &[u8], why: &str) {
        match self.read(bytes) {
            Ok(_) => panic!("read, but should be refused for: {why}"),
            Err(error) => assert!(error.to_string().contains(why), "expected: {why}\nfound: {error}"),
        }
    }
}
