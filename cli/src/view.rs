//! Experiments as a list: what `status` prints, `--watch` redraws and `submit --wait` follows.

use std::collections::{BTreeMap, BTreeSet};

use anstyle::Style;
use cnx_proto::Spec;
use cnx_proto::v1::{Coordinator, Experiment, Phase, Progress, State, StatusReply, StopReason};
use unicode_width::UnicodeWidthStr;

use crate::term::escape::printable;
use crate::term::format::{count, duration, error, thousands};
use crate::term::style::{BAD, BUSY, DIM, DOUBT, GOOD};
use crate::term::table::{Cell, Column, Left, Right, Table, cut};
use crate::term::{bar, screen};

const BAR: usize = 12;
const LONGEST_MESSAGE: usize = 48;

const COLUMNS: &[Column] = &[
    Column("ID", Right, 0),
    Column("EXPERIMENT", Left, 0),
    Column("SEED", Right, 0),
    Column("STATE", Left, 0),
    Column("PRIORITY", Right, 2),
    Column("PROGRESS", Left, 0),
    Column("TOP-1 ERR", Right, 1),
    Column("PUBLISHED", Right, 3),
    Column("LOSS", Right, 7),
    Column("TRAIN ERR", Right, 9),
    Column("LR", Right, 10),
    Column("CONDENSED", Right, 8),
    Column("SPEED", Right, 4),
    Column("ETA", Right, 2),
    Column("ATTEMPT", Left, 5),
    Column("", Left, 6),
];

/// `coordinator 127.0.0.1:7420, up 3 h 12 min; 2 workers, 1 of 2 busy; 1 running, 5 queued`; the time only where it fits.
pub fn headline(c: &Coordinator, now_ms: u64, width: Option<usize>) -> String {
    let address = c.address.trim_start_matches("http://");
    let slots = match (c.workers, c.busy_slots, c.free_slots) {
        (0, ..) => String::new(),
        (_, busy, free) => format!(", {busy} of {} busy", busy + free),
    };
    let workers = count(c.workers as usize, "worker");
    let (running, queued) = (thousands(c.running), thousands(c.queued));
    let paused = if c.paused > 0 { format!(", {} paused", thousands(c.paused)) } else { String::new() };
    // First of all: whoever wonders why nothing starts finds it here.
    let held = if c.queue_paused_since_ms > 0 { "QUEUE PAUSED (cnx resume --queue); " } else { "" };
    let line = |up: &str| {
        format!(
            "{held}coordinator {}{up}; {workers}{slots}; {running} running, {queued} queued{paused}",
            printable(address)
        )
    };
    let whole = line(&format!(", up {}", duration(now_ms.saturating_sub(c.started_at_ms))));
    match width {
        Some(width) if whole.width() > width => cut(&line(""), width),
        _ => whole,
    }
}

/// One row an experiment.
pub fn table(experiments: &[Experiment], now_ms: u64) -> Table {
    let mut table = Table::new(COLUMNS);
    let specs: Vec<Option<Spec>> = experiments.iter().map(spec).collect();
    // Of some rows of one name, the seed tells which is which.
    let seeds: BTreeSet<(&str, u64)> =
        specs.iter().flatten().map(|s| (s.name.as_str(), s.train.seed)).collect();
    let names: BTreeSet<&str> = seeds.iter().map(|(name, _)| *name).collect();
    let show_seeds = seeds.len() > names.len();
    for (e, spec) in experiments.iter().zip(&specs) {
        table.row(row(e, spec.as_ref(), show_seeds, now_ms));
    }
    table
}

/// Not validated again: a spec of another version still shows what can be read.
fn spec(e: &Experiment) -> Option<Spec> {
    serde_json::from_str(&e.spec_json).ok()
}

fn row(e: &Experiment, spec: Option<&Spec>, show_seed: bool, now_ms: u64) -> Vec<Cell> {
    let published = spec.and_then(|s| s.published.top1_error);
    let seed = spec.filter(|_| show_seed).map(|s| s.train.seed.to_string());
    let (state, style) = state(e);
    let training = live(e).filter(|p| phase(p) == Phase::Train && p.step > 0);
    let speed =
        training.filter(|p| p.images_per_s >= 1.0).map(|p| thousands(p.images_per_s as u64) + " img/s");
    let condensed = training.filter(|p| p.condensing_stages > 0);
    let eta = training.zip(spec).and_then(|(p, s)| eta_ms(p, s.train.batch_size));
    let hint = if e.state() == State::Failed { format!("cnx explain {}", e.id) } else { String::new() };
    vec![
        e.id.to_string().into(),
        printable(&e.name).into_owned().into(),
        seed.unwrap_or_default().into(),
        Cell::new(state, style),
        if e.priority == 0 { String::new() } else { e.priority.to_string() }.into(),
        progress(e, spec, now_ms),
        e.top1_error.map(error).unwrap_or_default().into(),
        Cell::new(published.map(error).unwrap_or_default(), DIM),
        training.map(|p| format!("{:.3}", p.loss)).unwrap_or_default().into(),
        training.map(|p| error(p.train_top1_error)).unwrap_or_default().into(),
        training.map(|p| format!("{:.4}", p.learning_rate)).unwrap_or_default().into(),
        condensed
            .map(|p| format!("{}/{}", p.condensing_stage, p.condensing_stages))
            .unwrap_or_default()
            .into(),
        speed.unwrap_or_default().into(),
        eta.map(duration).unwrap_or_default().into(),
        attempt(e).into(),
        Cell::new(hint, DIM),
    ]
}

/// The progress of what runs.
fn live(e: &Experiment) -> Option<&Progress> {
    e.progress.as_ref().filter(|_| e.state() == State::Running)
}

fn phase(p: &Progress) -> Phase {
    Phase::try_from(p.phase).unwrap_or_default()
}

/// The state in a word; of what runs, its phase.
pub fn state(e: &Experiment) -> (String, Style) {
    match e.state() {
        State::Running if e.cancelling => ("cancelling".to_owned(), DOUBT),
        State::Running if e.stopping() == StopReason::Paused => ("pausing".to_owned(), DOUBT),
        State::Running if e.stopping() == StopReason::Preempted => ("preempted".to_owned(), DOUBT),
        State::Running => {
            let phase = live(e).map(phase).filter(|&p| p != Phase::Unspecified);
            (phase.map_or_else(|| "starting".to_owned(), Phase::label), BUSY)
        }
        other => {
            let style = match other {
                State::Succeeded => GOOD,
                State::Failed => BAD,
                State::Queued => DIM,
                _ => DOUBT,
            };
            (word(other), style)
        }
    }
}

/// A state as people read it everywhere.
pub fn word(state: State) -> String {
    match state {
        State::Succeeded => "done".to_owned(),
        other => other.label(),
    }
}

/// How a training goes, in two lines of less than 80 columns: how far and how fast; how well.
pub fn how_it_goes(e: &Experiment, spec: Option<&Spec>) -> Vec<String> {
    let Some(p) = live(e).filter(|p| phase(p) == Phase::Train && p.step > 0) else { return Vec::new() };
    let (step, steps) = (thousands(p.step), thousands(p.steps));
    let left =
        spec.and_then(|s| eta_ms(p, s.train.batch_size)).map(|ms| format!(", done in {}", duration(ms)));
    let speed = thousands(p.images_per_s as u64);
    let stage = match p.condensing_stages {
        0 => String::new(),
        stages => format!(", condensing stage {} of {stages}", p.condensing_stage),
    };
    vec![
        format!(
            "epoch {} of {}, step {step} of {steps}, {speed} img/s{}",
            p.epoch,
            p.epochs,
            left.unwrap_or_default()
        ),
        format!(
            "loss {:.3}, training error {} %, lr {:.4}{stage}",
            p.loss,
            error(p.train_top1_error),
            p.learning_rate
        ),
    ]
}

fn progress(e: &Experiment, spec: Option<&Spec>, now_ms: u64) -> Cell {
    let epochs = spec.map(|s| s.train.epochs).or(e.progress.as_ref().map(|p| p.epochs)).unwrap_or(0);
    let timed = spec.filter(|s| s.times());
    let done = match (spec.and_then(|s| s.run.from.as_deref()), timed) {
        (Some(model), _) => format!("of {}", printable(short(model))),
        (None, Some(timed)) => format!("on {}", timed.run.engine),
        (None, None) => format!("{}/{epochs}", e.epochs_done),
    };
    let message = cut(&printable(&e.message), LONGEST_MESSAGE);
    match e.state() {
        State::Queued if e.waits_until_ms > now_ms => {
            let wait = duration(e.waits_until_ms - now_ms);
            let again = format!("tried again in {wait}");
            let text = if message.is_empty() { again } else { format!("{message}; {again}") };
            Cell::new(cut(&text, LONGEST_MESSAGE), DIM)
        }
        State::Paused if e.epochs_done > 0 => Cell::new(format!("{done}; {message}"), DIM),
        State::Queued | State::Paused => Cell::new(message, DIM),
        State::Failed => Cell::new(message, BAD),
        State::Running => {
            let far = match live(e).filter(|p| p.steps > 0) {
                Some(p) => {
                    let share = p.step as f64 / p.steps as f64;
                    let label = match phase(p) {
                        Phase::Train => done,
                        _ => format!("{:.0} %", 100.0 * share),
                    };
                    format!("{} {label}", bar::bar(share, BAR))
                }
                None if e.epochs_done > 0 => done,
                None => String::new(),
            };
            match e.suspect_since_ms {
                0 => far.into(),
                since_ms => {
                    let silent = format!("suspect: silent for {}", duration(now_ms.saturating_sub(since_ms)));
                    Cell::new(format!("{far} {silent}").trim_start().to_owned(), DOUBT)
                }
            }
        }
        _ if e.epochs_done > 0 || e.state() == State::Succeeded => done.into(),
        _ => message.into(),
    }
}

/// The end of a path or of an artifact's name, that tells it from others: `12/final.safetensors`.
fn short(model: &str) -> &str {
    let start = model.rmatch_indices('/').nth(1).map_or(0, |(slash, _)| slash + 1);
    &model[start..]
}

/// What the rest of the training takes at the speed seen.
fn eta_ms(p: &Progress, batch_size: u32) -> Option<u64> {
    let left = p.steps.saturating_sub(p.step) as f64 * f64::from(batch_size);
    let seconds = left / p.images_per_s;
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0) as u64)
}

fn attempt(e: &Experiment) -> String {
    match (e.attempt, e.resumed_at_epoch) {
        (0, _) => String::new(),
        (attempt, 0) => attempt.to_string(),
        (attempt, epoch) => format!("{attempt}, resumed at {epoch}"),
    }
}

/// What of a list is worth its place on a screen of few rows: what runs, then the newest of the rest; by ID.
pub fn most_relevant(experiments: &[Experiment], rows: usize) -> Vec<Experiment> {
    if experiments.len() <= rows {
        return experiments.to_vec();
    }
    let mut chosen: Vec<&Experiment> = experiments.iter().collect();
    let rank = |e: &Experiment| match e.state() {
        State::Running => 0,
        State::Failed => 1,
        State::Queued => 2,
        State::Paused => 3,
        _ => 4,
    };
    // Of what waits the oldest is next; of the rest the newest is of interest.
    chosen.sort_by_key(|e| (rank(e), if e.state() == State::Queued { e.id } else { u64::MAX - e.id }));
    chosen.truncate(rows);
    chosen.sort_by_key(|e| e.id);
    chosen.into_iter().cloned().collect()
}

/// A full frame for a terminal of that size.
pub fn frame(reply: &StatusReply, now_ms: u64, (width, height): (usize, usize)) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(c) = &reply.coordinator {
        lines.push(headline(c, now_ms, Some(width)));
        lines.push(String::new());
    }
    // Head, header, "… more" and the line of the cursor stay free.
    let shown = most_relevant(&reply.experiments, height.saturating_sub(lines.len() + 3).max(1));
    lines.extend(table(&shown, now_ms).lines(Some(width)));
    if shown.len() < reply.experiments.len() {
        lines.push(screen::fitted(
            &format!("… and {} more", reply.experiments.len() - shown.len()),
            Some(width),
        ));
    }
    if let [one] = reply.experiments.as_slice() {
        lines.push(String::new());
        lines.extend(
            how_it_goes(one, spec(one).as_ref()).iter().map(|line| screen::fitted(line, Some(width))),
        );
    }
    lines.truncate(height.saturating_sub(1).max(1));
    lines
}

/// What of an experiment is worth a line when it changes.
type Seen = (i32, u32, u32, bool, i32);

/// Turns updates into a line a change, for logs and pipes.
#[derive(Default)]
pub struct Changes {
    seen: BTreeMap<u64, Seen>,
}

impl Changes {
    /// Lines for what is new since the last update.
    pub fn lines(&mut self, reply: &StatusReply) -> Vec<String> {
        let mut lines = Vec::new();
        for e in &reply.experiments {
            let seen = (e.state, e.attempt, e.epochs_done, e.cancelling, e.stopping);
            if self.seen.insert(e.id, seen) != Some(seen) {
                lines.push(change(e));
            }
        }
        lines
    }
}

fn change(e: &Experiment) -> String {
    let stopping = e.cancelling || e.stopping() != StopReason::Unspecified;
    let (state, _) =
        if e.state() == State::Running && !stopping { ("running".to_owned(), BUSY) } else { state(e) };
    let mut line = format!("{} {}: {state}", e.id, printable(&e.name));
    if e.attempt > 1 {
        line.push_str(&format!(", attempt {}", attempt(e)));
    }
    if let Some(spec) = spec(e).filter(|_| e.epochs_done > 0) {
        line.push_str(&format!(", epoch {}/{}", e.epochs_done, spec.train.epochs));
    }
    if let Some(top1) = e.top1_error {
        line.push_str(&format!(", top-1 error {}", error(top1)));
    }
    if !e.message.is_empty() && !matches!(e.state(), State::Running | State::Succeeded) {
        line.push_str(&format!(" ({})", printable(&e.message)));
    }
    line
}

#[cfg(test)]
mod tests;
