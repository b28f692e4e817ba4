//! Which experiment runs where, and why another waits: pure.
//!
//! The order of the queue: higher priority first; among equals the sweep with the fewest running experiments first (what
//! belongs to no sweep counts as one sweep together); within a sweep first in, first out. What nobody can run now does not
//! hold up what can.
//!
//! [`assign`] fills free slots in that order, [`preempt`] frees some for a higher priority, and [`why`] says in words what
//! keeps an experiment waiting; all three ask [`Demand::met_by`] who may run what, so that they cannot disagree.

use std::collections::BTreeMap;
use std::sync::Arc;

use cnx_proto::spec::Resources;

mod assign;
mod preempt;
mod running;
#[cfg(test)]
mod tests;
mod why;

pub use assign::{Match, assign, fair_slots};
pub use preempt::{Holding, Preemption, preempt};
pub use running::Running;
pub use why::{Awaited, Place, Queue, Waiting, Why, why};

/// What a worker must have to run an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// Above 0: a GPU.
    pub gpus: u32,
    /// Set aside for it while it runs.
    pub memory_gib: u32,
    /// All of these; sorted, each once.
    pub labels: Vec<String>,
}

impl From<&Resources> for Demand {
    fn from(resources: &Resources) -> Demand {
        let mut labels = resources.labels.clone();
        labels.sort_unstable();
        labels.dedup();
        Demand { gpus: resources.gpus, memory_gib: resources.memory_gib, labels }
    }
}

/// What a worker has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Its slots are on a GPU.
    pub gpu: bool,
    /// For all its experiments together.
    pub memory_gib: u32,
    /// What experiments may ask for.
    pub labels: Vec<String>,
}

impl Capacity {
    /// Of a worker as it describes itself: everything but "cpu" counts as a GPU.
    pub fn new(device: &str, memory_gib: u32, labels: Vec<String>) -> Capacity {
        Capacity { gpu: !device.eq_ignore_ascii_case("cpu"), memory_gib, labels }
    }
}

impl Demand {
    /// Whether a worker could run it if nothing else ran there.
    pub fn met_by(&self, has: &Capacity) -> bool {
        (self.gpus == 0 || has.gpu)
            && self.memory_gib <= has.memory_gib
            && self.labels.iter().all(|label| has.labels.contains(label))
    }
}

/// A connected worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// What it has.
    pub has: Capacity,
    /// How many experiments it runs at once.
    pub slots: u32,
    /// Of these, how many wait for work; none while it is stopping or suspect.
    pub free_slots: u32,
    /// Memory that is not set aside for what runs there.
    pub free_memory_gib: u32,
    /// It is stopping and takes nothing more.
    pub draining: bool,
    /// It was not heard for too long, and gets nothing until it is.
    pub suspect: bool,
}

impl Worker {
    /// Whether it can take such an experiment now.
    pub fn has_room_for(&self, demand: &Demand) -> bool {
        self.free_slots > 0 && demand.met_by(&self.has) && demand.memory_gib <= self.free_memory_gib
    }
}

/// A queued experiment that is ready: not paused, its back-off over, and all it was to run after succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its ID; lower was queued earlier.
    pub experiment: u64,
    /// Higher goes first.
    pub priority: i32,
    /// The sweep whose share of the slots it counts against; 0: what belongs to none.
    pub share: u64,
    /// What it needs.
    pub demand: Arc<Demand>,
    /// Where its last attempt failed: another worker is preferred.
    pub avoid: Option<String>,
}

/// How many experiments of each sweep run.
pub type Shares = BTreeMap<u64, u32>;
