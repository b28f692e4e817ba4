//! Bad luck on purpose: real processes and a quick real training, through kills, stops and broken networks at random from
//! a seed. At the end the results must be those of an undisturbed run, to the byte.
//!
//! [`plan`] says what goes wrong (pure), [`run`] makes it happen: to processes, to the way of each agent to the
//! coordinator ([`proxy`]), and by what [`people`] do. Meanwhile every answer of the coordinator is held against what it
//! told before ([`ledger`]), and the processes are looked at ([`overlap`]). [`verdict`] compares.

mod ledger;
mod overlap;
mod people;
mod plan;
mod proxy;
mod record;
mod run;
mod verdict;
mod work;

pub use crate::pool::owns;
pub use overlap::{Findings, Watcher};
pub use plan::Plan;
pub use run::{Options, run};
pub use verdict::Report;
