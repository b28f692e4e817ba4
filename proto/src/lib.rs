//! The contract of cnx, shared by coordinator, worker and CLI. No IO, no async.
//!
//! Read in this order: [`spec`] (what an experiment is), [`recipe`] (what it is where a file leaves it unsaid),
//! [`file`] (its TOML form), [`validate`], [`sweep`] (many at once), [`job`] (one that takes a model from a file),
//! [`architecture`] and [`cost`] (what it means,
//! in layers and integers), then [`v1`] (the services, told in `cnx.proto`), [`names`], and [`lease_clock`] (a worker's
//! side of a lease).

pub mod architecture;
pub mod cost;
pub mod dashed;
pub mod escape;
pub mod file;
pub mod job;
pub mod lease_clock;
pub mod names;
pub mod problems;
pub mod random;
pub mod recipe;
pub mod spec;
pub mod state_dir;
pub mod sweep;
pub mod synthetic;
pub mod validate;

pub use spec::Spec;

/// The generated messages and services of `cnx.proto`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("cnx.v1");
}
