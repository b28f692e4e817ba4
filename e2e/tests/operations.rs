//! Looking after a coordinator: backup, restore, doctor, with the real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use cnx_e2e::{Pool, tiny_config};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Problems besides a disk that is nearly full: that is this machine's.
fn problems(pool: &Pool) -> Vec<String> {
    let output = pool.cnx(&["doctor", "--json"]);
    let value = json(&String::from_utf8(output.stdout).unwrap());
    let findings = value["findings"].as_array().unwrap().iter();
    let problem = |f: &&Value| f["verdict"] == "problem" && f["area"] != "disk";
    findings.filter(problem).map(|f| f["found"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backup_taken_while_it_runs_is_restored_after_it_is_lost() {
    let mut pool = Pool::new();
    let config = pool.write("one.toml", &tiny_config("one", 2));
    pool.start_daemon();
    pool.cnx_ok(&["submit", &config]);
    assert_eq!(problems(&pool), ["1 experiment ready to run, and no worker ever attached"]);
    pool.cnx_ok(&["cancel", "1"]);
    assert!(problems(&pool).is_empty());

    let copy = pool.folder().join("copy.db").display().to_string();
    let told = json(&pool.cnx_ok(&["backup", "-o", &copy, "--json"]));
    assert_eq!(
        (&told["experiments"], told["bytes"].as_u64()),
        (&1.into(), Some(fs::metadata(&copy).unwrap().len()))
    );
    let again = pool.cnx(&["backup", "-o", &copy]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(
        again.status.code() == Some(1) && said.contains("there already") && said.contains("--force"),
        "{said}"
    );

    // While somebody holds the folder nothing is restored.
    let taken = pool.cnx(&["restore", &copy, "--force"]);
    let said = String::from_utf8(taken.stderr).unwrap();
    assert!(taken.status.code() == Some(1) && said.contains("is taken: another cnxd"), "{said}");

    pool.cnx_ok(&["submit", &config]);
    pool.kill_daemon();
    let found = problems(&pool);
    assert_eq!(found[0], "a coordinator was started on this state folder, and does not answer");
    // Of a coordinator that was killed: what it had acknowledged is in its log.
    let told = json(&pool.cnx_ok(&["backup", "-o", &copy, "--force", "--json"]));
    assert_eq!(told["experiments"], 2);
    fs::remove_file(pool.state().join("cnx.db-wal")).unwrap();
    fs::write(pool.state().join("cnx.db"), "a cosmic ray".repeat(1000)).unwrap();
    assert!(problems(&pool).iter().any(|found| found.contains("cannot be read")));
    pool.cnx_ok(&["restore", &copy, "--force"]);
    pool.start_daemon();
    let status = json(&pool.cnx_ok(&["status", "--json"]));
    assert_eq!(status["experiments"].as_array().unwrap().len(), 2);
    // Where the old database cannot be read, IDs are left out rather than given again.
    let told = json(&pool.cnx_ok(&["submit", &config, "--force", "--json"]));
    assert_eq!(told["experiments"][0]["id"], 1_000_003);
    let why = pool.cnx_ok(&["explain", "2"]);
    assert!(why.contains("was restored from a backup"), "{why}");
}
