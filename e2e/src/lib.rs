//! A pool of the real binaries on this machine, for tests: a coordinator, a worker, and the CLI, in a state folder of
//! their own. Waits are on what the coordinator tells, never on time; each has a generous bound.

// Tests fail by panicking; so does their harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod api;
pub mod chaos;
mod disk;
mod pool;
mod watch;

pub use disk::Disk;
pub use pool::{PATIENCE, Pool, children_of, kill_9, tiny_config};
pub use watch::{experiment, until};
