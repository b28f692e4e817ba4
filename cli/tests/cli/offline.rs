//! Without a coordinator.

use std::process::Stdio;

use crate::{cnx, config, repository, run, script};

#[test]
fn the_help_is_as_it_was_agreed() {
    let help = run(&mut cnx(&["--help"]));
    assert_eq!(help.code, 0);
    let snapshot = repository().join("cli/tests/help.txt");
    // To accept a change: CNX_UPDATE_SNAPSHOTS=1 cargo test -p cnx-cli --release
    if std::env::var_os("CNX_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&snapshot, &help.out).unwrap();
    }
    assert_eq!(help.out, std::fs::read_to_string(&snapshot).unwrap());
}

#[test]
fn every_verb_shows_examples() {
    let verbs = "submit,status,logs,cancel,retry,results,workers,inspect,evaluate,convert,data synth,data fetch,\
                 data verify,up,down,completions";
    for verb in verbs.split(',') {
        let mut args: Vec<&str> = verb.split(' ').collect();
        args.push("--help");
        let help = run(&mut cnx(&args));
        assert!(help.code == 0 && help.out.contains("Examples:\n  cnx"), "{verb}: {}", help.out);
    }
}

#[test]
fn inspect_gives_the_published_integers_as_an_array() {
    let said =
        run(&mut cnx(&["inspect", "--json", &config("condensenet-86.toml"), &config("sweeps/cifar10.toml")]));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let all: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
    assert_eq!(all.len(), 22, "the config, and 7 models with 3 seeds each");
    assert_eq!(all[0]["name"], "condensenet-86");
    let integers =
        ["flops", "params", "converted_flops", "converted_params"].map(|key| all[0][key].as_u64().unwrap());
    assert_eq!(integers, [65_816_394, 520_202, 65_812_394, 516_202]);
}

#[test]
fn a_bad_config_is_a_usage_error_with_all_its_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let text = "name = \"mine\"\n[model]\narch = \"condensenet\"\nstages = \"8-8-8\"\ngroth = \"8-16-32\"\n[data]\ndataset = \"cifar11\"\n";
    std::fs::write(&file, text).unwrap();
    let said = run(cnx(&["submit", file.to_str().unwrap()]).env("CNX_STATE", folder.path()));
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    for expected in [
        "has 2 problems",
        "line 5: unknown key `groth`",
        "did you mean `growth`",
        "line 7",
        "nothing was queued",
    ] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
}

#[test]
fn without_a_coordinator_the_message_says_how_to_start_one() {
    let state = tempfile::tempdir().unwrap();
    for verb in [&["status"][..], &["results"], &["cancel", "1"], &["logs"], &["workers"]] {
        let said = run(cnx(verb).env("CNX_STATE", state.path()));
        assert_eq!((said.code, said.out.as_str()), (3, ""), "{verb:?}");
        assert!(
            said.err.contains("no coordinator answers at") && said.err.contains("`cnx up`"),
            "{}",
            said.err
        );
    }
    // One that was killed leaves its address behind.
    std::fs::write(state.path().join("endpoint"), "http://127.0.0.1:1").unwrap();
    let said = run(cnx(&["status"]).env("CNX_STATE", state.path()));
    assert!(said.code == 3 && said.err.contains("no coordinator answers at 127.0.0.1:1"), "{}", said.err);
}

#[test]
fn a_dry_run_needs_no_coordinator() {
    let state = tempfile::tempdir().unwrap();
    let said =
        run(cnx(&["submit", &config("sweeps/cifar10.toml"), "--dry-run"]).env("CNX_STATE", state.path()));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("condensenet-182  30-30-30  12-24-48"), "{}", said.out);
    assert!(said.err.contains("sweep cifar10: 21 experiments (7 models × 3 seeds)"), "{}", said.err);
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    for args in
        [&["completions", "bash"][..], &["--help"], &["inspect", "--json", &config("sweeps/cifar10.toml")]]
    {
        let mut child = cnx(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let said = crate::said(child.wait_with_output().unwrap());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn colours_are_for_terminals() {
    let said = run(&mut cnx(&["inspect", &config("condensenet-86.toml")]));
    assert!(!said.out.contains('\x1b'), "{:?}", said.out);
}

#[test]
fn evaluating_hands_the_worker_the_spec_in_json_and_keeps_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("worker");
    script(&worker, "echo \"$@\"; cat \"$4\"; exit 2");
    let spec = config("condensenet-86.toml");
    let args =
        ["evaluate", "m.safetensors", "--spec", &spec, "--set", "train.seed=5", "--data", "/d", "--json"];
    let said = run(cnx(&args).env("CNX_WORKER", &worker));
    assert_eq!((said.code, said.err.as_str()), (2, ""));
    let (arguments, json) = said.out.split_once('\n').unwrap();
    assert!(
        arguments.starts_with("evaluate m.safetensors --spec /") && arguments.ends_with(" --data /d --json"),
        "{arguments}"
    );
    assert_eq!(cnx_proto::Spec::from_json(json).unwrap().train.seed, 5);
    let file = arguments.split(' ').nth(3).unwrap();
    assert!(!std::path::Path::new(file).exists(), "the temporary file is gone");
}

#[test]
fn converting_names_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("worker");
    script(&worker, "echo \"$@\"");
    let said = run(cnx(&["convert", "m.safetensors", "-o", "c.safetensors"]).env("CNX_WORKER", &worker));
    assert_eq!((said.code, said.out.as_str()), (0, "convert m.safetensors -o c.safetensors\n"));
}

#[test]
fn generated_data_passes_its_own_check() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    let set = set.to_str().unwrap();
    let said = run(&mut cnx(&["data", "synth", set, "--train", "50", "--test", "20"]));
    assert_eq!((said.code, said.out), (0, format!("{set}\n")));
    let said = run(&mut cnx(&["data", "verify", set]));
    assert!(
        said.code == 0 && said.out.contains("fine; 50 training and 20 test images of 10 classes"),
        "{}",
        said.out
    );
    std::fs::write(format!("{set}/test_batch.bin"), [9; 100]).unwrap();
    let said = run(&mut cnx(&["data", "verify", set]));
    assert!(said.code == 1 && said.err.contains("test_batch.bin has 100 bytes"), "{}", said.err);
    let said = run(&mut cnx(&["data", "verify", folder.path().join("none").to_str().unwrap()]));
    assert!(said.code == 1 && said.err.contains("no dataset in"), "{}", said.err);
}
