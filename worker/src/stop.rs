//! A request to stop, read between two steps.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cnx_proto::v1::FailureClass;

use crate::failure::{Failure, Result};

/// Shared by the training loop, which reads it, and by all who may ask it to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks to stop at the next step.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Fails as INTERRUPTED once a stop was requested.
    ///
    /// # Errors
    /// INTERRUPTED: nobody's fault.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) {
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
            signal_hook::flag::register(signal, Arc::clone(&self.0))
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
