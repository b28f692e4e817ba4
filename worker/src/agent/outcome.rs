//! What an attempt came to, from how its child ended: pure.

use std::fmt;

use cnx_proto::v1::outcome::Kind;
use cnx_proto::v1::{FailureClass, Outcome};

/// Why the agent stopped a child. Later variants override earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopCause {
    /// The agent itself was asked to stop.
    Shutdown,
    /// The coordinator wants its slot for a higher priority.
    Preempted,
    /// Somebody paused it.
    Paused,
    /// Somebody cancelled it.
    Cancelled,
    /// The reports could not be kept on disk.
    SpoolFailed,
    /// The lease is not this worker's any more: nothing is reported.
    Stale,
}

/// How a child process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It was never started, for this reason.
    NotStarted(String),
    /// It wrote what is not a report, and was killed for it.
    BadReports(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => write!(f, "signal {number}, {}", signal_name(*number)),
            Exit::NotStarted(why) => write!(f, "not started: {why}"),
            Exit::BadReports(_) => f.write_str("killed for what it printed"),
        }
    }
}

/// All that is known about the end of an attempt.
#[derive(Debug)]
pub struct Ending<'a> {
    /// How the child ended.
    pub exit: Exit,
    /// The outcome that it reported itself.
    pub reported: Option<Outcome>,
    /// Why the agent stopped it, if it did.
    pub cause: Option<StopCause>,
    /// The last lines of its standard error.
    pub last_lines: &'a [String],
    /// What went wrong with the spool, if `cause` says so.
    pub spool_error: Option<String>,
}

/// The outcome to report; `None` for a stale lease.
///
/// What the child says of itself counts, except that it cannot know that it was cancelled. A success stays one
/// whatever came after: everything it consists of was reported before.
pub fn decide(ending: Ending<'_>) -> Option<Outcome> {
    let Ending { exit, reported, cause, last_lines, spool_error } = ending;
    if cause == Some(StopCause::Stale) {
        return None;
    }
    if cause == Some(StopCause::SpoolFailed) {
        let why = spool_error.unwrap_or_else(|| "unknown error".to_owned());
        return Some(failed(
            FailureClass::DiskFull,
            format!(
                "the worker could not keep the attempt's reports on its disk: {why}; free some space there"
            ),
        ));
    }
    if reported.as_ref().is_some_and(|outcome| outcome.kind() == Kind::Succeeded) {
        return reported;
    }
    if cause == Some(StopCause::Cancelled) {
        return Some(Outcome {
            kind: Kind::Cancelled.into(),
            failure: FailureClass::Unspecified.into(),
            message: "cancelled".to_owned(),
        });
    }
    Some(match (reported, cause) {
        (Some(outcome), None) => outcome,
        (Some(outcome), Some(_)) if outcome.failure() != FailureClass::Interrupted => outcome,
        (_, Some(StopCause::Paused)) => failed(FailureClass::Interrupted, "stopped to be paused".to_owned()),
        (_, Some(StopCause::Preempted)) => {
            failed(FailureClass::Interrupted, "stopped for a higher priority".to_owned())
        }
        (_, Some(_)) => failed(FailureClass::Interrupted, "the worker was asked to stop".to_owned()),
        (None, None) => unexplained(exit, last_lines),
    })
}

/// An outcome on one line of the log.
pub fn summary(outcome: &Outcome) -> String {
    let message = outcome.message.lines().next().unwrap_or_default();
    match outcome.kind() {
        Kind::Succeeded => "succeeded".to_owned(),
        Kind::Cancelled => "cancelled".to_owned(),
        Kind::Failed | Kind::Unspecified => format!("failed, {}: {message}", outcome.failure()),
    }
}

fn unexplained(exit: Exit, last_lines: &[String]) -> Outcome {
    match exit {
        Exit::Signal(number) => failed(FailureClass::Signal, signal_message(number)),
        Exit::Code(0) => failed(
            FailureClass::Internal,
            with_last_lines("the child ended without reporting an outcome".to_owned(), last_lines),
        ),
        Exit::Code(code) => failed(
            FailureClass::Internal,
            with_last_lines(format!("the child ended with exit code {code} and no outcome"), last_lines),
        ),
        Exit::NotStarted(why) => {
            failed(FailureClass::Internal, format!("the child could not be started: {why}"))
        }
        Exit::BadReports(why) => failed(
            FailureClass::Internal,
            with_last_lines(format!("the child's reports could not be read: {why}"), last_lines),
        ),
    }
}

fn signal_message(number: i32) -> String {
    let name = signal_name(number);
    let hint = match name {
        "SIGKILL" => "; perhaps by the kernel's out-of-memory killer: see `dmesg`",
        "SIGSEGV" | "SIGABRT" | "SIGBUS" | "SIGILL" | "SIGFPE" => ": it crashed",
        _ => "",
    };
    format!("the child was killed by signal {number} ({name}){hint}")
}

fn signal_name(number: i32) -> &'static str {
    use rustix::process::Signal;
    const NAMES: [(Signal, &str); 13] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    NAMES.iter().find(|(signal, _)| signal.as_raw() == number).map_or("unnamed", |(_, name)| name)
}

fn with_last_lines(message: String, lines: &[String]) -> String {
    if lines.is_empty() {
        return format!("{message}; it wrote nothing to its log");
    }
    format!("{message}; its log ends:\n{}", lines.join("\n"))
}

fn failed(class: FailureClass, message: String) -> Outcome {
    Outcome { kind: Kind::Failed.into(), failure: class.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit: Exit, reported: Option<Outcome>, cause: Option<StopCause>) -> Option<Outcome> {
        let last_lines = &["step 4112".to_owned(), "boom".to_owned()];
        decide(Ending { exit, reported, cause, last_lines, spool_error: Some("no space left".into()) })
    }

    fn succeeded() -> Outcome {
        Outcome { kind: Kind::Succeeded.into(), ..Outcome::default() }
    }

    fn class(outcome: Option<Outcome>) -> FailureClass {
        let outcome = outcome.expect("an outcome");
        assert_eq!(outcome.kind(), Kind::Failed);
        outcome.failure()
    }

    #[test]
    fn what_the_child_reports_counts() {
        assert_eq!(end(Exit::Code(0), Some(succeeded()), None), Some(succeeded()));
        let diverged = failed(FailureClass::Diverged, "NaN loss at step 7".into());
        assert_eq!(end(Exit::Code(0), Some(diverged.clone()), None), Some(diverged.clone()));
        assert_eq!(end(Exit::Code(0), Some(diverged.clone()), Some(StopCause::Shutdown)), Some(diverged));
    }

    #[test]
    fn a_success_survives_a_crash_at_exit_and_a_late_cancel() {
        assert_eq!(end(Exit::Signal(11), Some(succeeded()), None), Some(succeeded()));
        assert_eq!(end(Exit::Code(0), Some(succeeded()), Some(StopCause::Cancelled)), Some(succeeded()));
    }

    #[test]
    fn a_kill_names_the_signal_and_the_memory_killer() {
        let outcome = end(Exit::Signal(9), None, None).expect("an outcome");
        assert_eq!(outcome.failure(), FailureClass::Signal);
        assert!(outcome.message.contains("SIGKILL"), "{}", outcome.message);
        assert!(outcome.message.contains("out-of-memory"), "{}", outcome.message);
        assert!(end(Exit::Signal(11), None, None).is_some_and(|o| o.message.contains("SIGSEGV")));
    }

    #[test]
    fn an_exit_code_is_internal_and_quotes_the_log() {
        let outcome = end(Exit::Code(101), None, None).expect("an outcome");
        assert_eq!(outcome.failure(), FailureClass::Internal);
        assert!(outcome.message.contains("101") && outcome.message.ends_with("step 4112\nboom"));
        assert_eq!(class(end(Exit::Code(0), None, None)), FailureClass::Internal);
        assert_eq!(class(end(Exit::NotStarted("no such file".into()), None, None)), FailureClass::Internal);
    }

    #[test]
    fn a_cancelled_child_is_cancelled_however_it_ended() {
        let interrupted = failed(FailureClass::Interrupted, "SIGTERM".into());
        for (exit, reported) in
            [(Exit::Signal(9), None), (Exit::Code(1), None), (Exit::Code(0), Some(interrupted))]
        {
            let outcome = end(exit, reported, Some(StopCause::Cancelled)).expect("an outcome");
            assert_eq!(outcome.kind(), Kind::Cancelled);
        }
    }

    #[test]
    fn what_the_agent_stopped_was_interrupted() {
        use StopCause::{Paused, Preempted, Shutdown};
        for cause in [Shutdown, Paused, Preempted] {
            assert_eq!(class(end(Exit::Signal(9), None, Some(cause))), FailureClass::Interrupted);
        }
    }

    #[test]
    fn a_stale_lease_reports_nothing_and_a_full_disk_says_so() {
        assert_eq!(end(Exit::Code(0), Some(succeeded()), Some(StopCause::Stale)), None);
        let outcome = end(Exit::Code(0), Some(succeeded()), Some(StopCause::SpoolFailed));
        assert_eq!(class(outcome), FailureClass::DiskFull);
    }
}
