//! A killed process is a non-event: whatever dies, the table comes out figure for figure.

#![allow(clippy::unwrap_used, clippy::panic)]

use cnx_e2e::{Pool, children_of, experiment, kill_9, tiny_config, until};
use cnx_proto::v1::{State, StatusReply};

/// Enough that each kill hits a training that is well under way, also where status is heard late.
const EPOCHS: u32 = 24;

const SWEEP: &str = "name = \"tiny\"\nexperiments = [\"a.toml\", \"b.toml\"]\n";

fn pool_with_sweep() -> Pool {
    let mut pool = Pool::new();
    pool.write("a.toml", &tiny_config("a", EPOCHS));
    pool.write("b.toml", &tiny_config("b", EPOCHS).replace("1-1-1", "1-2-1"));
    let sweep = pool.write("sweep.toml", SWEEP);
    pool.start_daemon();
    pool.cnx_ok(&["submit", &sweep]);
    pool
}

fn all_succeeded(status: &StatusReply) -> bool {
    status.experiments.iter().all(|e| e.state() == State::Succeeded)
}

#[test]
fn killing_child_agent_and_coordinator_changes_no_figure() {
    let mut calm = pool_with_sweep();
    calm.start_worker();
    until(&calm, "the undisturbed sweep ends", all_succeeded);
    let expected = calm.cnx_ok(&["results", "--csv"]);
    assert_eq!(expected.lines().count(), 3, "a header and two rows:\n{expected}");

    let mut pool = pool_with_sweep();
    pool.start_worker();
    until(&pool, "a trains", |s| experiment(s, 1).epochs_done >= 1);
    let children = children_of(pool.worker_pid());
    assert_eq!(children.len(), 1, "one child a lease");
    kill_9(children[0]);

    until(&pool, "a goes on in a second attempt", |s| {
        experiment(s, 1).attempt == 2 && experiment(s, 1).epochs_done >= 3
    });
    let children = children_of(pool.worker_pid());
    pool.kill_worker();
    for child in children {
        assert!(
            !std::path::Path::new(&format!("/proc/{child}")).exists() || is_gone(child),
            "the child outlived its agent"
        );
    }
    pool.start_worker();

    until(&pool, "b trains", |s| experiment(s, 2).epochs_done >= 2);
    pool.kill_daemon();
    pool.start_daemon();
    until(&pool, "the disturbed sweep ends", all_succeeded);

    assert_eq!(pool.cnx_ok(&["results", "--csv"]), expected);
    let attempts = attempts(&pool);
    assert_eq!(attempts, [3, 1], "a: child killed, agent killed; b: the coordinator's death is a non-event");
}

fn attempts(pool: &Pool) -> Vec<u32> {
    let mut attempts = Vec::new();
    until(pool, "the final status", |s| {
        attempts = s.experiments.iter().map(|e| e.attempt).collect();
        true
    });
    attempts
}

/// Dead, or a zombie that nobody has reaped yet.
fn is_gone(pid: u32) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::time::Instant::now() < deadline {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat)
                if !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) =>
            {
                std::thread::yield_now();
            }
            _ => return true,
        }
    }
    false
}
