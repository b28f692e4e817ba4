//! Fills free slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::{Candidate, Shares, Worker};

/// An experiment and the worker that is to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The experiment.
    pub experiment: u64,
    /// The worker.
    pub worker: String,
}

/// Matches candidates with free slots, in the order of the queue. `shares` is what runs already.
///
/// Of the workers that fit, one where its last attempt did not fail takes it, then the one with the most free slots, so
/// that work spreads; an experiment that needs no GPU leaves GPUs to those that do.
pub fn assign(candidates: &[Candidate], workers: &[Worker], shares: &Shares) -> Vec<Match> {
    let mut workers = workers.to_vec();
    let mut shares = shares.clone();
    let mut needing = candidates.iter().filter(|c| c.demand.gpus > 0).count();
    let mut groups: BTreeMap<(Reverse<i32>, u64), VecDeque<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry((Reverse(candidate.priority), candidate.share)).or_default().push_back(candidate);
    }
    // What is next of each group: by priority, then the share's running experiments, then age.
    let mut heads = BinaryHeap::new();
    for (&(priority, share), queue) in &mut groups {
        queue.make_contiguous().sort_unstable_by_key(|c| c.experiment);
        heads.extend(head(priority, share, queue, &shares));
    }
    let mut matches = Vec::new();
    while let Some(Reverse((priority, running, _, share))) = heads.pop() {
        let Some(queue) = groups.get_mut(&(priority, share)) else { continue };
        // The same sweep may have got slots at another priority meanwhile.
        if running == shares.get(&share).copied().unwrap_or(0)
            && let Some(candidate) = queue.pop_front()
        {
            needing -= usize::from(candidate.demand.gpus > 0);
            if let Some(worker) = best(candidate, &mut workers, needing > 0) {
                worker.free_slots -= 1;
                worker.free_memory_gib -= candidate.demand.memory_gib;
                *shares.entry(share).or_default() += 1;
                matches.push(Match { experiment: candidate.experiment, worker: worker.name.clone() });
            }
        }
        heads.extend(head(priority, share, queue, &shares));
    }
    matches
}

type Head = Reverse<(Reverse<i32>, u32, u64, u64)>;

fn head(priority: Reverse<i32>, share: u64, queue: &VecDeque<&Candidate>, shares: &Shares) -> Option<Head> {
    let running = shares.get(&share).copied().unwrap_or(0);
    queue.front().map(|c| Reverse((priority, running, c.experiment, share)))
}

fn best<'a>(
    candidate: &Candidate,
    workers: &'a mut [Worker],
    others_need_gpus: bool,
) -> Option<&'a mut Worker> {
    let fits = |w: &&mut Worker| w.has_room_for(&candidate.demand);
    workers.iter_mut().filter(fits).max_by(|a, b| {
        let untried = |w: &Worker| candidate.avoid.as_ref() != Some(&w.name);
        let spares = |w: &Worker| others_need_gpus && candidate.demand.gpus == 0 && !w.has.gpu;
        untried(a)
            .cmp(&untried(b))
            .then(spares(a).cmp(&spares(b)))
            .then(a.free_slots.cmp(&b.free_slots))
            .then(b.name.cmp(&a.name))
    })
}

/// How many of `slots` each of these sweeps would get if all had plenty waiting: those with the fewest running are filled
/// up first, the first named first among equals. In their order.
pub fn fair_slots(running: &[u32], slots: u32) -> Vec<u32> {
    let mut given = vec![0; running.len()];
    let mut heads: BinaryHeap<_> = running.iter().enumerate().map(|(i, &n)| Reverse((n, i))).collect();
    for _ in 0..slots {
        let Some(Reverse((n, i))) = heads.pop() else { break };
        given[i] += 1;
        heads.push(Reverse((n.saturating_add(1), i)));
    }
    given
}
