//! One experiment in detail: spec, attempts, curve, artifacts, events.

use cnx_proto::Spec;
use cnx_proto::cost::cost;
use cnx_proto::v1::{Artifact, Attempt, Errors, Event, Experiment, ExperimentDetail, Figures, Latency};

use crate::groups::condense_and_groups;
use crate::term::escape::printable;
use crate::term::format::{bytes, count, duration, error, flops, params, utc};
use crate::term::plot::plot;
use crate::term::style::{BOLD, DIM, paint};
use crate::term::table::{Cell, Column, Left, Right, Table};
use crate::view;

const PLOT_HEIGHT: usize = 8;
const WIDEST_PLOT: usize = 72;
/// Room for the labels beside the plot.
const PLOT_MARGIN: usize = 10;
const LATEST_EVENTS: usize = 12;

/// The whole page.
pub fn lines(detail: &ExperimentDetail, now_ms: u64, width: Option<usize>) -> Vec<String> {
    let Some(e) = &detail.experiment else { return vec!["the coordinator described nothing".to_owned()] };
    let spec: Option<Spec> = serde_json::from_str(&e.spec_json).ok();
    let mut lines = head(e, now_ms);
    lines.extend(view::how_it_goes(e, spec.as_ref()));
    if let Some(spec) = &spec {
        lines.extend(about(spec));
    }
    if let Some(figures) = &detail.figures {
        section(&mut lines, "figures, error %", figure_lines(figures, spec.as_ref()));
    }
    section(&mut lines, "top-1 test error % by epoch", curve(detail, spec.as_ref(), width));
    section(&mut lines, "attempts", attempts(&detail.attempts, now_ms).lines(narrower(width)));
    section(&mut lines, "artifacts", artifacts(&detail.artifacts).lines(narrower(width)));
    section(&mut lines, "events (UTC)", events(&detail.events));
    lines
}

fn section(lines: &mut Vec<String>, title: &str, content: Vec<String>) {
    // A table without rows is its header alone.
    let is_empty = content.len() < 2 && !title.starts_with("events");
    if is_empty || content.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(paint(BOLD, title));
    lines.extend(content.into_iter().map(|line| format!("  {line}")));
}

fn narrower(width: Option<usize>) -> Option<usize> {
    width.map(|w| w.saturating_sub(2))
}

fn head(e: &Experiment, now_ms: u64) -> Vec<String> {
    let (state, style) = view::state(e);
    let mut first = format!("{} {}: {}", e.id, paint(BOLD, &printable(&e.name)), paint(style, &state));
    if !e.message.is_empty() {
        first.push_str(&format!(", {}", printable(&e.message)));
    }
    let mut when = format!("submitted {}", utc(e.submitted_at_ms));
    if e.started_at_ms > 0 {
        let end = if e.finished_at_ms > 0 { e.finished_at_ms } else { now_ms };
        let verb = if e.finished_at_ms > 0 { "took" } else { "runs for" };
        let took = duration(end.saturating_sub(e.started_at_ms));
        when.push_str(&format!(", started {} UTC, {verb} {took}", utc(e.started_at_ms)));
    }
    let mut lines = vec![first, when];
    if !e.sweeps.is_empty() {
        lines.push(format!("of sweep {}", printable(&e.sweeps.join(", "))));
    }
    if e.retry_of > 0 {
        lines.push(format!("retry of {0} (cnx status {0})", e.retry_of));
    }
    if !e.worker.is_empty() {
        lines.push(format!("on worker {}", printable(&e.worker)));
    }
    lines
}

fn about(spec: &Spec) -> Vec<String> {
    vec![network(spec), what_it_does(spec), paint(DIM, &format!("spec {}", spec.hash()))]
}

/// What it is and costs: `condensenet 14-14-14, growth 8-16-32, C=G 4; 65.8M FLOPs, 0.52M parameters (converted …)`.
fn network(spec: &Spec) -> String {
    let (model, cost) = (&spec.model, cost(spec));
    let mut line = model.arch.to_string();
    if model.arch.is_dense() {
        line.push_str(&format!(
            " {}, growth {}, C=G {}",
            model.stages,
            model.growth,
            condense_and_groups(spec)
        ));
    }
    line.push_str(&format!("; {} FLOPs, {} parameters", flops(cost.flops), params(cost.params)));
    if model.arch.condenses() {
        let (flops, params) = (flops(cost.converted_flops), params(cost.converted_params));
        line.push_str(&format!(" (converted {flops}, {params})"));
    }
    line
}

/// How it trains, or what is done with the model that it is given.
fn what_it_does(spec: &Spec) -> String {
    let (train, run, dataset) = (&spec.train, &spec.run, spec.data.dataset);
    if let (Some(model), Some(sha256)) = (&run.from, &run.from_sha256) {
        let steps: Vec<&str> = run.steps.iter().map(|step| step.as_str()).collect();
        let on = if spec.measures() { format!(" on {dataset}") } else { String::new() };
        return format!(
            "{}{on}: the model {}, SHA-256 {}",
            steps.join(", "),
            printable(model),
            printable(sha256)
        );
    }
    if spec.times() {
        return format!("latency: one image of {dataset} on the CPU, random weights, {}", run.engine);
    }
    format!(
        "{dataset}, {} epochs of batches of {}, lr {} {}, seed {}, {}",
        train.epochs, train.batch_size, train.lr, train.schedule, train.seed, train.precision
    )
}

fn figure_lines(figures: &Figures, spec: Option<&Spec>) -> Vec<String> {
    let mut table = Table::new(&[
        Column("", Left, 0),
        Column("TOP-1", Right, 0),
        Column("TOP-5", Right, 0),
        Column("LOSS", Right, 0),
        Column("IMAGES", Right, 0),
    ]);
    let mut row = |what: String, errors: &Option<Errors>| {
        if let Some(e) = errors {
            let loss = format!("{:.4}", e.loss);
            let images = e.images.to_string();
            table.row(vec![
                what.into(),
                error(e.top1_error).into(),
                error(e.top5_error).into(),
                loss.into(),
                images.into(),
            ]);
        }
    };
    row("final".into(), &figures.r#final);
    row(format!("best, epoch {}", figures.best_epoch), &figures.best);
    row("converted".into(), &figures.converted);
    if let Some(published) = spec.map(|s| &s.published).filter(|p| p.top1_error.is_some()) {
        let shown = |percent: Option<f64>| Cell::new(percent.map(error).unwrap_or_default(), DIM);
        let (top1, top5) = (shown(published.top1_error), shown(published.top5_error));
        table.row(vec![Cell::new("published", DIM), top1, top5, "".into(), "".into()]);
    }
    let mut lines = table.lines(None);
    if let Some(Latency { median_s, tenth_s, ninetieth_s, threads, .. }) = figures.latency {
        let ms = |seconds: f64| format!("{:.2}", seconds * 1e3);
        let (median, tenth, ninetieth) = (ms(median_s), ms(tenth_s), ms(ninetieth_s));
        lines.push(format!(
            "one image, {}: {median} ms ({tenth} to {ninetieth})",
            count(threads as usize, "thread")
        ));
    }
    lines
}

fn curve(detail: &ExperimentDetail, spec: Option<&Spec>, width: Option<usize>) -> Vec<String> {
    let points: Vec<(f64, f64)> =
        detail.epochs.iter().map(|m| (f64::from(m.epoch), m.test_top1_error)).collect();
    let published = spec.and_then(|s| s.published.top1_error);
    let room = width.unwrap_or(80).saturating_sub(PLOT_MARGIN).min(WIDEST_PLOT);
    let mut lines = plot(&points, published, room, PLOT_HEIGHT);
    if let (false, Some(published)) = (lines.is_empty(), published) {
        lines.push(paint(DIM, &format!("dotted: published, {}", error(published))));
    }
    lines
}

fn attempts(attempts: &[Attempt], now_ms: u64) -> Table {
    let mut table = Table::new(&[
        Column("#", Right, 0),
        Column("OUTCOME", Left, 0),
        Column("FROM EPOCH", Right, 0),
        Column("TOOK", Right, 0),
        Column("WORKER", Left, 1),
        Column("DEVICE", Left, 3),
        Column("STARTED (UTC)", Left, 2),
        Column("MESSAGE", Left, 0),
    ]);
    for a in attempts {
        let end = if a.ended_at_ms > 0 { a.ended_at_ms } else { now_ms };
        let device = a.environment.as_ref().map(|e| e.device.clone()).unwrap_or_default();
        let from = if a.resumed_at_epoch > 0 { a.resumed_at_epoch.to_string() } else { "start".to_owned() };
        table.row(vec![
            a.attempt.to_string().into(),
            printable(&a.outcome).into_owned().into(),
            from.into(),
            duration(end.saturating_sub(a.started_at_ms)).into(),
            printable(&a.worker).into_owned().into(),
            printable(&device).into_owned().into(),
            utc(a.started_at_ms).into(),
            printable(&a.message).into_owned().into(),
        ]);
    }
    table
}

fn artifacts(artifacts: &[Artifact]) -> Table {
    let mut table = Table::new(&[
        Column("KIND", Left, 0),
        Column("EPOCH", Right, 0),
        Column("SIZE", Right, 0),
        Column("SHA-256", Left, 0),
        Column("NAME", Left, 0),
    ]);
    for a in artifacts {
        let short: String = a.sha256.chars().take(16).collect();
        table.row(vec![
            a.kind().to_string().into(),
            if a.epoch > 0 { a.epoch.to_string() } else { String::new() }.into(),
            bytes(a.bytes).into(),
            Cell::new(printable(&short), DIM),
            printable(&a.name).into_owned().into(),
        ]);
    }
    table
}

fn events(events: &[Event]) -> Vec<String> {
    let older = events.len().saturating_sub(LATEST_EVENTS);
    let mut lines = Vec::new();
    if older > 0 {
        lines.push(paint(DIM, &format!("… {older} older, in --json")));
    }
    let line = |e: &Event| format!("{}  {}", utc(e.at_ms), printable(&e.what));
    lines.extend(events.iter().skip(older).map(line));
    lines
}
