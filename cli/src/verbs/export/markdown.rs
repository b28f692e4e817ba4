//! A model card as people read it: Markdown, with the front matter that model hubs look for.

use std::fmt::Write;

use serde_json::json;

use super::Format;
use super::card::{Card, Errors};
use crate::groups::condense_and_groups;
use crate::term::format::{bytes, error, exact, flops, params};

/// The text of a card.
pub fn markdown(card: &Card) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(card, &mut text);
    text
}

fn write(card: &Card, out: &mut String) -> std::fmt::Result {
    front_matter(card, out)?;
    writeln!(out, "\n# {}\n\n{}\n", card.name, network(card))?;
    file(card, out)?;
    errors(card, out)?;
    usage(card, out)?;
    origin(card, out)?;
    attempts(card, out)?;
    let spec = serde_json::to_string_pretty(&card.spec).unwrap_or_default();
    writeln!(out, "## Spec\n\n```json\n{spec}\n```")
}

/// YAML; a string in JSON is one there too.
fn front_matter(card: &Card, out: &mut String) -> std::fmt::Result {
    let (dataset, arch) = (card.data.dataset, card.spec.model.arch);
    writeln!(out, "---\npipeline_tag: image-classification")?;
    writeln!(out, "library_name: {}", card.file.format.library())?;
    writeln!(out, "tags: [{}, cnx]", json!(arch.as_str()))?;
    writeln!(out, "datasets: [{}]", json!(dataset.as_str()))?;
    if let Some(errors) = of_this_file(card) {
        let accuracy = exact(100.0 - errors.top1_error);
        writeln!(out, "model-index:\n- name: {}\n  results:", json!(card.name))?;
        writeln!(out, "  - task: {{type: image-classification}}")?;
        writeln!(out, "    dataset: {{type: {0}, name: {0}, split: test}}", json!(dataset.as_str()))?;
        writeln!(out, "    metrics: [{{type: accuracy, name: \"top-1 accuracy, %\", value: {accuracy}}}]")?;
    }
    writeln!(out, "---")
}

/// What was measured of what the file holds.
fn of_this_file(card: &Card) -> Option<Errors> {
    let errors = card.errors.as_ref()?;
    match errors.of_this_file? {
        "final" => errors.trained,
        "best" => errors.best,
        _ => errors.converted,
    }
}

fn network(card: &Card) -> String {
    let model = &card.spec.model;
    let mut text = model.arch.to_string();
    if model.arch.is_dense() {
        let _ = write!(text, ", stages {}, growth {}", model.stages, model.growth);
    }
    if model.arch.condenses() {
        let _ = write!(text, ", C=G {}, {}", condense_and_groups(&card.spec), card.file.form);
    }
    format!("{text}; {} classes of {}.", card.classes, card.data.dataset)
}

fn file(card: &Card, out: &mut String) -> std::fmt::Result {
    let (file, input, cost) = (&card.file, &card.input, &card.cost);
    let rounded = file.rounded_from.map(|from| format!(", rounded from {from}")).unwrap_or_default();
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| File | `{}`, {}, {} |", file.name, file.format, bytes(file.bytes))?;
    writeln!(out, "| SHA-256 | `{}` |", file.sha256)?;
    writeln!(out, "| Precision | {}{rounded} |", file.precision)?;
    writeln!(
        out,
        "| Input | [n, {}, {size}, {size}], RGB, (value / 255 − mean) / std, mean {:?}, std {:?} |",
        input.channels,
        input.mean,
        input.std,
        size = input.size
    )?;
    writeln!(out, "| Output | logits [n, {}] |", card.classes)?;
    let row = |flops_count, params_count| {
        format!("{} FLOPs, {} parameters", flops(flops_count), params(params_count))
    };
    writeln!(out, "| Cost | {} |", row(cost.flops, cost.params))?;
    if card.spec.model.arch.condenses() {
        writeln!(out, "| Cost, converted | {} |", row(cost.converted_flops, cost.converted_params))?;
    }
    if let Some(density) = file.density {
        writeln!(
            out,
            "| Density | the masks leave {density:.4} of the weights of the learned group convolutions |"
        )?;
    }
    writeln!(out)
}

fn errors(card: &Card, out: &mut String) -> std::fmt::Result {
    let Some(errors) = &card.errors else { return Ok(()) };
    let best = errors.best_epoch.map_or("best".to_owned(), |epoch| format!("best, epoch {epoch}"));
    let rows = [("final", "final".to_owned(), errors.trained), ("best", best, errors.best)];
    let rows = rows.into_iter().chain([("converted", "converted".to_owned(), errors.converted)]);
    writeln!(out, "## Errors on the test images\n")?;
    writeln!(out, "| model | top-1 error % | top-5 error % | loss | images |\n|---|---:|---:|---:|---:|")?;
    for (which, title, measured) in rows {
        let Some(e) = measured else { continue };
        let this = if errors.of_this_file == Some(which) { " (this file)" } else { "" };
        let (top1, top5) = (error(e.top1_error), error(e.top5_error));
        writeln!(out, "| {title}{this} | {top1} | {top5} | {:.4} | {} |", e.loss, e.images)?;
    }
    let published = &card.published;
    if published.top1_error.is_some() || published.top5_error.is_some() {
        let shown = |e: Option<f64>| e.map(error).unwrap_or_default();
        writeln!(
            out,
            "| published | {} | {} | | |",
            shown(published.top1_error),
            shown(published.top5_error)
        )?;
    }
    writeln!(out)
}

fn usage(card: &Card, out: &mut String) -> std::fmt::Result {
    let name = &card.file.name;
    let (language, code) = match card.file.format {
        Format::Onnx => (
            "python",
            format!(
                "session = onnxruntime.InferenceSession(\"{name}\")\nlogits = session.run([\"logits\"], {{\"images\": images}})[0]  # float32"
            ),
        ),
        Format::Pth => (
            "python",
            format!(
                "model.load_state_dict(torch.load(\"{name}\", weights_only=True))  # {}",
                if card.spec.model.arch.condenses() {
                    "a model of the reference implementation, not wrapped in DataParallel"
                } else {
                    "a model whose tensors have these names"
                }
            ),
        ),
        Format::Safetensors => ("sh", format!("cnx evaluate {name}")),
    };
    writeln!(out, "## Use\n\n```{language}\n{code}\n```\n")
}

fn origin(card: &Card, out: &mut String) -> std::fmt::Result {
    writeln!(out, "## Origin\n")?;
    writeln!(out, "- spec `{}`, seed {}", card.spec_hash, card.seed)?;
    if let Some(e) = &card.experiment {
        let retried = e.retry_of.map(|id| format!(", a retry of {id}")).unwrap_or_default();
        writeln!(out, "- experiment {}, {}, {} epochs done{retried}", e.id, e.state, e.epochs_done)?;
    }
    let hash = card.data.sha256.as_ref().map(|hash| format!(", SHA-256 `{hash}`")).unwrap_or_default();
    writeln!(out, "- data {}{hash}", card.data.dataset)?;
    if let Some(e) = &card.environment {
        writeln!(
            out,
            "- cnx {} (commit {}), libtorch {}, device {}, {} threads",
            plain(&e.cnx_version),
            plain(&e.commit),
            plain(&e.libtorch_version),
            plain(&e.device),
            e.threads
        )?;
    }
    let source = &card.source;
    let kind = source.kind.as_ref().map(|kind| format!("{kind} ")).unwrap_or_default();
    let epoch = source.epoch.map(|epoch| format!(" after epoch {epoch}")).unwrap_or_default();
    writeln!(
        out,
        "- exported from {kind}`{}`{epoch}, SHA-256 `{}`, by cnx {}\n",
        source.name, source.sha256, card.exported_by
    )
}

fn attempts(card: &Card, out: &mut String) -> std::fmt::Result {
    if card.attempts.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Attempts\n")?;
    writeln!(
        out,
        "| experiment | attempt | from epoch | outcome | worker | device | commit |\n|---:|---:|---:|---|---|---|---|"
    )?;
    for a in &card.attempts {
        let from = if a.resumed_at_epoch > 0 { a.resumed_at_epoch.to_string() } else { "start".to_owned() };
        let (device, commit) = a.environment.as_ref().map_or(("", ""), |e| (&e.device, &e.commit));
        let [outcome, worker, device, commit] =
            [a.outcome.as_str(), a.worker.as_str(), device, commit].map(plain);
        writeln!(
            out,
            "| {} | {} | {from} | {outcome} | {worker} | {device} | {commit} |",
            a.experiment, a.attempt
        )?;
    }
    writeln!(out)
}

/// What a worker told of itself, where a bar would end a cell and what looks like HTML would be some.
fn plain(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}
