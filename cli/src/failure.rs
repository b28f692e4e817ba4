//! Why a verb did not succeed: a message and the exit code that scripts see.

use std::io;

/// What a verb returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// The exit codes, as the help text documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Nothing is wrong: whoever read our output had enough of it (`| head`).
    ReaderGone = 0,
    /// The request failed or was refused.
    Refused = 1,
    /// Wrong usage, or a config with problems.
    Usage = 2,
    /// The coordinator cannot be reached.
    Unreachable = 3,
    /// No token, or a wrong one.
    Unauthorised = 4,
    /// The time given was over first.
    TimedOut = 5,
}

/// A verb's failure. An empty message means that all has been said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides the exit code.
    pub code: Code,
    /// What was expected, what was found, where, and what to do.
    pub message: String,
}

impl Failure {
    /// The request failed or was refused.
    pub fn refused(message: impl Into<String>) -> Failure {
        Failure { code: Code::Refused, message: message.into() }
    }

    /// The person typed something that cannot be meant.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: Code::Usage, message: message.into() }
    }
}

/// Of writing to standard output. Other IO says where it happened, through [`Failure::refused`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: Code::ReaderGone, message: String::new() },
            _ => Failure::refused(format!("cannot write the output: {error}")),
        }
    }
}
