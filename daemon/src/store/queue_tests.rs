//! The queue on a real SQLite file: who is ready, who waits for whom, and that asking stays cheap.

use cnx_proto::v1::{FailureClass, State};
use sqlx::Row;
use tempfile::TempDir;

use super::*;
use crate::lifecycle::{Failure, Stopping};
use crate::schedule::{Capacity, Demand, Shares, Worker};

struct Fixture {
    store: Store,
    _dir: TempDir,
}

fn at(ms: u64) -> Now {
    Now { ms, jitter: 0.0 }
}

fn ids(ids: &[u64]) -> Selection {
    Selection::Ids(ids.to_vec())
}

fn new(name: &str) -> NewExperiment {
    NewExperiment {
        name: name.into(),
        json: "{}".into(),
        hash: name.into(),
        demand: Demand::default(),
        max_attempts: 3,
    }
}

fn submission(names: &[&str]) -> Submission {
    Submission { experiments: names.iter().map(|n| new(n)).collect(), ..Submission::default() }
}

fn worker(slots: u32) -> Worker {
    let has = Capacity { gpu: false, memory_gib: 16, labels: vec!["fast".into()] };
    Worker {
        name: "w".into(),
        has,
        slots,
        free_slots: slots,
        free_memory_gib: 16,
        draining: false,
        suspect: false,
    }
}

impl Fixture {
    async fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cnx.db")).await.unwrap();
        Fixture { store, _dir: dir }
    }

    async fn submit(&self, submission: Submission) -> Vec<u64> {
        self.store.submit(submission, at(1)).await.unwrap().iter().map(|s| s.id).collect()
    }

    /// What would run next, in the order of the queue.
    async fn next(&self, slots: u32) -> Vec<u64> {
        let found = self.store.candidates(&[worker(slots)], &Shares::new(), 100, 256).await.unwrap();
        crate::schedule::assign(&found, &[worker(slots)], &Shares::new())
            .iter()
            .map(|m| m.experiment)
            .collect()
    }

    async fn lease_on(&self, experiment: u64, worker: &str) -> Granted {
        let token = format!("token-{experiment}");
        let assignment = Assignment { experiment, worker: worker.into(), token };
        self.store.lease(&[assignment], at(1000)).await.unwrap().pop().unwrap()
    }

    async fn end(&self, experiment: u64, class: FailureClass) {
        let lease = self.lease_on(experiment, "w").await.lease;
        let failure = Failure { class, message: "boom".into() };
        self.store.interrupt(&[Interrupted { lease, failure }], at(2000)).await.unwrap();
    }

    async fn succeed(&self, experiment: u64) {
        use cnx_proto::v1::{Outcome, Report, outcome, report::Body};
        let lease = self.lease_on(experiment, "w").await.lease;
        let outcome = Outcome { kind: outcome::Kind::Succeeded.into(), ..Outcome::default() };
        let report = Report { lease: Some(lease), sequence: 1, at_ms: 1, body: Some(Body::Outcome(outcome)) };
        self.store.report("w", vec![report], at(2000)).await.unwrap();
    }

    async fn state(&self, id: u64) -> State {
        self.store.states(&[id]).await.unwrap()[0].1
    }
}

#[tokio::test]
async fn the_queue_goes_by_priority_then_turns_of_sweeps_then_age() {
    let f = Fixture::new().await;
    let sweep = |name: &str, names: &[&str]| Submission { sweep: Some(name.into()), ..submission(names) };
    f.submit(sweep("s", &["a", "b", "c"])).await;
    f.submit(sweep("t", &["d"])).await;
    f.submit(Submission { priority: 3, ..submission(&["e"]) }).await;
    f.submit(submission(&["f"])).await;
    // The single one at priority 0 counts the other single one, which runs by then.
    assert_eq!(f.next(9).await, [5, 1, 4, 2, 6, 3]);
    assert_eq!(f.next(2).await, [5, 1]);
    f.store.set_priority(&ids(&[3]), 7, at(2)).await.unwrap();
    assert_eq!(f.next(2).await, [3, 5]);
}

#[tokio::test]
async fn what_no_free_worker_has_does_not_hold_up_the_rest() {
    let f = Fixture::new().await;
    let needing = |name: &str, demand: Demand| NewExperiment { demand, ..new(name) };
    let labels = |label: &str| Demand { labels: vec![label.into()], ..Demand::default() };
    let all = vec![
        needing("a", Demand { gpus: 1, ..Demand::default() }),
        needing("b", Demand { memory_gib: 64, ..Demand::default() }),
        needing("c", labels("far")),
        needing("d", labels("fast")),
        needing("e", Demand { memory_gib: 8, ..Demand::default() }),
    ];
    f.submit(Submission { experiments: all, priority: 5, ..Submission::default() }).await;
    f.submit(submission(&["f"])).await;
    assert_eq!(f.next(9).await, [4, 5, 6]);
}

#[tokio::test]
async fn sweeps_whose_oldest_wait_for_their_back_off_leave_the_slots_to_others() {
    let f = Fixture::new().await;
    f.submit(Submission { sweep: Some("s".into()), ..submission(&["a", "b"]) }).await;
    f.submit(Submission { sweep: Some("t".into()), ..submission(&["c"]) }).await;
    f.submit(Submission { priority: -1, ..submission(&["d"]) }).await;
    for id in [1, 2] {
        f.end(id, FailureClass::Signal).await;
    }
    assert_eq!(f.next(2).await, [3, 4]);
    assert_eq!(f.next(1).await, [3]);
}

#[tokio::test]
async fn a_paused_experiment_waits_and_a_paused_queue_leases_nothing() {
    let f = Fixture::new().await;
    f.submit(submission(&["a", "b"])).await;
    assert!(f.store.pause(&ids(&[1]), at(2)).await.unwrap().changes[0].changed);
    assert_eq!(f.state(1).await, State::Paused);
    assert_eq!(f.next(9).await, [2]);
    let counts = f.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running, counts.paused), (1, 0, 1));

    assert!(f.store.hold_queue(true, at(3)).await.unwrap());
    assert!(!f.store.hold_queue(true, at(4)).await.unwrap());
    assert_eq!(f.store.queue_paused_since_ms().await.unwrap(), Some(3));
    assert!(f.next(9).await.is_empty());
    let assignment = Assignment { experiment: 2, worker: "w".into(), token: "t".into() };
    assert!(f.store.lease(&[assignment], at(5)).await.unwrap().is_empty());
    assert!(f.store.hold_queue(false, at(6)).await.unwrap());

    f.store.resume(&ids(&[1]), at(7)).await.unwrap();
    assert_eq!(f.next(9).await, [1, 2]);
    assert_eq!(f.store.counts().await.unwrap().paused, 0);
    let again = f.store.resume(&ids(&[1]), at(8)).await.unwrap();
    assert!(!again.changes[0].changed && again.changes[0].message.contains("only what is paused"));
}

#[tokio::test]
async fn pausing_what_runs_is_remembered_until_its_worker_confirms() {
    let f = Fixture::new().await;
    f.submit(submission(&["a"])).await;
    let lease = f.lease_on(1, "w").await.lease;
    let paused = f.store.pause(&ids(&[1]), at(2)).await.unwrap();
    assert_eq!(paused.stop, [(1, Stopping::Pause)]);
    assert_eq!(f.store.leases().await.unwrap()[0].stopping, Some(Stopping::Pause));
    let failure = Failure { class: FailureClass::Interrupted, message: "stopped".into() };
    f.store.interrupt(&[Interrupted { lease, failure }], at(3)).await.unwrap();
    assert_eq!(f.state(1).await, State::Paused);
    assert!(f.store.cancel(&ids(&[1]), at(4)).await.unwrap().changes[0].changed);
    assert_eq!(f.state(1).await, State::Cancelled);
    let counts = f.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running, counts.paused), (0, 0, 0));
}

#[tokio::test]
async fn a_dependant_is_ready_once_all_it_waits_for_succeeded() {
    let f = Fixture::new().await;
    f.submit(submission(&["a", "b"])).await;
    f.submit(Submission { after: vec![1, 2], ..submission(&["c"]) }).await;
    assert_eq!(f.next(9).await, [1, 2]);
    f.succeed(1).await;
    assert_eq!(f.next(9).await, [2]);
    assert_eq!(f.store.status(&ids(&[3]), 0).await.unwrap()[0].after, [2]);
    f.succeed(2).await;
    assert_eq!(f.next(9).await, [3]);
    // What succeeded already is nothing to wait for.
    f.submit(Submission { after: vec![1], ..submission(&["d"]) }).await;
    assert_eq!(f.next(9).await, [3, 4]);
}

#[tokio::test]
async fn a_failure_fails_what_waits_for_it_and_its_retry_brings_them_back() {
    let f = Fixture::new().await;
    f.submit(submission(&["a"])).await;
    f.submit(Submission { after: vec![1], ..submission(&["b"]) }).await;
    f.submit(Submission { after: vec![2], ..submission(&["c"]) }).await;
    f.end(1, FailureClass::Diverged).await;
    for (id, named) in [(2, "after 1"), (3, "after 2")] {
        let shown = f.store.status(&ids(&[id]), 0).await.unwrap().remove(0);
        assert_eq!((shown.state(), shown.failure()), (State::Failed, FailureClass::Dependency));
        assert!(shown.message.contains(named), "{}", shown.message);
    }
    let refused =
        f.store.submit(Submission { after: vec![1], ..submission(&["d"]) }, at(3)).await.unwrap_err();
    assert!(refused.to_string().contains("cnx retry 1"), "{refused}");

    let done = f.store.retry(&Retry::Selected(ids(&[1])), at(4)).await.unwrap();
    let new: Vec<u64> = done.changes.iter().map(|c| c.new_id).collect();
    assert_eq!(new, [4, 5, 6]);
    assert_eq!(f.next(9).await, [4]);
    f.succeed(4).await;
    assert_eq!(f.next(9).await, [5]);
    // The retry stands in for what failed.
    f.submit(Submission { after: vec![1], ..submission(&["d"]) }).await;
    assert_eq!(f.next(9).await, [5, 7]);
}

#[tokio::test]
async fn cancelling_one_fails_what_waits_for_it_also_if_that_is_paused() {
    let f = Fixture::new().await;
    f.submit(submission(&["a"])).await;
    f.submit(Submission { after: vec![1], ..submission(&["b"]) }).await;
    f.store.pause(&ids(&[2]), at(2)).await.unwrap();
    f.store.cancel(&ids(&[1]), at(3)).await.unwrap();
    assert_eq!(f.state(2).await, State::Failed);
    let retried = f.store.retry(&Retry::Selected(ids(&[2])), at(4)).await.unwrap();
    assert!(!retried.changes[0].changed && retried.changes[0].message.contains("cnx retry 1"));
}

#[tokio::test]
async fn all_failed_are_retried_once() {
    let f = Fixture::new().await;
    f.submit(submission(&["a", "b", "c"])).await;
    f.end(1, FailureClass::Diverged).await;
    f.end(2, FailureClass::BadSpec).await;
    f.store.cancel(&ids(&[3]), at(3)).await.unwrap();
    let done = f.store.retry(&Retry::AllFailed, at(4)).await.unwrap();
    assert_eq!(done.changes.iter().map(|c| (c.id, c.new_id)).collect::<Vec<_>>(), [(1, 4), (2, 5)]);
    f.end(4, FailureClass::Diverged).await;
    let done = f.store.retry(&Retry::AllFailed, at(5)).await.unwrap();
    assert_eq!(done.changes.iter().map(|c| (c.id, c.new_id)).collect::<Vec<_>>(), [(4, 6)]);
}

#[tokio::test]
async fn a_transient_failure_is_remembered_with_its_worker() {
    let f = Fixture::new().await;
    f.submit(submission(&["a"])).await;
    f.end(1, FailureClass::Signal).await;
    let found = f.store.candidates(&[worker(1)], &Shares::new(), 1 << 40, 256).await.unwrap();
    assert_eq!(found[0].avoid.as_deref(), Some("w"));
}

#[tokio::test]
async fn who_is_ahead_is_told() {
    let f = Fixture::new().await;
    f.submit(submission(&["a", "b", "c"])).await;
    f.submit(Submission { sweep: Some("s".into()), ..submission(&["d"]) }).await;
    f.submit(Submission { priority: 1, ..submission(&["e"]) }).await;
    let place = f.store.place(3).await.unwrap();
    assert_eq!((place.higher, place.before, place.sweeps), (1, 2, 1));
}

/// However many wait, the dispatcher's questions are answered from indexes, entry by entry of what is asked for.
#[tokio::test]
async fn the_dispatchers_questions_never_scan_the_table() {
    let f = Fixture::new().await;
    for (query, binds) in [
        (ready::DEMANDS, 1),
        (ready::SWEEPS, 3),
        (ready::OLDEST, 6),
        (ready::PREEMPTING, 3),
        (ready::AHEAD, 5),
    ] {
        let text = format!("EXPLAIN QUERY PLAN {query}");
        let mut explained = sqlx::query(sqlx::AssertSqlSafe(text));
        for _ in 0..binds {
            explained = explained.bind("[1]");
        }
        let rows = explained.fetch_all(&f.store.readers).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let of_table: Vec<_> =
            plan.iter().filter(|step| step.contains("experiments") || step.contains(" e ")).collect();
        assert!(!of_table.is_empty(), "{plan:#?}");
        for step in of_table {
            let cheap = step.starts_with("SEARCH")
                || step.contains("USING COVERING INDEX experiments_ready")
                || step.contains("USING INDEX experiments_preempting");
            assert!(cheap, "{step}\n{plan:#?}");
        }
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
    }
}
