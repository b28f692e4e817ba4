//! Backups of a database in use, and what a restored one knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use cnx_daemon::chance::Chance;
use cnx_daemon::store::{CopyError, Inspector, Restored, Store, back_up, restore};
use cnx_proto::v1::{State, finding::Verdict};
use common::{Daemon, lease, succeeded};

fn database(dir: &Path) -> std::path::PathBuf {
    dir.join("cnx.db")
}

async fn put_back(backup: &Path, dir: &Path) -> Restored {
    restore(backup, &database(dir), 0, true, Chance::System.now()).await.unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_of_a_database_that_is_written_holds_all_that_was_acknowledged_before() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["first"]).await;
    let writing = async {
        for n in 0.. {
            daemon.submit(&[&format!("more-{n}")]).await;
        }
    };
    let backing_up = async {
        for round in 0..5_u64 {
            let known = daemon.submit(&[&format!("known-{round}")]).await[0];
            let (from, to) = (database(dir.path()), out.path().join(format!("{round}.db")));
            let file = to.clone();
            let copied =
                tokio::task::spawn_blocking(move || back_up(&from, &file, false)).await.unwrap().unwrap();
            let found = Inspector::open(&to).unwrap().findings();
            assert!(found.iter().all(|f| f.verdict() == Verdict::Well), "{found:#?}");
            // IDs have no gaps here, so the count tells that all of them are there.
            assert!(copied.experiments >= known, "{} of {known}", copied.experiments);
            assert_eq!(copied.bytes, fs::metadata(&to).unwrap().len());
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        }
    };
    tokio::select! {
        () = backing_up => {}
        () = writing => {}
    }
    assert_eq!(files(out.path()), ["0.db", "1.db", "2.db", "3.db", "4.db"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_backup_is_whole_or_absent_and_replaces_only_if_told() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Store::open(&database(dir.path())).await.unwrap().close().await;
    let to = out.path().join("copy.db");
    fs::write(&to, "precious").unwrap();
    let refused = back_up(&database(dir.path()), &to, false).unwrap_err();
    assert!(matches!(refused, CopyError::Exists(_)) && refused.to_string().contains("--force"), "{refused}");

    // A damaged database is not copied over a good one.
    let mut bytes = fs::read(database(dir.path())).unwrap();
    let page = u16::from_be_bytes([bytes[16], bytes[17]]) as usize;
    bytes[2 * page..].fill(0x5a);
    fs::write(database(dir.path()), &bytes).unwrap();
    let refused = back_up(&database(dir.path()), &to, true).unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    fs::write(database(dir.path()), "no database at all").unwrap();
    let refused = back_up(&database(dir.path()), &to, true).unwrap_err();
    assert!(refused.to_string().contains("no database of cnx"), "{refused}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "precious");
    assert_eq!(files(out.path()), ["copy.db"]);
}

#[tokio::test]
async fn after_a_restore_old_leases_are_void_and_no_id_means_another_experiment() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = out.path().join("copy.db");
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a", "b"]).await;
    let mut worker = daemon.worker("w").await;
    let known = lease(&worker.assigned().await);
    back_up(&database(dir.path()), &backup, false).unwrap();
    // Since the backup: 1 is done, 2 is leased, 3 is new.
    assert!(worker.report(&known, 1, succeeded()).await.accepted);
    let unknown = lease(&worker.assigned().await);
    assert_eq!((unknown.experiment, daemon.submit(&["c"]).await), (2, vec![3]));
    drop(worker);
    daemon.stop().await;

    let restored = put_back(&backup, dir.path()).await;
    assert_eq!((restored.copied.experiments, restored.interrupted, restored.next_id), (2, 1, 4));
    let aside = Inspector::open(&restored.moved_aside.unwrap()).unwrap();
    assert!(aside.runs(3).unwrap().is_some(), "what was there is kept");

    let daemon = Daemon::start(dir.path()).await;
    let worker = daemon.worker_holding("w", &[known.clone(), unknown.clone()]).await;
    assert_eq!(worker.welcome.stale, [known, unknown]);
    let one = daemon.show(1).await;
    assert_eq!((one.state(), one.attempt), (State::Queued, 1));
    assert!(one.message.contains("was restored"), "{}", one.message);
    assert_eq!(daemon.submit(&["d"]).await, [4]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_restored_coordinator_gives_nothing_out_until_leases_that_it_does_not_know_have_run_out() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = out.path().join("copy.db");
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    back_up(&database(dir.path()), &backup, false).unwrap();
    // Since then it was leased, to a worker that may compute on.
    let mut worker = daemon.worker("lost").await;
    worker.assigned().await;
    daemon.stop().await;
    assert!(!put_back(&backup, dir.path()).await.settled);

    // In a first life it does not get so far; the next one waits anew.
    let daemon = Daemon::start(dir.path()).await;
    let worker = daemon.worker("w").await;
    assert!(daemon.show(1).await.message.contains("was restored"));
    drop(worker);
    daemon.stop().await;
    let ttl = Duration::from_millis(400);
    let started = std::time::Instant::now();
    let daemon = Daemon::with_ttl(dir.path(), ttl).await;
    let mut worker = daemon.worker("w").await;
    let first = lease(&worker.assigned().await);
    assert!(started.elapsed() >= ttl);
    assert_eq!((first.experiment, first.attempt), (1, 1));
    drop(worker);
    daemon.stop().await;
    // That is over for good.
    let daemon = Daemon::start(dir.path()).await;
    let mut worker = daemon.worker("w").await;
    assert_eq!(lease(&worker.assigned().await).attempt, 2);
}

#[tokio::test]
async fn where_the_old_database_shows_that_nothing_ran_it_goes_on_at_once() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = out.path().join("copy.db");
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    back_up(&database(dir.path()), &backup, false).unwrap();
    assert!(worker.report(&held, 1, succeeded()).await.accepted);
    drop(worker);
    daemon.stop().await;
    assert!(put_back(&backup, dir.path()).await.settled);
    let daemon = Daemon::start(dir.path()).await;
    let mut worker = daemon.worker("w").await;
    assert_eq!(lease(&worker.assigned().await).attempt, 2);
}

#[tokio::test]
async fn where_the_old_database_is_lost_ids_go_on_far_beyond() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = out.path().join("copy.db");
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a", "b"]).await;
    daemon.stop().await;
    back_up(&database(dir.path()), &backup, false).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let restored =
        restore(&backup, &database(elsewhere.path()), 500, false, Chance::System.now()).await.unwrap();
    assert_eq!((restored.next_id, restored.moved_aside), (1_000_501, None));
    let refused =
        restore(&backup, &database(elsewhere.path()), 0, false, Chance::System.now()).await.unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    let daemon = Daemon::start(elsewhere.path()).await;
    assert_eq!(daemon.submit(&["c"]).await, [1_000_501]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_used_leaves_the_database_as_it_is() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(dir.path()).await;
    daemon.submit(&["a"]).await;
    daemon.stop().await;
    let (before, names) = (fs::read(database(dir.path())).unwrap(), files(dir.path()));
    for text in ["", "no database"] {
        let backup = out.path().join("bad.db");
        fs::write(&backup, text).unwrap();
        let refused =
            restore(&backup, &database(dir.path()), 0, true, Chance::System.now()).await.unwrap_err();
        assert!(matches!(refused, CopyError::NoDatabase(..)), "{refused}");
    }
    assert_eq!((fs::read(database(dir.path())).unwrap(), files(dir.path())), (before, names));
}
