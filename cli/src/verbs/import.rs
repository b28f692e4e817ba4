//! `cnx import`: from a checkpoint of PyTorch to a model of ours, by this program alone.

use std::io::Write;
use std::path::Path;

use cnx_formats::check::{Condensing, Fault, Hint, Listed, Report, add_missing_counts, check};
use cnx_formats::{Checkpoint, checkpoint, safetensors};
use cnx_proto::Spec;
use serde_json::{Value, json};

use crate::args::ImportArgs;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Failure, Result};
use crate::json::VERSION;
use crate::term::format::{bytes, count, thousands};
use crate::{job, source, whole_file};

/// No model of the tables comes near it, with its optimizer's state; a larger file is not even read.
const MOST_BYTES: u64 = 8 << 30;

pub fn run(context: &Context, args: &ImportArgs) -> Result {
    let said = job::spec_of(&args.spec)?;
    let mut found = read(&args.checkpoint)?;
    let spec = match (said, &found.state.spec_json) {
        (Some(said), _) => said,
        (None, Some(json)) => job::parsed(json, &args.checkpoint.display().to_string())?,
        (None, None) => {
            let file = args.checkpoint.display();
            return Err(Failure::usage(format!(
                "{file} carries no spec: give the config of its network by --spec FILE, e.g. configs/condensenet-86.toml"
            )));
        }
    };
    let added = add_missing_counts(&mut found.state, &spec);
    let report = check(&found.state, &spec);
    let told = as_json(args, &found, &spec, &report, added);
    if !report.problems.is_empty() {
        if args.json {
            print_json(&told)?;
        }
        return Err(Failure::refused(refusal(&args.checkpoint, &spec, &report)));
    }
    found.state.spec_json = Some(spec.to_json());
    let model = safetensors::write(&found.state).map_err(Failure::refused)?;
    whole_file::write(&args.output, &model)?;
    context.talk(origin(&args.checkpoint, &found));
    context.talk(network(&spec, &report, added));
    match args.json {
        true => print_json(&told),
        false => Ok(writeln!(stdout(), "{}", args.output.display())?),
    }
}

fn refusal(file: &Path, spec: &Spec, report: &Report) -> String {
    let (file, problems) = (file.display(), count(report.problems.len(), "problem"));
    let listed = Listed(report);
    format!(
        "{file} is not of the network of the spec {}, {problems}:{listed}\nnothing was written",
        spec.name
    )
}

fn read(path: &Path) -> Result<Checkpoint> {
    let show = path.display();
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() && about.len() > MOST_BYTES => {
            let (found, most) = (bytes(about.len()), bytes(MOST_BYTES));
            return Err(Failure::refused(format!("{show} has {found}; a checkpoint has at most {most}")));
        }
        _ => {}
    }
    let content = source::read(path)?;
    checkpoint::read(&content).map_err(|error| Failure::refused(format!("{show}: {error}")))
}

/// What the file was.
fn origin(file: &Path, found: &Checkpoint) -> String {
    let mut text = format!("read {}: {}", file.display(), found.container);
    if let Some(key) = found.key {
        text += &format!(", its `{key}`");
    }
    if let Some(epoch) = found.epoch {
        text += &format!(" of epoch {epoch}");
    }
    if found.data_parallel {
        text += ", names without `module`";
    }
    text
}

/// What the model is.
fn network(spec: &Spec, report: &Report, added: usize) -> String {
    let (tensors, parameters) = (count(report.tensors, "tensor"), thousands(report.parameters));
    let mut text = format!("{} {}: {tensors}, {parameters} parameters", report.form, spec.name);
    match report.condensing {
        Some(Condensing { stage, last }) if stage == last => text += ", condensed",
        Some(Condensing { stage, last }) => {
            text += &format!(
                ", at condensing stage {stage} of {last}: it cannot be converted before it is trained on"
            );
        }
        None => {}
    }
    if added > 0 {
        text += &format!(
            "; {} of batch norms, which PyTorch before 0.4.1 did not save, set to 0",
            count(added, "count")
        );
    }
    text
}

fn as_json(args: &ImportArgs, found: &Checkpoint, spec: &Spec, report: &Report, added: usize) -> Value {
    let stage = report.condensing.map(|condensing| condensing.stage);
    let last = report.condensing.map(|condensing| condensing.last);
    let hint = |hint: &Hint| json!({ "key": hint.key, "spec": hint.spec, "file": hint.file });
    json!({
        "version": VERSION,
        "file": args.checkpoint, "output": report.problems.is_empty().then_some(&args.output),
        "container": found.container.as_str(), "key": found.key, "epoch": found.epoch,
        "data_parallel": found.data_parallel,
        "name": spec.name, "spec_hash": spec.hash(), "model": report.form.as_str(), "tensors": report.tensors,
        "parameters": report.parameters, "condensing_stage": stage, "condensing_stages": last,
        "counts_added": added,
        "problems": report.problems.iter().map(|one| problem(&one.name, &one.fault)).collect::<Vec<_>>(),
        "hints": report.hints.iter().map(hint).collect::<Vec<_>>(),
    })
}

fn problem(name: &str, fault: &Fault) -> Value {
    let (expected, found) = match fault {
        Fault::Missing { expected } => (json!(expected), Value::Null),
        Fault::Unexpected { found } => (Value::Null, json!(found)),
        Fault::Shape { expected, found } => (json!(expected), json!(found)),
        Fault::Type { expected_real, found } => {
            (json!(if *expected_real { "real" } else { "whole" }), json!(found.as_str()))
        }
        Fault::NotFinite { .. } | Fault::Value(_) => (Value::Null, Value::Null),
    };
    json!({
        "name": name, "problem": fault.kind(), "message": fault.to_string(), "expected": expected, "found": found,
    })
}
