//! Against a coordinator that is played.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cnx_proto::v1::{Errors, Figures, LogLine, ResultRow, State};
use serde_json::Value;

use crate::coordinator::Coordinator;
use crate::{config, run, said};

#[test]
fn a_sweep_is_queued_and_shown_with_its_cost_and_the_next_commands() {
    let coordinator = Coordinator::start();
    let sweep = config("sweeps/cifar10.toml");
    let said = run(&mut coordinator.cnx(&["submit", &sweep]));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.contains(
            "1-3  condensenet-50   8-8-8     8-16-32     4   28.6M   0.22M     300  0-2         6.22  new"
        ),
        "{}",
        said.out
    );
    assert!(
        said.err.contains("sweep cifar10: 21 experiments (7 models × 3 seeds), 21 queued (1 slot free)"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("cnx status cifar10 --watch") && said.err.contains("cnx cancel cifar10"),
        "{}",
        said.err
    );
    // Once more: nothing is new.
    let said = run(&mut coordinator.cnx(&["submit", &sweep, "--json"]));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["version"], 1);
    let experiments = value["experiments"].as_array().unwrap();
    assert!(experiments.len() == 21 && experiments.iter().all(|e| e["existing"] == true), "{}", said.out);
}

#[test]
fn quiet_leaves_the_data_alone() {
    let coordinator = Coordinator::start();
    let said = run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml"), "-q"]));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.contains("condensenet-50"));
}

#[test]
fn waiting_ends_with_the_last_experiment_and_its_exit_code_tells() {
    let coordinator = Coordinator::start();
    let spawn =
        |args: &[&str]| coordinator.cnx(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let file = config("condensenet-50.toml");
    let waiting = spawn(&["submit", &file, "--wait"]);
    coordinator.pool.change(1, |e| e.state = State::Succeeded as i32);
    let done = said(waiting.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);

    let waiting = spawn(&["submit", &file, "--set", "train.seed=1", "--wait"]);
    coordinator.pool.change(2, |e| {
        e.state = State::Failed as i32;
        e.message = "NaN loss at step 7".into();
    });
    let failed = said(waiting.wait_with_output().unwrap());
    assert_eq!(failed.code, 1);
    assert!(
        failed.err.contains("NaN loss at step 7") && failed.err.contains("cnx explain 2"),
        "{}",
        failed.err
    );
}

#[test]
fn a_watch_outlives_its_coordinator() {
    let coordinator = Coordinator::start();
    run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml")]));
    let mut watch = coordinator.cnx(&["status", "1", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "1 condensenet-50: queued (next free slot)");
    let coordinator = coordinator.restart();
    coordinator.pool.change(1, |e| {
        e.state = State::Running as i32;
        e.attempt = 1;
        e.epochs_done = 3;
        e.top1_error = Some(45.5);
    });
    assert_eq!(lines.next().unwrap(), "1 condensenet-50: running, epoch 3/300, top-1 error 45.50");
    coordinator.pool.change(1, |e| e.state = State::Succeeded as i32);
    assert_eq!(lines.next().unwrap(), "1 condensenet-50: done, epoch 3/300, top-1 error 45.50");
    assert_eq!(lines.next(), None);
    assert!(watch.wait().unwrap().success());
}

#[test]
fn one_experiment_is_shown_in_detail() {
    let coordinator = Coordinator::start();
    run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml")]));
    let said = run(&mut coordinator.cnx(&["status", "condensenet-50"]));
    assert_eq!(said.code, 0, "{}", said.err);
    for expected in [
        "1 condensenet-50: queued",
        "attempts",
        "worker-lost",
        "abababababababab",
        "3.5 MB",
        "leased to box-cpu",
        "90.00 ┤",
        "18.00",
    ] {
        assert!(said.out.contains(expected), "{expected}: {}", said.out);
    }
    let said = run(&mut coordinator.cnx(&["status", "1", "--json"]));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["detail"]["epochs"].as_array().unwrap().len(), 5);
    assert_eq!(value["experiments"][0]["state"], "queued");
    assert_eq!(value["experiments"][0]["spec"]["model"]["stages"], "8-8-8");
    assert_eq!(value["experiments"][0]["finished_at_ms"], Value::Null);
}

#[test]
fn a_log_cannot_steer_the_terminal() {
    let coordinator = Coordinator::start();
    let line = |attempt: u32, text: &str| LogLine { at_ms: 0, attempt, text: text.into() };
    *coordinator.pool.logs.lock().unwrap() = vec![line(1, "epoch 1\tdone"), line(2, "\x1b[2J\x07gone")];
    let said = run(&mut coordinator.cnx(&["logs", "1"]));
    assert_eq!(said.out, "epoch 1\tdone\n\\u{1b}[2J\\u{7}gone\n");
    assert!(said.err.contains("attempt 2"), "{}", said.err);
    let said = run(&mut coordinator.cnx(&["logs", "1", "--time", "-q"]));
    assert!(said.out.starts_with("1970-01-01 00:00:00  epoch 1"), "{}", said.out);
}

#[test]
fn changes_are_reported_and_refusals_have_their_exit_codes() {
    let coordinator = Coordinator::start();
    run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml")]));
    let said = run(&mut coordinator.cnx(&["cancel", "1"]));
    assert_eq!((said.code, said.out.as_str()), (0, "1 condensenet-50: cancelled\n"));
    let said = run(&mut coordinator.cnx(&["cancel", "1"]));
    assert!(said.code == 1 && said.err.contains("nothing was changed"), "{}", said.err);
    let said = run(&mut coordinator.cnx(&["retry", "1", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap()["changes"][0]["new_id"], 9);
    let said = run(&mut coordinator.cnx(&["status", "nobody"]));
    assert!(said.code == 1 && said.err.contains("there is no experiment"), "{}", said.err);
}

#[test]
fn a_wrong_token_names_the_file_it_came_from() {
    let coordinator = Coordinator::start();
    let token = coordinator.state.path().join("token");
    std::fs::write(&token, "wrong").unwrap();
    let said = run(&mut coordinator.cnx(&["status"]));
    assert_eq!((said.code, said.out.as_str()), (4, ""));
    assert!(said.err.contains(&token.display().to_string()), "{}", said.err);
    std::fs::remove_file(&token).unwrap();
    let said = run(&mut coordinator.cnx(&["status"]));
    assert!(said.code == 4 && said.err.contains("no token"), "{}", said.err);
    let said = run(coordinator.cnx(&["status"]).env("CNX_TOKEN", crate::coordinator::TOKEN));
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn a_server_can_be_named() {
    let coordinator = Coordinator::start();
    let mut command = crate::cnx(&["status", "--server", &coordinator.address.to_string()]);
    assert_eq!(run(command.env("CNX_TOKEN", crate::coordinator::TOKEN)).code, 0);
}

#[test]
fn the_csv_has_a_row_a_group_and_nothing_where_nothing_was_measured() {
    let coordinator = Coordinator::start();
    let text = std::fs::read_to_string(config("condensenet-50.toml")).unwrap();
    let row = |id: u64, seed: u64, top1: Option<f64>| {
        let seed = format!("train.seed={seed}").parse().unwrap();
        let spec = cnx_proto::file::parse("c.toml", &text, &[seed]).unwrap();
        let errors = |e: f64| Errors { loss: 1.0, top1_error: e, top5_error: 1.0, images: 500 };
        ResultRow {
            id,
            name: spec.name.clone(),
            state: if top1.is_some() { State::Succeeded } else { State::Running } as i32,
            spec_json: spec.to_json(),
            spec_hash: spec.hash(),
            figures: top1.map(|e| Figures { r#final: Some(errors(e)), ..Default::default() }),
            ..Default::default()
        }
    };
    *coordinator.pool.results.lock().unwrap() =
        vec![row(1, 0, Some(6.4)), row(2, 1, Some(6.2)), row(3, 2, None)];
    let said = run(&mut coordinator.cnx(&["results", "--csv"]));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("model,dataset,arch,stages,growth,"), "{}", lines[0]);
    assert!(lines[1].ends_with(",6.22,,6.30,0.1414,1.00,,,,,0.08,0 1,2,3"), "{}", lines[1]);

    let said = run(&mut coordinator.cnx(&["results", "--json"]));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&value["version"], &value["rows"][0]["top1_error"]), (&1.into(), &6.3.into()));
    assert_eq!(value["rows"][0]["converted_top1_error"], Value::Null);

    let said = run(&mut coordinator.cnx(&["results"]));
    assert!(said.out.contains("6.30 ± 0.14 (2 of 3)") && said.out.contains("+0.08"), "{}", said.out);
}

#[test]
fn a_published_table_stands_whole_before_anything_was_measured() {
    let coordinator = Coordinator::start();
    let said = run(&mut coordinator.cnx(&["results", "--table", "cifar", "--csv"]));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines.len() == 8 && lines[0].starts_with("model,flops,published_flops,params,"), "{}", said.out);
    assert!(lines[3].starts_with("CondenseNet-86,65816394,65800000,520202,520000,,,5.06,"), "{}", lines[3]);
    let said = run(&mut coordinator.cnx(&["results", "--table", "imagenet"]));
    assert!(
        said.code == 0 && said.out.contains("CondenseNet-74 (C=G=8)  274.2M   2.94M  –      29.00"),
        "{}",
        said.out
    );
    let said = run(&mut coordinator.cnx(&["results", "--table", "mnist"]));
    assert!(
        said.code == 2 && said.err.contains("[possible values: cifar, imagenet, inference]"),
        "{}",
        said.err
    );
}

#[test]
fn a_csv_of_a_published_table_tells_on_standard_error_what_it_does_not_count() {
    let coordinator = Coordinator::start();
    let text = std::fs::read_to_string(config("condensenet-86.toml")).unwrap();
    let row = |id: u64, set: &str, error: f64| {
        let spec = cnx_proto::file::parse("c.toml", &text, &[set.parse().unwrap()]).unwrap();
        let errors = Errors { loss: 1.0, top1_error: error, top5_error: 1.0, images: 500 };
        ResultRow {
            id,
            state: State::Succeeded as i32,
            spec_json: spec.to_json(),
            figures: Some(Figures { r#final: Some(errors), ..Default::default() }),
            ..Default::default()
        }
    };
    *coordinator.pool.results.lock().unwrap() =
        vec![row(1, "train.seed=0", 5.0), row(2, "train.seed=1", 5.2), row(3, "train.epochs=1", 60.0)];
    let said = run(&mut coordinator.cnx(&["results", "--table", "cifar", "--csv"]));
    assert!(said.out.contains(",5.10,0.1414,5.06,0.04,,,0 1,2,"), "{}", said.out);
    assert_eq!(said.err, "Not counted: 3 (CondenseNet-86 on cifar10): train.epochs 1 (expected 300).\n");
    let said = run(&mut coordinator.cnx(&["results", "--table", "cifar", "--json"]));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&value["table"], &value["rows"][2]["cifar10_n"]), (&"cifar".into(), &2.into()));
    assert_eq!(value["not_counted"][0]["differences"][0]["key"], "train.epochs");
}

/// A file that says it holds a model of that config.
fn model_file(path: &std::path::Path, config_name: &str, converted: bool) -> String {
    use cnx_formats::{Array, StateDict, safetensors};
    let text = std::fs::read_to_string(config(config_name)).unwrap();
    let spec = cnx_proto::file::parse("c.toml", &text, &[]).unwrap();
    let name = if converted { "classifier.index" } else { "classifier.weight" };
    let tensors = [(name.to_owned(), Array::from_i64(vec![1], &[0]).unwrap())].into();
    let state = StateDict { tensors, spec_json: Some(spec.to_json()) };
    std::fs::write(path, safetensors::write(&state).unwrap()).unwrap();
    path.display().to_string()
}

#[test]
fn an_evaluation_is_queued_with_the_spec_and_the_hash_of_its_file() {
    let coordinator = Coordinator::start();
    let folder = tempfile::tempdir().unwrap();
    let file = model_file(&folder.path().join("m.safetensors"), "condensenet-86.toml", false);
    let said = run(coordinator.cnx(&["evaluate", "m.safetensors", "--queue"]).current_dir(folder.path()));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("1  condensenet-86-evaluate") && said.err.contains("1 queued"), "{}", said.out);
    assert!(said.err.contains("cnx status 1 --watch"), "{}", said.err);

    let said = run(&mut coordinator.cnx(&["status", "--json"]));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    let run_section = &value["experiments"][0]["spec"]["run"];
    assert_eq!(run_section["steps"], serde_json::json!(["evaluate"]));
    assert_eq!(run_section["from"], file.as_str(), "a path that means the same elsewhere");
    assert_eq!(run_section["from_sha256"].as_str().unwrap().len(), 64);

    // The same file, named otherwise: the coordinator knows it. This time its figures are waited for.
    let args = ["evaluate", &file, "--queue", "--wait", "--json"];
    let waiting = coordinator.cnx(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    coordinator.pool.change(1, |e| e.state = State::Succeeded as i32);
    let done = crate::said(waiting.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("condensenet-86-evaluate is there already as 1"), "{}", done.err);
    let expected =
        "{\"images\":500,\"loss\":0.5,\"model\":\"large\",\"top1_error\":18.0,\"top5_error\":2.0}\n";
    assert_eq!(done.out, expected);
}

#[test]
fn a_job_that_cannot_be_is_not_queued() {
    let coordinator = Coordinator::start();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let converted = model_file(&at("converted.safetensors"), "condensenet-86.toml", true);
    let densenet = model_file(&at("densenet.safetensors"), "densenet-100.toml", false);
    std::fs::write(at("m.pth.tar"), b"PK\x03\x04").unwrap();
    let nameless = cnx_formats::safetensors::write(&cnx_formats::StateDict::default()).unwrap();
    std::fs::write(at("nameless.safetensors"), nameless).unwrap();
    let text = |name: &str| at(name).display().to_string();
    let spec = config("sweeps/cifar10.toml");
    for (args, code, expected) in [
        (&["convert", &converted, "--queue"][..], 1, "is converted already"),
        (&["convert", &densenet, "--queue"], 2, "densenet has no learned group convolutions"),
        (&["convert", &converted, "--queue", "-o", "x"], 2, "needs --wait"),
        (&["evaluate", &text("m.pth.tar"), "--queue"], 1, "`cnx import`"),
        (&["evaluate", &text("none.safetensors"), "--queue"], 1, "cannot read the model"),
        (&["evaluate", &text("nameless.safetensors"), "--queue"], 2, "carries no spec"),
        (&["evaluate", &converted, "--queue", "--spec", &spec], 2, "is a sweep of 21 experiments"),
        (&["evaluate", &converted, "--artifact", "best"], 2, "is a file"),
        (
            &["evaluate", "no-such-thing"],
            1,
            "there is no file no-such-thing here, and there is no experiment",
        ),
        (&["evaluate", &converted, "--queue", "--device", "cpu"], 2, "cannot be used with"),
        (&["evaluate", &converted, "--wait"], 2, "--queue"),
    ] {
        let said = run(&mut coordinator.cnx(args));
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {}", said.err);
        assert!(said.err.contains(expected), "{args:?}: {}", said.err);
    }
    let said = run(&mut coordinator.cnx(&["submit", &config("condensenet-50.toml"), "-q"]));
    assert!(said.out.contains("1  condensenet-50"), "nothing was queued before: {}", said.out);
    let said = run(&mut coordinator.cnx(&["evaluate", "condensenet-50"]));
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("experiment 1 (queued) has no final-model; its artifacts: checkpoint"),
        "{}",
        said.err
    );
}
