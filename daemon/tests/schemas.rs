//! Databases of every schema there ever was (`schemas/`), opened by the code of today.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use cnx_daemon::store::Inspector;
use cnx_proto::v1::{
    DescribeRequest, Experiment, Hello, Lease, LogsRequest, ResultsRequest, State, StatusRequest,
    finding::Verdict,
};
use common::{Daemon, soon, succeeded};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn sql_files(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".sql")).collect()
}

fn copies() -> Vec<String> {
    let copies = sql_files(&folder("tests/schemas"));
    assert!(!copies.is_empty());
    copies.into_iter().collect()
}

/// Puts the copy's database into a state folder.
fn restore(copy: &str, dir: &Path) -> PathBuf {
    let file = dir.join("cnx.db");
    let dump = fs::read_to_string(folder("tests/schemas").join(copy)).unwrap();
    // The dump goes by the names of the tables, not by who refers to whom.
    Connection::open(&file).unwrap().execute_batch(&format!("PRAGMA foreign_keys = OFF;\n{dump}")).unwrap();
    file
}

/// A column of the copy itself, before anything of today touches it.
fn column<T: rusqlite::types::FromSql>(file: &Path, query: &str) -> Vec<T> {
    let connection = Connection::open(file).unwrap();
    let mut statement = connection.prepare(query).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn all(daemon: &Daemon) -> Vec<Experiment> {
    daemon.people().status(StatusRequest::default()).await.unwrap().into_inner().experiments
}

/// What the name says of its state.
fn expected(experiment: &Experiment) -> State {
    State::from_label(experiment.name.split('-').next().unwrap()).unwrap()
}

#[test]
fn every_migration_has_a_copy_of_its_schema() {
    assert_eq!(
        sql_files(&folder("../migrations")),
        sql_files(&folder("tests/schemas")),
        "see tests/schemas/README.md"
    );
}

/// Databases out there were made by these very statements.
#[test]
fn a_released_migration_never_changes() {
    for copy in copies() {
        let dir = tempfile::tempdir().unwrap();
        let file = restore(&copy, dir.path());
        let version: i64 = copy.split('_').next().unwrap().parse().unwrap();
        assert_eq!(column::<i64>(&file, "SELECT max(version) FROM _sqlx_migrations"), [version], "{copy}");
        let then: Vec<Vec<u8>> = column(&file, "SELECT checksum FROM _sqlx_migrations ORDER BY version");
        let now = MIGRATIONS.iter().filter(|m| m.version <= version).map(|m| m.checksum.to_vec());
        let changed: Vec<usize> = then
            .iter()
            .zip(now)
            .enumerate()
            .filter(|(_, (then, now))| *then != now)
            .map(|(i, _)| i + 1)
            .collect();
        assert!(
            changed.is_empty(),
            "migrations {changed:?} are not what {copy} was made by; add a new one instead"
        );
    }
}

#[tokio::test]
async fn each_is_brought_up_to_date_and_breaks_no_rule() {
    for copy in copies() {
        let dir = tempfile::tempdir().unwrap();
        let file = restore(&copy, dir.path());
        Daemon::start(dir.path()).await.stop().await;
        let findings = Inspector::open(&file).unwrap().findings();
        assert!(findings.iter().all(|f| f.verdict() == Verdict::Well), "{copy}: {findings:#?}");
    }
}

#[tokio::test]
async fn experiments_figures_curves_and_logs_of_each_are_still_there() {
    for copy in copies() {
        let dir = tempfile::tempdir().unwrap();
        let file = restore(&copy, dir.path());
        let names: Vec<String> = column(&file, "SELECT name FROM experiments ORDER BY id");
        let events: Vec<String> = column(&file, "SELECT what FROM events ORDER BY experiment, id");
        let has_records =
            column::<i64>(&file, "SELECT count(*) FROM sqlite_schema WHERE name = 'epochs'") == [1];
        let lines: Vec<String> = if has_records {
            column(&file, "SELECT text FROM logs ORDER BY experiment, id")
        } else {
            Vec::new()
        };

        let daemon = Daemon::start(dir.path()).await;
        let experiments = all(&daemon).await;
        assert_eq!(experiments.iter().map(|e| e.name.clone()).collect::<Vec<_>>(), names, "{copy}");
        let (mut story, mut log) = (Vec::new(), Vec::new());
        for experiment in &experiments {
            let (id, name) = (experiment.id.to_string(), &experiment.name);
            assert_eq!(experiment.state(), expected(experiment), "{copy}: {name}");
            let detail = daemon
                .people()
                .describe(DescribeRequest { selector: id.clone() })
                .await
                .unwrap()
                .into_inner();
            story.extend(detail.events.into_iter().map(|event| event.what));
            assert_eq!(detail.epochs.len() as u32, experiment.epochs_done);
            if has_records && name.starts_with("succeeded") {
                let last = detail.epochs.last().expect("a curve");
                assert_eq!(experiment.top1_error, Some(last.test_top1_error));
                let figures = detail.figures.expect("figures");
                assert_eq!(
                    (figures.r#final.unwrap().top1_error, figures.converted.unwrap().top1_error),
                    (6.5, 6.75)
                );
                assert!(detail.artifacts.iter().any(|a| a.name.contains("final")), "{:?}", detail.artifacts);
                assert_eq!(detail.attempts.last().unwrap().environment.as_ref().unwrap().host, "box");
            }
            let request = LogsRequest { selector: id, follow: false, tail: 0 };
            let mut of_log = daemon.people().logs(request).await.unwrap().into_inner();
            while let Some(line) = soon("a line", of_log.message()).await.unwrap() {
                log.push(line.text);
            }
        }
        assert_eq!((story, log), (events, lines), "{copy}");
        let rows = daemon.people().results(ResultsRequest::default()).await.unwrap().into_inner().rows;
        let measured = rows.iter().filter(|row| row.figures.is_some()).count();
        let succeeded = names.iter().filter(|name| name.starts_with("succeeded")).count();
        assert_eq!(measured, if has_records { succeeded } else { 0 }, "{copy}");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn each_goes_on_with_its_leases_its_order_and_new_ids() {
    for copy in copies() {
        let dir = tempfile::tempdir().unwrap();
        restore(&copy, dir.path());
        let daemon = Daemon::start(dir.path()).await;
        let experiments = all(&daemon).await;
        let running: Vec<Lease> = experiments
            .iter()
            .filter(|e| e.state() == State::Running)
            .map(|e| Lease {
                experiment: e.id,
                attempt: e.attempt,
                token: format!("token-{}-{}", e.id, e.attempt),
            })
            .collect();
        let slots = running.len() as u32 + 1;
        let hello = Hello {
            worker: "box-cpu".into(),
            device: "cpu".into(),
            slots,
            held: running.clone(),
            ..Hello::default()
        };
        let mut worker = daemon.attach(hello).await;
        assert!(worker.welcome.stale.is_empty(), "{copy}: {:?}", worker.welcome.stale);

        // Those that were to stop are told so before anything else; the rest gets the one free slot in turn.
        let mut turns: Vec<&Experiment> =
            experiments.iter().filter(|e| e.name.starts_with("queued-turn-")).collect();
        turns.sort_by_key(|e| e.name.clone());
        assert!(turns.len() > 1, "{copy}");
        for next in turns {
            let given = worker.next_assigned().await;
            assert_eq!(
                (given.experiment, given.attempt),
                (next.id, next.attempt + 1),
                "{copy}: {}",
                next.name
            );
            assert!(worker.reported(&given, 1, succeeded()).await.accepted);
        }
        for held in running
            .iter()
            .filter(|held| experiments.iter().any(|e| e.id == held.experiment && e.name == "running-one"))
        {
            assert!(worker.reported(held, 9, succeeded()).await.accepted, "{copy}");
            assert_eq!(daemon.show(held.experiment).await.state(), State::Succeeded);
        }
        let newest = experiments.last().unwrap().id;
        assert_eq!(daemon.submit(&["new"]).await, [newest + 1], "{copy}");
        while worker.next_assigned().await.experiment != newest + 1 {}
        drop(worker);
        daemon.stop().await;
    }
}
