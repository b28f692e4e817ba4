//! Clock and randomness of the shell, as a value that the coordinator holds; the pure rooms get what it tells as
//! inputs. A test holds the other form, which stands still until it is moved.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::Now;

/// Where time and randomness come from.
#[derive(Debug, Clone, Default)]
pub enum Chance {
    /// The operating system.
    #[default]
    System,
    /// A test: the same seed and the same moves give the same values.
    Manual(Arc<Manual>),
}

impl Chance {
    /// Unix time in milliseconds. It may jump; nothing that must hold is measured by it.
    pub fn now_ms(&self) -> u64 {
        match self {
            Chance::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Chance::Manual(manual) => manual.inner().unix_ms,
        }
    }

    /// The present, and chance for what may come of it.
    pub fn now(&self) -> Now {
        let mut bytes = [0; 4];
        // Without randomness a back-off loses its spread, nothing else.
        let jitter = match self.fill(&mut bytes) {
            Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
            Err(_) => 0.5,
        };
        Now { ms: self.now_ms(), jitter }
    }

    /// The present on the clock that never jumps: what leases are measured by.
    pub fn instant(&self) -> Instant {
        match self {
            Chance::System => Instant::now(),
            Chance::Manual(manual) => manual.inner().instant,
        }
    }

    /// So many random bytes, in hexadecimal.
    ///
    /// # Errors
    /// When the system has none.
    pub fn hex(&self, bytes: usize) -> io::Result<String> {
        let mut buffer = vec![0; bytes];
        self.fill(&mut buffer)?;
        Ok(buffer.iter().map(|b| format!("{b:02x}")).collect())
    }

    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Chance::System => getrandom::fill(buffer).map_err(io::Error::other),
            Chance::Manual(manual) => {
                manual.inner().random.fill(buffer);
                Ok(())
            }
        }
    }
}

/// A clock that is moved by hand, and randomness from a seed.
#[derive(Debug)]
pub struct Manual {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    instant: Instant,
    unix_ms: u64,
    random: fastrand::Rng,
}

impl Manual {
    /// A clock that stands at `unix_ms`, and the randomness of `seed`.
    pub fn new(seed: u64, unix_ms: u64) -> Arc<Manual> {
        let random = fastrand::Rng::with_seed(seed);
        Arc::new(Manual { inner: Mutex::new(Inner { instant: Instant::now(), unix_ms, random }) })
    }

    /// Time goes by.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.inner();
        inner.instant += by;
        inner.unix_ms += u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    }

    /// Somebody sets the wall clock; the clock that never jumps does not.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.inner().unix_ms = unix_ms;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_it_stands_still_until_it_is_moved_and_a_seed_repeats() {
        let told = |manual: Arc<Manual>| {
            let chance = Chance::Manual(Arc::clone(&manual));
            let (start, hex) = (chance.instant(), chance.hex(16).unwrap());
            assert_eq!((chance.instant(), chance.now_ms()), (start, 1000));
            manual.advance(Duration::from_secs(2));
            assert_eq!((chance.instant() - start, chance.now_ms()), (Duration::from_secs(2), 3000));
            manual.set_unix_ms(500);
            assert_eq!((chance.instant() - start, chance.now_ms()), (Duration::from_secs(2), 500));
            (hex, chance.now().jitter)
        };
        assert_eq!(told(Manual::new(1, 1000)), told(Manual::new(1, 1000)));
        assert_ne!(told(Manual::new(1, 1000)), told(Manual::new(2, 1000)));
        assert_ne!(Chance::System.hex(16).unwrap(), Chance::System.hex(16).unwrap());
    }
}
