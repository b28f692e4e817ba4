//! What the coordinator may never take back, held against every answer that it gives: pure.

use std::collections::BTreeMap;

use cnx_proto::v1::{Experiment, State, StatusReply};

/// What was seen of an experiment.
#[derive(Debug, Clone)]
struct Entry {
    state: State,
    attempt: u32,
    epochs_done: u32,
    /// The last attempt that was over.
    over: u32,
}

/// Everything that was told so far.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<u64, Entry>,
    /// Answers taken in.
    pub answers: u64,
    /// Broken promises, in words.
    pub broken: Vec<String>,
    /// Epochs that were reported, over all experiments.
    pub epochs: u64,
}

impl Ledger {
    /// Takes in an answer to a question that was asked after all of `acknowledged` had been acknowledged.
    pub fn told(&mut self, reply: &StatusReply, acknowledged: &[u64]) {
        self.answers += 1;
        let present: BTreeMap<u64, &Experiment> = reply.experiments.iter().map(|e| (e.id, e)).collect();
        let known = self.entries.keys().chain(acknowledged);
        let missing: Vec<u64> = known.copied().filter(|id| !present.contains_key(id)).collect();
        for id in missing {
            self.broken.push(format!("experiment {id} was acknowledged, and is gone"));
        }
        for (id, experiment) in present {
            self.hold(id, experiment);
        }
    }

    fn hold(&mut self, id: u64, now: &Experiment) {
        let state = now.state();
        let new = Entry { state, attempt: now.attempt, epochs_done: now.epochs_done, over: 0 };
        let before = self.entries.entry(id).or_insert(Entry { epochs_done: 0, ..new.clone() });
        let mut broken = |what: String| self.broken.push(format!("experiment {id} {what}"));
        if before.state.is_final() && (state != before.state || now.attempt != before.attempt) {
            broken(format!(
                "was {} (attempt {}), which is final, and is now {state} (attempt {})",
                before.state, before.attempt, now.attempt
            ));
        }
        if now.attempt < before.attempt {
            broken(format!("was in attempt {}, and is now in attempt {}", before.attempt, now.attempt));
        }
        if state == State::Running && now.attempt <= before.over {
            broken(format!("runs attempt {} again, which was over", now.attempt));
        }
        if now.epochs_done < before.epochs_done {
            broken(format!("had {} epochs on record, and has {}", before.epochs_done, now.epochs_done));
        }
        self.epochs += u64::from(now.epochs_done.saturating_sub(before.epochs_done));
        let over = if state == State::Running { now.attempt.saturating_sub(1) } else { now.attempt };
        *before = Entry { over: before.over.max(over), ..new };
    }

    /// Experiments that are not final, by ID.
    pub fn unfinished(&self) -> Vec<u64> {
        self.entries.iter().filter(|(_, entry)| !entry.state.is_final()).map(|(&id, _)| id).collect()
    }

    /// How many experiments were told.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Experiments in a state, by ID.
    pub fn in_state(&self, state: State) -> Vec<u64> {
        self.entries.iter().filter(|(_, entry)| entry.state == state).map(|(&id, _)| id).collect()
    }

    /// The state that an experiment was last seen in, and its newest attempt.
    pub fn seen(&self, id: u64) -> Option<(State, u32)> {
        self.entries.get(&id).map(|entry| (entry.state, entry.attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(state: State, attempt: u32, epochs_done: u32) -> StatusReply {
        let experiment =
            Experiment { id: 1, state: state.into(), attempt, epochs_done, ..Experiment::default() };
        StatusReply { experiments: vec![experiment], ..StatusReply::default() }
    }

    /// What was broken after these answers.
    fn broken(told: &[(State, u32, u32)]) -> Vec<String> {
        let mut ledger = Ledger::default();
        for &(state, attempt, epochs) in told {
            ledger.told(&reply(state, attempt, epochs), &[1]);
        }
        ledger.broken
    }

    #[test]
    fn an_orderly_life_breaks_nothing() {
        use State::{Queued, Running, Succeeded};
        let life = [
            (Queued, 0, 0),
            (Running, 1, 1),
            (Queued, 1, 1),
            (Running, 2, 1),
            (Running, 4, 3),
            (Succeeded, 4, 5),
        ];
        assert_eq!(broken(&life), Vec::<String>::new());
    }

    #[test]
    fn each_broken_promise_is_found() {
        use State::{Cancelled, Queued, Running, Succeeded};
        let cases = [
            (vec![(Succeeded, 1, 5), (Cancelled, 1, 5)], "which is final"),
            (vec![(Succeeded, 1, 5), (Queued, 1, 5)], "which is final"),
            (vec![(Running, 2, 1), (Running, 1, 1)], "now in attempt 1"),
            (vec![(Running, 1, 1), (Queued, 1, 1), (Running, 1, 1)], "again, which was over"),
            (vec![(Running, 1, 3), (Running, 1, 2)], "epochs on record"),
        ];
        for (told, what) in cases {
            let broken = broken(&told);
            assert!(broken.iter().any(|b| b.contains(what)), "{told:?}: expected {what}, found {broken:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let mut ledger = Ledger::default();
        ledger.told(&reply(State::Queued, 0, 0), &[1]);
        ledger.told(&reply(State::Queued, 0, 0), &[1, 2]);
        assert_eq!(ledger.broken, ["experiment 2 was acknowledged, and is gone"]);
    }
}
