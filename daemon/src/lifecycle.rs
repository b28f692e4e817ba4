//! The life of an experiment, as pure decisions: State × Event → State, or a refusal that names both.
//!
//! Time and chance come in ([`Surroundings`]); nothing here reads a clock or a database. The store keeps the
//! state in a row and writes the event's sentence beside it.

use std::fmt;

use cnx_proto::v1::{self, FailureClass};

/// Why an attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides whether it is tried again.
    pub class: FailureClass,
    /// What happened, for people.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// Where an experiment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waits for a worker.
    Queued {
        /// Attempts so far.
        attempt: u32,
        /// Attempts that failed and counted.
        tries: u32,
        /// Not leased before this Unix time; 0: no back-off.
        not_before_ms: u64,
        /// How the last attempt ended, if it did not end well.
        last: Option<Failure>,
    },
    /// Leased to a worker.
    Running {
        /// The attempt that holds the lease.
        attempt: u32,
        /// Attempts that failed and counted.
        tries: u32,
        /// Its worker was told to stop it, and has yet to confirm.
        stopping: Option<Stopping>,
    },
    /// Held back until somebody resumes it.
    Paused {
        /// Attempts so far.
        attempt: u32,
        /// Attempts that failed and counted.
        tries: u32,
        /// How the last attempt ended, if it did not end well.
        last: Option<Failure>,
    },
    /// Final: it has its figures.
    Succeeded,
    /// Final: it will not be tried again.
    Failed(Failure),
    /// Final: somebody cancelled it.
    Cancelled,
}

/// What becomes of a running experiment once its worker confirms that it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// Back to the queue: its slot was wanted, or it was resumed before it had stopped.
    Yield,
    /// Paused.
    Pause,
    /// Cancelled. Nothing takes this back.
    Cancel,
}

impl Stopping {
    /// What the worker is told.
    pub fn reason(self) -> v1::StopReason {
        match self {
            Stopping::Yield => v1::StopReason::Preempted,
            Stopping::Pause => v1::StopReason::Paused,
            Stopping::Cancel => v1::StopReason::Cancelled,
        }
    }
}

/// What can happen to an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker takes it.
    Leased,
    /// The running attempt ended.
    Ended(Ending),
    /// Somebody asked to cancel it.
    CancelRequested,
    /// Somebody asked to pause it.
    PauseRequested,
    /// Somebody asked to resume it.
    ResumeRequested,
    /// A higher priority wants its slot.
    PreemptRequested,
    /// One that it was to run after failed or was cancelled.
    DependencyFailed(Failure),
}

/// How an attempt ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With its figures.
    Succeeded,
    /// Without; a lost lease is one of these (`worker-lost`).
    Failed(Failure),
    /// The worker confirms that it stopped because it was told to.
    Cancelled,
}

impl Ending {
    /// The attempt's outcome in rows and on the wire.
    pub fn label(&self) -> String {
        match self {
            Ending::Succeeded => v1::State::Succeeded.label(),
            Ending::Cancelled => v1::State::Cancelled.label(),
            Ending::Failed(failure) => failure.class.label(),
        }
    }
}

/// All that a decision depends on besides state and event.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// Unix time.
    pub now_ms: u64,
    /// Chance for the back-off, 0 … 1.
    pub jitter: f64,
    /// Tries that the spec grants.
    pub max_attempts: u32,
}

/// An event that a state does not admit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an experiment that {state} cannot {event}")]
pub struct Refusal {
    /// The state it is in.
    pub state: State,
    /// What was tried.
    pub event: Event,
}

impl State {
    /// The state of a new experiment.
    pub const NEW: State = State::Queued { attempt: 0, tries: 0, not_before_ms: 0, last: None };

    /// Decides what an event makes of this state.
    ///
    /// # Errors
    /// When the state does not admit the event: a final state admits none.
    pub fn apply(&self, event: Event, around: Surroundings) -> Result<State, Refusal> {
        use State::{Cancelled, Failed, Paused, Queued, Running, Succeeded};
        let stops = |attempt, tries, why| Ok(Running { attempt, tries, stopping: Some(why) });
        match (self, event) {
            (&Queued { attempt, tries, not_before_ms, .. }, Event::Leased)
                if !backs_off(not_before_ms, around.now_ms) =>
            {
                Ok(Running { attempt: attempt + 1, tries, stopping: None })
            }
            // Success stands even if somebody cancelled or paused it meanwhile: the figures are there.
            (Running { .. }, Event::Ended(Ending::Succeeded)) => Ok(Succeeded),
            (&Running { attempt, tries, stopping }, Event::Ended(ending)) => {
                Ok(after_end(attempt, tries, stopping, ending, around))
            }

            (Queued { .. } | Paused { .. }, Event::CancelRequested) => Ok(Cancelled),
            (&Running { attempt, tries, .. }, Event::CancelRequested) => {
                stops(attempt, tries, Stopping::Cancel)
            }

            (Queued { attempt, tries, last, .. }, Event::PauseRequested) => {
                Ok(Paused { attempt: *attempt, tries: *tries, last: last.clone() })
            }
            (&Running { attempt, tries, stopping: None | Some(Stopping::Yield) }, Event::PauseRequested) => {
                stops(attempt, tries, Stopping::Pause)
            }
            (Paused { attempt, tries, last }, Event::ResumeRequested) => {
                Ok(Queued { attempt: *attempt, tries: *tries, not_before_ms: 0, last: last.clone() })
            }
            // Its worker is stopping it already: it goes back to the queue as soon as it has.
            (&Running { attempt, tries, stopping: Some(Stopping::Pause) }, Event::ResumeRequested) => {
                stops(attempt, tries, Stopping::Yield)
            }
            (&Running { attempt, tries, stopping: None }, Event::PreemptRequested) => {
                stops(attempt, tries, Stopping::Yield)
            }

            (Queued { .. } | Paused { .. }, Event::DependencyFailed(failure)) => Ok(Failed(failure)),
            (
                Queued { .. } | Running { .. } | Paused { .. } | Succeeded | Failed(_) | Cancelled,
                event @ (Event::Leased
                | Event::Ended(_)
                | Event::CancelRequested
                | Event::PauseRequested
                | Event::ResumeRequested
                | Event::PreemptRequested
                | Event::DependencyFailed(_)),
            ) => Err(Refusal { state: self.clone(), event }),
        }
    }

    /// Whether a person may queue it anew, as a new experiment.
    pub fn may_be_retried(&self) -> bool {
        matches!(self, State::Failed(_) | State::Cancelled)
    }

    /// The state's name on the wire.
    pub fn wire(&self) -> v1::State {
        match self {
            State::Queued { .. } => v1::State::Queued,
            State::Running { .. } => v1::State::Running,
            State::Paused { .. } => v1::State::Paused,
            State::Succeeded => v1::State::Succeeded,
            State::Failed(_) => v1::State::Failed,
            State::Cancelled => v1::State::Cancelled,
        }
    }
}

/// What an attempt leaves behind that ended without its figures.
fn after_end(
    attempt: u32,
    tries: u32,
    stopping: Option<Stopping>,
    ending: Ending,
    around: Surroundings,
) -> State {
    match (stopping, ending) {
        (Some(Stopping::Cancel), _) | (None, Ending::Cancelled) => State::Cancelled,
        (_, Ending::Succeeded) => State::Succeeded,
        (None, Ending::Failed(failure)) => after_failure(attempt, tries, failure, around),
        (Some(why @ (Stopping::Pause | Stopping::Yield)), ending) => {
            let failure = match ending {
                Ending::Failed(failure) => failure,
                // A worker that knows of no pauses takes every request to stop for a cancellation.
                _ => Failure { class: FailureClass::Interrupted, message: "stopped as asked".to_owned() },
            };
            match after_failure(attempt, tries, failure, around) {
                State::Queued { attempt, tries, last, .. } if why == Stopping::Pause => {
                    State::Paused { attempt, tries, last }
                }
                other => other,
            }
        }
    }
}

/// A transient failure goes back to the queue while tries are left; any other is final.
fn after_failure(attempt: u32, tries: u32, failure: Failure, around: Surroundings) -> State {
    let tries = tries.saturating_add(u32::from(failure.class.costs_a_try()));
    let spent = failure.class.costs_a_try() && tries >= around.max_attempts.max(1);
    if !failure.class.retries() || spent {
        return State::Failed(failure);
    }
    let wait_ms =
        if failure.class.costs_a_try() { backoff_ms(failure.class, tries, around.jitter) } else { 0 };
    let not_before_ms = if wait_ms == 0 { 0 } else { around.now_ms.saturating_add(wait_ms) };
    State::Queued { attempt, tries, not_before_ms, last: Some(failure) }
}

/// The longest back-off.
pub const MAX_BACKOFF_MS: u64 = 5 * 60 * 1000;

/// Whether a back-off is under way. One that ends later than the longest could was reckoned on a wall clock that has been set
/// back since: it is over, rather than hold its experiment up for as long as the clock was wrong.
pub fn backs_off(not_before_ms: u64, now_ms: u64) -> bool {
    not_before_ms > now_ms && not_before_ms - now_ms <= MAX_BACKOFF_MS
}

/// How long to wait after the `tries`-th failure (from 1): doubling from a first wait that suits the class, at
/// most five minutes, and shortened by up to a half so that many experiments that failed together do not come
/// back together.
pub fn backoff_ms(class: FailureClass, tries: u32, jitter: f64) -> u64 {
    let first_ms = match class {
        // The cause is most likely gone with the process; another worker may be free right now.
        FailureClass::Signal | FailureClass::WorkerLost => 1000,
        // A full disk or a device in trouble needs somebody or some time.
        _ => 5000,
    };
    let doubled = first_ms << tries.saturating_sub(1).min(16);
    let longest = doubled.min(MAX_BACKOFF_MS);
    longest - (longest as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as u64
}

impl fmt::Display for State {
    /// Completes "an experiment that …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Queued { .. } => write!(f, "is queued"),
            State::Running { attempt, stopping: Some(Stopping::Cancel), .. } => {
                write!(f, "runs (attempt {attempt}, being cancelled)")
            }
            State::Running { attempt, stopping: Some(Stopping::Pause), .. } => {
                write!(f, "runs (attempt {attempt}, being paused)")
            }
            State::Running { attempt, stopping: Some(Stopping::Yield), .. } => {
                write!(f, "runs (attempt {attempt}, being preempted)")
            }
            State::Running { attempt, .. } => write!(f, "runs (attempt {attempt})"),
            State::Paused { .. } => write!(f, "is paused"),
            State::Succeeded => write!(f, "succeeded"),
            State::Failed(_) => write!(f, "failed"),
            State::Cancelled => write!(f, "was cancelled"),
        }
    }
}

impl fmt::Display for Event {
    /// Completes "an experiment cannot …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Leased => write!(f, "be leased now"),
            Event::Ended(ending) => write!(f, "end its attempt as {}", ending.label()),
            Event::CancelRequested => write!(f, "be cancelled"),
            Event::PauseRequested => write!(f, "be paused"),
            Event::ResumeRequested => write!(f, "be resumed"),
            Event::PreemptRequested => write!(f, "be preempted"),
            Event::DependencyFailed(_) => write!(f, "fail for another"),
        }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
