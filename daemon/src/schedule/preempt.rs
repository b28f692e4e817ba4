//! Frees slots for a higher priority.

use super::{Candidate, Worker};

/// An experiment that runs on a connected worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The experiment.
    pub experiment: u64,
    /// Its priority.
    pub priority: i32,
    /// Its worker.
    pub worker: String,
    /// Memory that is set aside for it.
    pub memory_gib: u32,
    /// Since when, Unix time.
    pub since_ms: u64,
    /// Its worker was told already to stop it: its slot will be free soon.
    pub stopping: bool,
    /// For whom it was preempted.
    pub room_for: Option<u64>,
}

/// A running experiment that is to make room for one that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preemption {
    /// The one that runs.
    pub experiment: u64,
    /// The one that waits.
    pub room_for: u64,
}

/// Which running experiments are to make room for these, which wait and may preempt, in the order of the queue.
///
/// Only what has a strictly lower priority makes room: of the lowest priority the one that was started last, on a worker
/// where the other then fits. Whoever waits has at most one slot freed for it at a time, and none while one is free or
/// becomes free anyway; so nothing is stopped twice for one experiment, and what was preempted cannot preempt back.
pub fn preempt(wanting: &[Candidate], workers: &[Worker], running: &[Holding]) -> Vec<Preemption> {
    let mut workers = workers.to_vec();
    let (claimed, mut running): (Vec<Holding>, Vec<Holding>) =
        running.iter().cloned().partition(|h| wanting.iter().any(|c| h.room_for == Some(c.experiment)));
    let mut preemptions = Vec::new();
    for candidate in wanting {
        if claimed.iter().any(|h| h.room_for == Some(candidate.experiment)) {
            continue;
        }
        if let Some(free) = workers.iter_mut().find(|w| w.has_room_for(&candidate.demand)) {
            free.free_slots -= 1;
            free.free_memory_gib -= candidate.demand.memory_gib;
            continue;
        }
        let Some(holding) = whom(candidate, &workers, &running).map(|index| running.swap_remove(index))
        else {
            continue;
        };
        if let Some(worker) = workers.iter_mut().find(|w| w.name == holding.worker) {
            worker.free_memory_gib += holding.memory_gib;
            worker.free_memory_gib -= candidate.demand.memory_gib;
        }
        if !holding.stopping {
            preemptions.push(Preemption { experiment: holding.experiment, room_for: candidate.experiment });
        }
    }
    preemptions
}

/// The place in `running` of the one that leaves room for the candidate.
fn whom(candidate: &Candidate, workers: &[Worker], running: &[Holding]) -> Option<usize> {
    let fits_after = |holding: &Holding| {
        let worker = workers.iter().find(|w| w.name == holding.worker && !w.draining);
        worker.is_some_and(|w| {
            candidate.demand.met_by(&w.has)
                && candidate.demand.memory_gib <= w.free_memory_gib + holding.memory_gib
        })
    };
    let leaves = |holding: &Holding| holding.stopping || holding.priority < candidate.priority;
    let chosen = running
        .iter()
        .enumerate()
        .filter(|(_, h)| leaves(h) && fits_after(h))
        .min_by_key(|(_, h)| (!h.stopping, h.priority, u64::MAX - h.since_ms, u64::MAX - h.experiment));
    chosen.map(|(index, _)| index)
}
