//! Files that changed on the disk: damage is found, what is whole is used, and the table comes out the same.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cnx_e2e::api::Api;
use cnx_e2e::{PATIENCE, Pool, experiment, tiny_config, until};
use cnx_proto::v1::{State, StatusReply};

/// Enough for several attempts one after the other.
const EPOCHS: u32 = 40;

fn small(name: &str, epochs: u32) -> String {
    tiny_config(name, epochs)
        .replace("train_images = 256\ntest_images = 100", "train_images = 96\ntest_images = 50")
        + "max_attempts = 100\n"
}

fn undisturbed(config: &str) -> String {
    let mut pool = Pool::new();
    let config = pool.write("config.toml", config);
    pool.start_daemon();
    pool.start_worker();
    pool.cnx_ok(&["submit", &config, "--wait"]);
    pool.cnx_ok(&["results", "--csv"])
}

/// The checkpoints of experiment 1, newest last.
fn checkpoints(pool: &Pool) -> Vec<PathBuf> {
    let folder = pool.state().join("artifacts/experiments/1");
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("checkpoint-") && name.ends_with(".safetensors")
    });
    found.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    found
}

/// Flips one bit; `place` is in 0 … 1 of the file.
fn flip(path: &PathBuf, place: f64) {
    let mut bytes = fs::read(path).unwrap();
    let at = ((bytes.len() - 1) as f64 * place) as usize;
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

type Damage = fn(Vec<u8>) -> Vec<u8>;

fn attempt(status: &StatusReply) -> u32 {
    experiment(status, 1).attempt
}

fn attempts_so_far(pool: &Pool) -> u32 {
    Api::new(&pool.state()).status().map(|status| attempt(&status)).unwrap()
}

#[test]
fn flipped_bits_in_checkpoints_cost_an_epoch_and_no_figure() {
    let config = small("flipped", EPOCHS);
    let mut pool = Pool::new();
    let file = pool.write("flipped.toml", &config);
    pool.start_daemon();
    pool.start_worker();
    pool.cnx_ok(&["submit", &file]);
    // Its length, its header, its tensors, its very end; and what says which hash it should have.
    for (place, of_hash) in
        [(0.0, false), (0.01, false), (0.37, false), (0.8, false), (1.0, false), (0.1, true)]
    {
        let before = attempts_so_far(&pool).max(1);
        until(&pool, "two epochs of this attempt", |s| {
            let e = experiment(s, 1);
            assert!(!e.state().is_final(), "it is over too early for this test");
            e.attempt == before && e.epochs_done >= e.resumed_at_epoch + 2
        });
        pool.kill_worker();
        let kept = checkpoints(&pool);
        assert!(kept.len() >= 2, "the last two are kept: {kept:?}");
        let newest = kept.last().unwrap().clone();
        let damaged = if of_hash { newest.with_extension("safetensors.sha256") } else { newest.clone() };
        flip(&damaged, place);
        pool.start_worker();
        until(&pool, "the next attempt resumes", |s| {
            attempt(s) > before && experiment(s, 1).resumed_at_epoch >= 1
        });
        let name = newest.file_name().unwrap().to_string_lossy().into_owned();
        let told = |pool: &Pool| pool.cnx_ok(&["logs", "1"]).contains(&format!("{name} is not used"));
        assert!(told(&pool), "the log names the damaged file {name}:\n{}", pool.cnx_ok(&["logs", "1"]));
    }

    pool.kill_worker();
    let before = attempts_so_far(&pool);
    for checkpoint in checkpoints(&pool) {
        flip(&checkpoint, 0.5);
    }
    pool.start_worker();
    until(&pool, "it ends", |s| experiment(s, 1).state() == State::Succeeded);
    let attempts = Api::new(&pool.state()).describe(1).unwrap().attempts;
    let anew = attempts.iter().find(|a| a.attempt > before && a.environment.is_some()).unwrap();
    assert_eq!(anew.resumed_at_epoch, 0, "with all of them damaged it starts anew");
    assert_eq!(pool.cnx_ok(&["results", "--csv"]), undisturbed(&config));
}

#[test]
fn a_damaged_spool_is_told_as_far_as_it_is_whole_or_done_again() {
    let config = small("spooled", 4);
    let expected = undisturbed(&config);
    // Whole; its end torn; a bit in the middle, in the length of the first frame; nothing left of it.
    let damages: [(&str, Damage); 5] = [
        ("none", |bytes| bytes),
        ("torn", |bytes| bytes[..bytes.len() - 3].to_vec()),
        ("flipped in the middle", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 16;
            bytes
        }),
        ("flipped at the start", |mut bytes| {
            bytes[1] ^= 64;
            bytes
        }),
        ("emptied", |_| Vec::new()),
    ];
    for (what, damage) in damages {
        let mut pool = Pool::new();
        let file = pool.write("spooled.toml", &config);
        pool.start_daemon();
        pool.start_worker();
        pool.cnx_ok(&["submit", &file]);
        until(&pool, "it is leased", |s| experiment(s, 1).state() == State::Running);
        pool.kill_daemon();
        wait_for_line(&pool, "experiment 1, attempt 1: succeeded");
        pool.kill_worker();
        let spools = pool.state().join("workers/e2e/spool");
        let spool = fs::read_dir(spools).unwrap().next().expect("a spool").unwrap().path();
        fs::write(&spool, damage(fs::read(&spool).unwrap())).unwrap();
        pool.start_daemon();
        pool.start_worker();
        until(&pool, "it succeeds", |s| experiment(s, 1).state() == State::Succeeded);
        let detail = Api::new(&pool.state()).describe(1).unwrap();
        let attempts: Vec<&str> = detail.attempts.iter().map(|a| a.outcome.as_str()).collect();
        let expected_attempts =
            if what == "none" { vec!["succeeded"] } else { vec!["worker-lost", "succeeded"] };
        assert_eq!(attempts, expected_attempts, "{what}");
        assert_eq!(detail.epochs.iter().map(|m| m.epoch).collect::<Vec<_>>(), [1, 2, 3, 4], "{what}");
        assert_eq!(pool.cnx_ok(&["results", "--csv"]), expected, "{what}");
        assert!(!spool.exists(), "{what}: the spool is told, or forgotten");
    }
}

/// Until the agent's log holds this.
fn wait_for_line(pool: &Pool, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(pool.log_file("e2e")).unwrap_or_default().contains(text) {
        assert!(Instant::now() < deadline, "the agent never said {text:?}:\n{}", pool.logs());
        sleep(Duration::from_millis(20));
    }
}
