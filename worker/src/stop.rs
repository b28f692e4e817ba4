//! A request to stop, and a lease that may run out: both read between two steps.
//!
//! The agent says on the child's standard input until when its lease holds ([`Hold`]), each time that it is renewed. A child whose
//! lease ran out computes nothing: between two steps it parks, and goes on once the lease holds again. If it does not come to
//! the end of a step in time, it stops itself with SIGSTOP, and the agent, which does the same, lets it go on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cnx_proto::lease_clock::Holds;
use cnx_proto::v1::{FailureClass, Hold};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::agent::boot_clock;
use crate::failure::{Failure, Result};
use crate::frame;

/// How often what cannot wake a waiting thread is looked for: a signal, a machine that slept.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The largest message of the agent that is accepted.
const MAX_HOLD_BYTES: usize = 1 << 10;

/// Shared by all that compute, which read it, and by all who may ask them to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    /// Checks until it asks by itself.
    checks_left: Arc<AtomicU64>,
    lease: Arc<(Mutex<Lease>, Condvar)>,
}

/// What is known of the lease.
#[derive(Debug, Default)]
struct Lease {
    /// Until when it holds; none: nobody said, it holds for ever.
    holds: Option<Holds>,
    /// Nothing is computed until it holds again.
    idle: bool,
}

impl Lease {
    fn has_run_out(&self) -> bool {
        self.holds.is_some_and(|holds| boot_clock::now() >= holds.until)
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::at_check(u64::MAX)
    }
}

impl Stop {
    /// One that asks by itself at a check, counted from 0: a test that stops at every step needs to hit it exactly.
    pub fn at_check(number: u64) -> Stop {
        let checks_left = Arc::new(AtomicU64::new(number));
        Stop { requested: Arc::default(), checks_left, lease: Arc::default() }
    }

    /// Asks to stop at the next step.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
        self.lease.1.notify_all();
    }

    /// Whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Fails as INTERRUPTED once a stop was requested, or while the lease does not hold.
    ///
    /// # Errors
    /// INTERRUPTED: nobody's fault.
    pub fn check(&self) -> Result<()> {
        if self.checks_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.request();
        }
        let mut lease = self.lease();
        if self.is_requested() {
            lease.idle = true;
            return Err(asked());
        }
        if lease.has_run_out() {
            lease.idle = true;
            return Err(Failure::new(FailureClass::Interrupted, "the lease ran out"));
        }
        Ok(())
    }

    /// Waits until the lease holds.
    ///
    /// # Errors
    /// INTERRUPTED when a stop is requested before it does.
    pub fn wait_for_lease(&self) -> Result<()> {
        let mut lease = self.lease();
        loop {
            if self.is_requested() {
                return Err(asked());
            }
            if !lease.has_run_out() {
                lease.idle = false;
                return Ok(());
            }
            let woken = self.lease.1.wait_timeout(lease, LOOK_AGAIN);
            lease = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
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

    /// Hears from the agent how long the lease holds, and sees to it that nothing is computed after. Asks to stop when the
    /// input ends: the agent is gone, and nobody reads our reports any more.
    pub fn listen(&self, mut input: File) {
        let stop = self.clone();
        std::thread::spawn(move || {
            while let Ok(true) = stop.hear(&mut input) {}
            stop.request();
        });
    }

    /// One message, or the time at which the lease ends; false at the end of the input.
    fn hear(&self, input: &mut File) -> io::Result<bool> {
        if self.has_message(input, self.time_to_force())? {
            let Some(hold) = frame::read(input, MAX_HOLD_BYTES)? else { return Ok(false) };
            self.lease().holds = Some(Hold::decode(hold.as_slice()).map_err(io::Error::other)?.into());
            self.lease.1.notify_all();
        } else if self.time_to_force() == Some(Duration::ZERO) {
            // It goes on here once the agent lets it, which says so before. (Sent to the process, the signal could be taken by another
            // thread while this one looks once more, and is about to stop what was let go on.)
            signal_hook::low_level::raise(signal_hook::consts::SIGSTOP)?;
        }
        Ok(true)
    }

    /// How long until this process has to be stopped; none: not as things are.
    fn time_to_force(&self) -> Option<Duration> {
        let lease = self.lease();
        let holds = lease.holds.filter(|_| !lease.idle)?;
        Some(holds.forced_at.saturating_sub(boot_clock::now()))
    }

    fn has_message(&self, input: &File, within: Option<Duration>) -> io::Result<bool> {
        // While it computes nothing, it may begin again, and while the machine sleeps, this clock stands still.
        let within = within.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        let within = Timespec { tv_sec: 0, tv_nsec: i64::from(within.subsec_nanos()) };
        let mut polled = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
        match poll(&mut polled, Some(&within)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asked() -> Failure {
    Failure::new(FailureClass::Interrupted, "asked to stop")
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write};
    use std::os::fd::OwnedFd;

    use super::*;

    const EVER: Duration = Duration::from_secs(1 << 40);

    fn hold(agent: &mut PipeWriter, until: Duration) {
        let hold = Hold::from(Holds { until, forced_at: EVER });
        agent.write_all(&hold.encode_length_delimited_to_vec()).unwrap();
    }

    /// One that listens to an agent whose lease has run out, as soon as it has heard so.
    fn run_out() -> (Stop, PipeWriter) {
        let (input, mut agent) = io::pipe().unwrap();
        let stop = Stop::default();
        assert_eq!(stop.check(), Ok(()));
        stop.listen(File::from(OwnedFd::from(input)));
        hold(&mut agent, Duration::ZERO);
        while stop.check().is_ok() {
            std::thread::yield_now();
        }
        (stop, agent)
    }

    #[test]
    fn a_lease_that_ran_out_interrupts_until_it_holds_again() {
        let (stop, mut agent) = run_out();
        let interrupted = stop.check().unwrap_err();
        assert_eq!((interrupted.class, stop.is_requested()), (FailureClass::Interrupted, false));
        hold(&mut agent, EVER);
        assert_eq!(stop.wait_for_lease(), Ok(()));
        assert_eq!(stop.check(), Ok(()));
    }

    #[test]
    fn who_waits_for_a_lease_hears_a_request_and_the_end_of_the_agent() {
        let (stop, _agent) = run_out();
        stop.request();
        assert_eq!(stop.wait_for_lease(), Err(asked()));
        let (stop, agent) = run_out();
        drop(agent);
        assert_eq!(stop.wait_for_lease(), Err(asked()));
    }
}
