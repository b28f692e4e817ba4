//! A model by hand and as a job: the same figures, the same bytes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use cnx_e2e::{Pool, experiment, tiny_config, until};
use cnx_proto::v1::State;
use serde_json::Value;

/// A pool that has trained one experiment, and the folder of its artifacts.
fn trained() -> (Pool, PathBuf) {
    let mut pool = Pool::new();
    let config = pool.write("tiny.toml", &tiny_config("tiny", 2));
    pool.start_daemon();
    pool.start_worker();
    pool.cnx_ok(&["submit", &config, "--wait"]);
    let folder = pool.state().join("artifacts/experiments/1");
    (pool, folder)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn by_hand_and_queued_a_model_has_the_same_figures_and_converts_to_the_same_bytes() {
    let (pool, folder) = trained();
    let at = |name: &str| folder.join(name).display().to_string();
    let figures = json(&pool.cnx_ok(&["status", "1", "--json"]))["detail"]["figures"].clone();
    for (file, which) in [("final-a1.safetensors", "final"), ("converted-a1.safetensors", "converted")] {
        let by_hand = pool.cnx_ok(&["evaluate", &at(file), "--json"]);
        let of_file = pool.cnx_ok(&["evaluate", &at(file), "--queue", "--wait", "--json"]);
        let of_experiment =
            pool.cnx_ok(&["evaluate", "1", "--artifact", which, "--queue", "--force", "--wait", "--json"]);
        assert_eq!([&of_file, &of_experiment], [&by_hand, &by_hand]);
        for key in ["loss", "top1_error", "top5_error", "images"] {
            assert_eq!(json(&by_hand)[key], figures[which][key], "{which} {key}");
        }
    }

    let converted = fs::read(at("converted-a1.safetensors")).unwrap();
    let out = pool.folder().join("out.safetensors").display().to_string();
    let artifact = json(&pool.cnx_ok(&[
        "convert",
        &at("final-a1.safetensors"),
        "--queue",
        "--wait",
        "--json",
        "-o",
        &out,
    ]));
    assert_eq!(artifact["path"], out.as_str());
    assert!(fs::read(&out).unwrap() == converted, "queued, to the byte");
    pool.cnx_ok(&["convert", "tiny", "-o", &out]);
    assert!(fs::read(&out).unwrap() == converted, "by hand, to the byte");

    let rows = json(&pool.cnx_ok(&["results", "--json"]))["rows"].clone();
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|r| r["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["tiny", "tiny-evaluate", "tiny-evaluate"], "one a model, none of the conversion");
}

#[test]
fn a_file_that_changed_fails_the_job_for_good() {
    let mut pool = Pool::new();
    pool.start_daemon();
    let (source, folder) = trained();
    let file = pool.folder().join("model.safetensors");
    fs::copy(folder.join("final-a1.safetensors"), &file).unwrap();
    drop(source);
    pool.cnx_ok(&["evaluate", &file.display().to_string(), "--queue"]);
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();
    pool.start_worker();
    until(&pool, "a final failure", |s| {
        let e = experiment(s, 1);
        assert!(e.attempt <= 1, "what would happen again is not tried again");
        e.state() == State::Failed && e.message.contains("is not the file that was submitted")
    });
    let shown = pool.cnx_ok(&["status", "1"]);
    assert!(shown.contains("data-missing") && shown.contains("model.safetensors"), "{shown}");
}
