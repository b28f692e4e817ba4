//! A request to stop, read between two steps.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cnx_proto::v1::FailureClass;

use crate::failure::{Failure, Result};

/// Shared by the training loop, which reads it, and by all who may ask it to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    /// Checks until it asks by itself.
    checks_left: Arc<AtomicU64>,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::at_check(u64::MAX)
    }
}

impl Stop {
    /// One that asks by itself at a check, counted from 0: a test that stops at every step needs to hit it exactly.
    pub fn at_check(number: u64) -> Stop {
        Stop { requested: Arc::default(), checks_left: Arc::new(AtomicU64::new(number)) }
    }

    /// Asks to stop at the next step.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Fails as INTERRUPTED once a stop was requested.
    ///
    /// # Errors
    /// INTERRUPTED: nobody's fault.
    pub fn check(&self) -> Result<()> {
        if self.checks_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.request();
        }
        if self.requested.load(Ordering::SeqCst) {
            return Err(Failure::new(FailureClass::Interrupted, "asked to stop"));
        }
        Ok(())
    }

    /// Lets SIGTERM and SIGINT ask.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals(&self) -> Result<()> {
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&self.requested))
                .map_err(|error| Failure::internal(format!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(())
    }

    /// Asks when `input` ends: its other end, the agent, is gone, and nobody reads our reports any more.
    pub fn when_closed(&self, mut input: impl Read + Send + 'static) {
        let stop = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            stop.request();
        });
    }
}
