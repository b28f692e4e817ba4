//! Bad input and bad luck: one clear message, the right exit code, nothing lost.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::process::Output;

use cnx_e2e::{Pool, experiment, tiny_config, until};
use cnx_proto::v1::State;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_a_coordinator_the_cli_says_how_to_start_one() {
    let pool = Pool::new();
    let output = pool.cnx(&["status"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("cnx up"), "{}", said(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_wrong_token_is_refused_and_names_the_file() {
    let mut pool = Pool::new();
    pool.start_daemon();
    let token = pool.state().join("token");
    let right = fs::read_to_string(&token).unwrap();
    fs::write(&token, "0".repeat(64)).unwrap();
    let output = pool.cnx(&["status"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("token"), "{}", said(&output));
    assert!(!said(&output).contains(right.trim()), "a secret is never shown");
}

#[test]
fn a_config_with_problems_queues_nothing() {
    let mut pool = Pool::new();
    pool.start_daemon();
    let config = pool.write("mine.toml", &tiny_config("mine", 1).replace("growth =", "groth ="));
    let output = pool.cnx(&["submit", &config]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("did you mean `growth`?"), "{}", said(&output));
    assert!(said(&output).contains("nothing was queued"), "{}", said(&output));
    until(&pool, "an empty queue", |s| s.experiments.is_empty());
}

#[test]
fn a_truncated_dataset_fails_the_experiment_for_good() {
    let mut pool = Pool::new();
    let data = pool.folder().join("data");
    fs::create_dir(&data).unwrap();
    for file in [
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
        "test_batch.bin",
    ] {
        fs::write(data.join(file), vec![0u8; 3073 * 10 - 7]).unwrap();
    }
    let text = tiny_config("cut", 1)
        .replace("\"synthetic\"", &format!("\"cifar10\"\nroot = {:?}", data.display().to_string()));
    let text = text.replace("train_images = 256\ntest_images = 100\n", "");
    let config = pool.write("cut.toml", &text);
    pool.start_daemon();
    pool.start_worker();
    let output = pool.cnx(&["submit", &config, "--wait"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    until(&pool, "a final failure", |s| {
        let e = experiment(s, 1);
        assert!(e.attempt <= 1, "what would happen again is not tried again");
        e.state() == State::Failed && e.message.contains("data_batch_1.bin") && e.message.contains("30723")
    });
}

#[test]
fn submitting_a_sweep_again_adds_only_what_is_missing() {
    let mut pool = Pool::new();
    pool.start_daemon();
    let one = pool.write("a.toml", &tiny_config("a", 1));
    pool.write("b.toml", &tiny_config("b", 2));
    let sweep = pool.write("sweep.toml", "name = \"tiny\"\nexperiments = [\"a.toml\", \"b.toml\"]\n");
    pool.cnx_ok(&["submit", &one]);
    pool.cnx_ok(&["submit", &sweep]);
    pool.cnx_ok(&["submit", &sweep]);
    until(&pool, "two experiments", |s| s.experiments.len() == 2);
    pool.cnx_ok(&["submit", "--force", &one]);
    until(&pool, "a third, by force", |s| s.experiments.len() == 3);
}

#[test]
fn a_cancelled_experiment_stops_and_can_be_retried() {
    let mut pool = Pool::new();
    pool.start_daemon();
    pool.start_worker();
    let config = pool.write("long.toml", &tiny_config("long", 100_000));
    pool.cnx_ok(&["submit", &config]);
    until(&pool, "it trains", |s| experiment(s, 1).epochs_done >= 1);
    pool.cnx_ok(&["cancel", "long"]);
    until(&pool, "it is cancelled", |s| experiment(s, 1).state() == State::Cancelled);
    pool.cnx_ok(&["retry", "1"]);
    until(&pool, "a new experiment goes on from its checkpoint", |s| {
        s.experiments.len() == 2 && experiment(s, 2).retry_of == 1 && experiment(s, 2).resumed_at_epoch >= 1
    });
    pool.cnx_ok(&["cancel", "2"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let mut pool = Pool::new();
    pool.start_daemon();
    pool.start_worker();
    let config = pool.write("long.toml", &tiny_config("long", 100_000));
    pool.cnx_ok(&["submit", &config]);
    until(&pool, "three epochs", |s| experiment(s, 1).epochs_done >= 3);
    pool.kill_worker();
    let folder = pool.state().join("artifacts/experiments/1");
    let is_checkpoint = |p: &std::path::PathBuf| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("checkpoint-") && name.ends_with(".safetensors")
    };
    let mut kept: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).filter(is_checkpoint).collect();
    kept.sort();
    assert!(kept.len() >= 2, "the last two are kept: {kept:?}");
    let newest = kept.last().unwrap();
    let bytes = fs::read(newest).unwrap();
    fs::write(newest, &bytes[..bytes.len() / 2]).unwrap();
    pool.start_worker();
    until(&pool, "the second attempt resumes", |s| {
        experiment(s, 1).attempt >= 2 && experiment(s, 1).resumed_at_epoch >= 1
    });
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    let log = pool.cnx_ok(&["logs", "1"]);
    assert!(log.contains(&name), "the log names the damaged file {name}:\n{log}");
    pool.cnx_ok(&["cancel", "1"]);
}
