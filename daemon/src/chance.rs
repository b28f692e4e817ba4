//! Clock and randomness of the shell; the pure rooms get their values as inputs.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::Now;

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The present, and chance for what may come of it.
pub fn now() -> Now {
    let mut bytes = [0; 4];
    // Without randomness a back-off loses its spread, nothing else.
    let jitter = match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    };
    Now { ms: now_ms(), jitter }
}

/// So many random bytes from the system, in hexadecimal.
///
/// # Errors
/// When the system has none.
pub fn hex(bytes: usize) -> io::Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(io::Error::other)?;
    Ok(buffer.iter().map(|b| format!("{b:02x}")).collect())
}
