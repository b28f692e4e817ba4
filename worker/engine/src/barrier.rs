//! Where threads wait for each other between two steps.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Turns of waiting before a thread lets others run: some microseconds. Steps are short, and as long for all.
const TURNS: u32 = 4096;

/// A barrier that threads reach again and again.
#[derive(Debug)]
pub(crate) struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
}

/// A thread that should have come will not.
#[derive(Debug)]
pub(crate) struct Broken;

impl Barrier {
    pub fn new(threads: usize) -> Barrier {
        let zero = || AtomicUsize::new(0);
        Barrier { threads, arrived: zero(), generation: zero(), broken: AtomicBool::new(false) }
    }

    /// Waits until all threads have come here. What they wrote before is seen after.
    ///
    /// # Errors
    /// When one of them has died.
    pub fn wait(&self) -> Result<(), Broken> {
        if self.threads == 1 {
            return Ok(());
        }
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            return Ok(());
        }
        let mut turns = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            if self.broken.load(Ordering::Relaxed) {
                return Err(Broken);
            }
            if turns < TURNS {
                turns += 1;
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// Nobody needs to wait any more: a thread has died.
    pub fn break_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}
