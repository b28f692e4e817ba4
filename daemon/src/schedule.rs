//! Which queued experiment goes to which free slot: pure. First in, first out; what cannot run anywhere now does
//! not hold up what can.

/// A queued experiment whose back-off is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its ID; lower was queued earlier.
    pub experiment: u64,
    /// Whether only a worker with a GPU may take it.
    pub needs_gpu: bool,
}

/// A connected worker with slots to fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// The worker.
    pub worker: String,
    /// Whether its slots are on a GPU.
    pub gpu: bool,
    /// Slots that wait for work.
    pub slots: u32,
}

/// An experiment and the worker that is to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The experiment.
    pub experiment: u64,
    /// The worker.
    pub worker: String,
}

/// Matches candidates with free slots, oldest candidate first. Of the workers that fit, the one with the most free
/// slots takes it, so that work spreads; an experiment that needs no GPU leaves GPUs to those that do.
pub fn assign(candidates: &[Candidate], free: &[Free]) -> Vec<Match> {
    let mut free = free.to_vec();
    let mut queue = candidates.to_vec();
    queue.sort_by_key(|c| c.experiment);
    let mut needing = queue.iter().filter(|c| c.needs_gpu).count();
    let mut matches = Vec::new();
    for candidate in queue {
        needing -= usize::from(candidate.needs_gpu);
        let best =
            free.iter_mut().filter(|f| f.slots > 0 && (f.gpu || !candidate.needs_gpu)).max_by(|a, b| {
                let spares = |f: &Free| needing > 0 && !candidate.needs_gpu && !f.gpu;
                spares(a).cmp(&spares(b)).then(a.slots.cmp(&b.slots)).then(b.worker.cmp(&a.worker))
            });
        if let Some(worker) = best {
            worker.slots -= 1;
            matches.push(Match { experiment: candidate.experiment, worker: worker.worker.clone() });
        }
    }
    matches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(experiment: u64) -> Candidate {
        Candidate { experiment, needs_gpu: false }
    }

    fn worker(name: &str, gpu: bool, slots: u32) -> Free {
        Free { worker: name.into(), gpu, slots }
    }

    fn pairs(matches: &[Match]) -> Vec<(u64, &str)> {
        matches.iter().map(|m| (m.experiment, m.worker.as_str())).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_work_spreads() {
        let found = assign(&[cpu(3), cpu(1), cpu(2)], &[worker("a", false, 2), worker("b", false, 1)]);
        assert_eq!(pairs(&found), [(1, "a"), (2, "a"), (3, "b")]);
    }

    #[test]
    fn one_that_needs_a_gpu_does_not_hold_up_the_others() {
        let gpu = Candidate { experiment: 1, needs_gpu: true };
        assert_eq!(pairs(&assign(&[gpu, cpu(2)], &[worker("a", false, 1)])), [(2, "a")]);
    }

    #[test]
    fn gpus_are_left_to_those_that_need_them() {
        let gpu = Candidate { experiment: 2, needs_gpu: true };
        let free = [worker("cpu", false, 1), worker("gpu", true, 1)];
        assert_eq!(pairs(&assign(&[cpu(1), gpu], &free)), [(1, "cpu"), (2, "gpu")]);
    }

    proptest! {
        #[test]
        fn slots_and_needs_hold_and_nothing_idles_beside_work_it_could_do(
            needs in proptest::collection::vec(any::<bool>(), 0..20),
            pool in proptest::collection::vec((any::<bool>(), 0..4u32), 0..5),
        ) {
            let queue: Vec<_> = needs.iter().enumerate()
                .map(|(i, &needs_gpu)| Candidate { experiment: i as u64 + 1, needs_gpu }).collect();
            let free: Vec<_> = pool.iter().enumerate()
                .map(|(i, &(gpu, slots))| worker(&format!("w{i}"), gpu, slots)).collect();
            let matches = assign(&queue, &free);
            for f in &free {
                let taken: Vec<_> = matches.iter().filter(|m| m.worker == f.worker).collect();
                prop_assert!(taken.len() <= f.slots as usize);
                prop_assert!(f.gpu || taken.iter().all(|m| !needs[m.experiment as usize - 1]));
                let idle = taken.len() < f.slots as usize;
                let waits = queue.iter()
                    .filter(|c| matches.iter().all(|m| m.experiment != c.experiment))
                    .any(|c| f.gpu || !c.needs_gpu);
                prop_assert!(!(idle && waits));
            }
            let mut once: Vec<_> = matches.iter().map(|m| m.experiment).collect();
            once.dedup();
            prop_assert_eq!(once.len(), matches.len());
        }
    }
}
