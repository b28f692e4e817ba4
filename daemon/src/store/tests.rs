//! The store on a real SQLite file.

use tempfile::TempDir;

use cnx_proto::v1::report::Body;
use cnx_proto::v1::{
    Artifact, EpochMetrics, Figures, Lease, LogLine, Outcome, Report, Started, State, outcome,
};

use super::*;
use crate::lifecycle::Failure;

struct Fixture {
    store: Store,
    dir: TempDir,
}

impl Fixture {
    async fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cnx.db")).await.unwrap();
        Fixture { store, dir }
    }

    async fn submit(&self, hashes: &[&str], sweep: Option<&str>, force: bool) -> Vec<u64> {
        let submission = submission(hashes, sweep, force, false);
        self.store.submit(submission, at(1)).await.unwrap().iter().map(|s| s.id).collect()
    }

    /// The database may not grow: what SQLite answers on a full disk. Holds for the connection that writes.
    async fn limit_pages(&self, pages: i64) {
        let limit = format!("PRAGMA max_page_count = {pages}");
        self.store.write(move |tx| tx.first::<(i64,)>(&limit, [])).await.unwrap();
    }

    async fn lease(&self, experiment: u64) -> Lease {
        let token = format!("token-{experiment}");
        let assignment = Assignment { experiment, worker: "w".into(), token };
        self.store.lease(&[assignment], at(u64::MAX >> 2)).await.unwrap().pop().unwrap().lease
    }

    async fn report(&self, lease: &Lease, sequence: u64, body: Body) -> Verdict {
        let report = Report { lease: Some(lease.clone()), sequence, at_ms: 5, body: Some(body) };
        self.store.report("w", vec![report], at(10)).await.unwrap().pop().unwrap()
    }

    /// Ready for a worker without a GPU.
    async fn ready(&self, now_ms: u64) -> Vec<u64> {
        let has = crate::schedule::Capacity::default();
        let worker = crate::schedule::Worker {
            name: "w".into(),
            has,
            slots: 9,
            free_slots: 9,
            free_memory_gib: 0,
            draining: false,
            suspect: false,
        };
        let found = self.store.candidates(&[worker], &crate::schedule::Shares::new(), now_ms, 9).await;
        found.unwrap().iter().map(|c| c.experiment).collect()
    }

    async fn state(&self, id: u64) -> State {
        self.store.status(&Selection::Ids(vec![id]), 0).await.unwrap()[0].state()
    }
}

fn at(ms: u64) -> Now {
    Now { ms, jitter: 0.0 }
}

fn submission(hashes: &[&str], sweep: Option<&str>, force: bool, dry_run: bool) -> Submission {
    let new = |hash: &&str| NewExperiment {
        name: format!("name-{hash}"),
        json: "{}".into(),
        hash: (*hash).to_owned(),
        demand: crate::schedule::Demand::default(),
        max_attempts: 2,
    };
    Submission {
        experiments: hashes.iter().map(new).collect(),
        sweep: sweep.map(str::to_owned),
        force,
        dry_run,
        ..Submission::default()
    }
}

fn epoch(epoch: u32, top1: f64) -> Body {
    Body::Epoch(EpochMetrics { epoch, test_top1_error: top1, ..EpochMetrics::default() })
}

fn outcome(kind: outcome::Kind) -> Body {
    Body::Outcome(Outcome { kind: kind.into(), ..Outcome::default() })
}

const ACCEPTED: Verdict = Verdict::Accepted { ended: false };

#[tokio::test]
async fn identical_experiments_are_named_not_queued_again_and_join_the_sweep() {
    let f = Fixture::new().await;
    assert_eq!(f.submit(&["a", "b", "a"], Some("s"), false).await, [1, 2, 1]);
    assert_eq!(f.submit(&["b", "c"], Some("t"), false).await, [2, 3]);
    assert_eq!(f.store.select(&["t".into()]).await.unwrap(), Selection::Ids(vec![2, 3]));
    let all = f.store.status(&Selection::All, 0).await.unwrap();
    assert_eq!(all[1].sweeps, ["s", "t"]);
    assert_eq!(f.submit(&["b"], None, true).await, [4]);
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_changes_nothing() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let told = f.store.submit(submission(&["a", "b", "b"], Some("s"), false, true), at(2)).await.unwrap();
    let told: Vec<_> = told.iter().map(|s| (s.id, s.existing)).collect();
    assert_eq!(told, [(1, true), (0, false), (0, true)]);
    assert_eq!(f.store.counts().await.unwrap().queued, 1);
    assert!(f.store.select(&["s".into()]).await.is_err());
    assert_eq!(f.submit(&["b"], None, false).await, [2]);
}

#[tokio::test]
async fn what_failed_or_was_cancelled_does_not_count_as_there() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    f.store.cancel(&Selection::Ids(vec![1]), at(2)).await.unwrap();
    assert_eq!(f.submit(&["a"], None, false).await, [2]);
}

#[tokio::test]
async fn a_report_told_again_is_acknowledged_and_applied_once() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    let line = || Body::Log(LogLine { text: "hello".into(), ..LogLine::default() });
    assert_eq!(f.report(&lease, 1, line()).await, ACCEPTED);
    assert_eq!(f.report(&lease, 1, line()).await, ACCEPTED);
    assert_eq!(f.store.log_after(1, 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_overtaken_attempt_is_refused_and_leaves_no_trace() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let first = f.lease(1).await;
    let failure = Failure { class: cnx_proto::v1::FailureClass::WorkerLost, message: "gone".into() };
    let lost = Interrupted { lease: first.clone(), failure };
    f.store.interrupt(std::slice::from_ref(&lost), at(20)).await.unwrap();
    let second = f.lease(1).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert!(matches!(f.report(&first, 1, epoch(1, 9.0)).await, Verdict::Refused(_)));
    assert!(matches!(f.report(&first, 2, outcome(outcome::Kind::Succeeded)).await, Verdict::Refused(_)));
    let forged = Lease { token: "guess".into(), ..second.clone() };
    assert!(matches!(f.report(&forged, 1, epoch(1, 9.0)).await, Verdict::Refused(_)));
    // Losing the first once more takes nothing from the second.
    f.store.interrupt(&[lost], at(30)).await.unwrap();
    assert_eq!(f.state(1).await, State::Running);
    assert!(f.store.records(1).await.unwrap().epochs.is_empty());
}

#[tokio::test]
async fn an_epoch_told_anew_after_a_resume_replaces_the_old_one() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    f.report(&lease, 1, epoch(1, 50.0)).await;
    f.report(&lease, 2, epoch(2, 40.0)).await;
    f.report(&lease, 3, epoch(1, 49.0)).await;
    let shown = f.store.status(&Selection::All, 0).await.unwrap().remove(0);
    assert_eq!((shown.epochs_done, shown.top1_error), (2, Some(40.0)));
    let curve: Vec<_> = f.store.records(1).await.unwrap().epochs.iter().map(|e| e.test_top1_error).collect();
    assert_eq!(curve, [49.0, 40.0]);
}

#[tokio::test]
async fn a_figure_that_is_no_number_is_kept_as_it_is() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    assert_eq!(f.report(&lease, 1, epoch(1, f64::NAN)).await, ACCEPTED);
    assert!(f.store.records(1).await.unwrap().epochs[0].test_top1_error.is_nan());
    assert_eq!(f.store.status(&Selection::All, 0).await.unwrap()[0].top1_error, None);
}

#[tokio::test]
async fn results_have_figures_only_once_the_experiment_succeeded() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    f.report(
        &lease,
        1,
        Body::Started(Started { environment: Some(Default::default()), ..Default::default() }),
    )
    .await;
    f.report(&lease, 2, Body::Figures(Figures { best_epoch: 7, ..Figures::default() })).await;
    assert_eq!(f.store.results(&Selection::All).await.unwrap()[0].figures, None);
    let end = f.report(&lease, 3, outcome(outcome::Kind::Succeeded)).await;
    assert_eq!(end, Verdict::Accepted { ended: true });
    let row = f.store.results(&Selection::All).await.unwrap().remove(0);
    assert_eq!(row.figures.unwrap().best_epoch, 7);
    assert!(row.environment.is_some());
    assert!(matches!(f.report(&lease, 4, epoch(1, 1.0)).await, Verdict::Refused(_)));
}

#[tokio::test]
async fn superfluous_checkpoints_are_not_shown_and_names_belong_to_one_experiment() {
    let f = Fixture::new().await;
    f.submit(&["a", "b"], None, false).await;
    let (a, b) = (f.lease(1).await, f.lease(2).await);
    let file = |name: &str, deleted: &[&str]| {
        let deleted = deleted.iter().map(|d| (*d).to_owned()).collect();
        Body::Artifact(Artifact { name: name.into(), deleted, ..Artifact::default() })
    };
    let (one, two, three) = ("experiments/1/one", "experiments/1/two", "experiments/2/three");
    f.report(&a, 1, file(one, &[])).await;
    f.report(&a, 2, file(two, &[one])).await;
    for (sequence, foreign) in
        [two, "three", "experiments/2/../1/two", "experiments/2", "/experiments/2/x"].iter().enumerate()
    {
        let verdict = f.report(&b, 1 + sequence as u64, file(foreign, &[])).await;
        assert!(matches!(verdict, Verdict::Refused(_)), "{foreign}");
    }
    assert_eq!(f.report(&b, 9, file(three, &[two])).await, ACCEPTED);
    let names: Vec<_> = f.store.records(1).await.unwrap().artifacts.into_iter().map(|a| a.name).collect();
    assert_eq!(names, [two]);
}

#[tokio::test]
async fn a_retry_names_its_line_and_takes_over_the_curve_it_resumes() {
    let f = Fixture::new().await;
    f.submit(&["a"], Some("s"), false).await;
    let lease = f.lease(1).await;
    f.report(&lease, 1, epoch(1, 50.0)).await;
    f.report(&lease, 2, epoch(2, 40.0)).await;
    f.report(&lease, 3, outcome(outcome::Kind::Failed)).await;
    let change =
        f.store.retry(&Retry::Selected(Selection::Ids(vec![1])), at(50)).await.unwrap().changes.remove(0);
    assert_eq!((change.changed, change.new_id), (true, 2));
    let again =
        f.store.retry(&Retry::Selected(Selection::Ids(vec![1])), at(51)).await.unwrap().changes.remove(0);
    assert_eq!((again.changed, again.new_id), (false, 2));
    assert_eq!(f.store.select(&["s".into()]).await.unwrap(), Selection::Ids(vec![1, 2]));
    let assignment = Assignment { experiment: 2, worker: "w".into(), token: "t".into() };
    let granted = f.store.lease(&[assignment], at(60)).await.unwrap().pop().unwrap();
    assert_eq!(granted.lineage, [2, 1]);
    let started = Started { resumed_at_epoch: 1, resumed_from: "x".into(), ..Started::default() };
    f.report(&granted.lease, 1, Body::Started(started)).await;
    assert_eq!(f.store.status(&Selection::Ids(vec![2]), 0).await.unwrap()[0].epochs_done, 1);
}

#[tokio::test]
async fn a_final_state_is_guarded_by_the_database_too() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    f.store.cancel(&Selection::All, at(2)).await.unwrap();
    let forced = f.store.write(|tx| tx.execute("UPDATE experiments SET state = 'queued'", [])).await;
    assert!(forced.unwrap_err().to_string().contains("cannot change its state"));
    assert_eq!(f.state(1).await, State::Cancelled);
}

#[tokio::test]
async fn counts_follow_every_move() {
    let f = Fixture::new().await;
    f.submit(&["a", "b", "c"], None, false).await;
    f.store.cancel(&Selection::Ids(vec![3]), at(2)).await.unwrap();
    f.lease(1).await;
    let counts = f.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running), (1, 1));
}

#[tokio::test]
async fn selectors_mean_ids_names_sweeps_and_last_and_unknown_ones_name_what_is_near() {
    let f = Fixture::new().await;
    assert!(
        f.store.select(&["last".into()]).await.unwrap_err().to_string().contains("nothing was submitted")
    );
    f.submit(&["alpha", "beta"], Some("greek"), false).await;
    f.submit(&["alpha"], None, true).await;
    let select = async |s: &str| f.store.select(&[s.to_owned()]).await;
    assert_eq!(select("name-alpha").await.unwrap(), Selection::Ids(vec![1, 3]));
    assert_eq!(select("greek").await.unwrap(), Selection::Ids(vec![1, 2]));
    assert_eq!(select("last").await.unwrap(), Selection::Ids(vec![3]));
    assert_eq!(f.store.select(&[]).await.unwrap(), Selection::All);
    let near = select("name-alhpa").await.unwrap_err().to_string();
    assert!(near.contains("did you mean `name-alpha`"), "{near}");
    assert!(select("17").await.unwrap_err().to_string().contains("the newest is 3"));
    assert_eq!(f.store.select_one("name-alpha").await.unwrap(), 3);
}

#[tokio::test]
async fn a_limit_keeps_the_newest_in_order_of_id() {
    let f = Fixture::new().await;
    f.submit(&["a", "b", "c"], None, false).await;
    let ids: Vec<_> = f.store.status(&Selection::All, 2).await.unwrap().iter().map(|e| e.id).collect();
    assert_eq!(ids, [2, 3]);
}

#[tokio::test]
async fn the_tail_of_a_log_is_its_last_lines() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    for n in 1..=5 {
        f.report(&lease, n, Body::Log(LogLine { text: n.to_string(), ..LogLine::default() })).await;
    }
    let after = f.store.log_tail(1, 2).await.unwrap();
    let lines: Vec<_> =
        f.store.log_after(1, after, 10).await.unwrap().into_iter().map(|l| l.line.text).collect();
    assert_eq!(lines, ["4", "5"]);
    assert_eq!(f.store.log_tail(1, 9).await.unwrap(), 0);
}

#[tokio::test]
async fn an_oversized_log_line_is_cut_between_characters() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    let text = "é".repeat(20_000);
    assert_eq!(f.report(&lease, 1, Body::Log(LogLine { text, ..LogLine::default() })).await, ACCEPTED);
    let kept = f.store.log_after(1, 0, 1).await.unwrap().remove(0).line.text;
    assert!(kept.len() <= 16 << 10 && kept.chars().all(|c| c == 'é'));
}

#[tokio::test]
async fn a_backed_off_experiment_is_no_candidate_until_its_time() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    let lease = f.lease(1).await;
    let failure = Failure { class: cnx_proto::v1::FailureClass::Signal, message: "9".into() };
    f.store.interrupt(&[Interrupted { lease, failure }], at(5000)).await.unwrap();
    assert_eq!(f.ready(5500).await, [0; 0]);
    assert_eq!(f.store.next_backoff_ms(5500, false).await.unwrap(), Some(6000));
    assert_eq!(f.ready(6000).await, [1]);
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_what_to_do() {
    let f = Fixture::new().await;
    f.submit(&["a"], None, false).await;
    f.store.close().await;
    let file = f.dir.path().join("cnx.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..100].fill(0x5a);
    std::fs::write(&file, &bytes).unwrap();
    let refusal = Store::open(&file).await.unwrap_err().to_string();
    assert!(refusal.contains("is damaged") && refusal.contains("Restore a copy"), "{refusal}");
}

#[tokio::test]
async fn a_full_disk_saves_nothing_and_the_store_goes_on_when_there_is_space_again() {
    let f = Fixture::new().await;
    f.submit(&["before"], None, false).await;
    // SQLite's own limit on the file's size fails as a full disk does. It holds for a connection, so the one that
    // replaces it is as a disk with space again.
    let pages = f.store.write(|tx| tx.first::<(i64,)>("PRAGMA page_count", [])).await.unwrap().unwrap().0;
    f.limit_pages(pages).await;
    let many: Vec<String> = (0..2000).map(|n| format!("hash-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = f.store.submit(submission(&many, None, false, false), at(2)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert_eq!(f.store.counts().await.unwrap().queued, 1);
    let after = f.submit(&["after"], None, false).await;
    assert_eq!(after, [2], "nothing of the refused submission was saved, and the next one is");
}
