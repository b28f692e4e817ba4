//! Who may call the coordinator, and how callers find and trust it. Coordinator, workers and command line share it, so
//! that each side of a rule reads the same.
//!
//! - [`secret`]: tokens, in files of their owner only.
//! - [`role`]: people and workers have tokens of their own, with rights of their own.
//! - [`place`]: where the coordinator is, and that no token goes to it in clear text over a network.
//! - [`trust`]: certificates. [`explain`]: what went wrong with them, and what to do.

pub mod explain;
pub mod place;
pub mod role;
pub mod secret;
pub mod trust;

pub use place::Place;
pub use role::Role;
pub use secret::Secret;
pub use trust::{TlsArgs, Trust};

/// Why the coordinator cannot be called: one variant per thing the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Say it differently.
    #[error("{0}")]
    Usage(String),
    /// Start a coordinator; the text is where none is.
    #[error("no coordinator at {0}")]
    Nowhere(String),
    /// Bring the token.
    #[error("{0}")]
    Token(String),
    /// Bring the certificates.
    #[error("{0}")]
    Certificate(String),
    /// Look at a file.
    #[error("{0}")]
    File(String),
}
