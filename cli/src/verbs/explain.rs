//! `cnx explain`: why an experiment waits, or what happened to it.

use std::io::Write;

use cnx_proto::v1::{DescribeRequest, Event, Experiment, ExperimentDetail, State};
use serde_json::json;

use crate::args::ExplainArgs;
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::Result;
use crate::json::{self, VERSION};
use crate::term::escape::printable;
use crate::term::format::{duration, now_ms, utc};
use crate::term::style::{BOLD, DIM, paint};
use crate::view;

pub async fn run(context: &Context, args: &ExplainArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let request = DescribeRequest { selector: args.selector.clone() };
    let reply = client.rpc.describe(request).await.map_err(|status| client.failure(&status))?;
    let detail = reply.into_inner();
    if args.json {
        return print_json(&json!({
            "version": VERSION,
            "experiment": detail.experiment.as_ref().map(json::experiment),
            "why": detail.why,
            "story": detail.events.iter().map(json::event).collect::<Vec<_>>(),
            "attempts": detail.attempts.iter().map(json::attempt).collect::<Vec<_>>(),
            "next": detail.experiment.as_ref().map(next).unwrap_or_default(),
        }));
    }
    let mut out = stdout();
    for line in lines(&detail, now_ms()) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn lines(detail: &ExperimentDetail, now_ms: u64) -> Vec<String> {
    let Some(e) = &detail.experiment else { return vec!["the coordinator described nothing".to_owned()] };
    let mut lines = vec![summary(e, now_ms)];
    lines.extend(detail.why.iter().map(|why| printable(why).into_owned()));
    lines.push(String::new());
    lines.push(paint(BOLD, "what happened (UTC)"));
    lines.extend(story(&detail.events));
    let next = next(e);
    if !next.is_empty() {
        lines.push(String::new());
        lines.push(paint(DIM, &format!("next: {}", next.join(", or "))));
    }
    lines
}

/// `4 condensenet-98 failed after 2 attempts, 3 min 12 s: NaN loss at step 4,113`.
fn summary(e: &Experiment, now_ms: u64) -> String {
    let (state, style) = view::state(e);
    let mut line = format!("{} {}: {}", e.id, paint(BOLD, &printable(&e.name)), paint(style, &state));
    if e.priority != 0 {
        line.push_str(&format!(", priority {}", e.priority));
    }
    match e.attempt {
        0 => {}
        1 => line.push_str(", attempt 1"),
        n => line.push_str(&format!(", attempt {n} (the newest)")),
    }
    let since = |ms: u64| duration(now_ms.saturating_sub(ms));
    if e.finished_at_ms > 0 {
        let from = if e.started_at_ms > 0 { e.started_at_ms } else { e.submitted_at_ms };
        line.push_str(&format!(", after {}", duration(e.finished_at_ms.saturating_sub(from))));
    } else if e.state() == State::Running {
        line.push_str(&format!(" on {}", printable(&e.worker)));
    } else {
        line.push_str(&format!(", submitted {} ago", since(e.submitted_at_ms)));
    }
    if e.waits_until_ms > now_ms {
        line.push_str(&format!(", tried again in {}", duration(e.waits_until_ms - now_ms)));
    }
    // What waits or runs is told in sentences below.
    if e.state().is_final() && !e.message.is_empty() {
        line.push_str(&format!(": {}", printable(&e.message)));
    }
    line
}

/// A line an event: when, how long after the one before, in which attempt, what.
fn story(events: &[Event]) -> Vec<String> {
    let mut before = None;
    let mut attempt = 0;
    let line = |e: &Event| {
        let since = before.replace(e.at_ms).map(|ms: u64| e.at_ms.saturating_sub(ms));
        let gap = since.filter(|&ms| ms >= 1000).map(|ms| format!("+{}", duration(ms))).unwrap_or_default();
        let of = match e.attempt {
            same if same == attempt => String::new(),
            n => format!("attempt {n}: "),
        };
        attempt = e.attempt;
        format!("  {}  {}  {of}{}", utc(e.at_ms), paint(DIM, &format!("{gap:>12}")), printable(&e.what))
    };
    events.iter().map(line).collect()
}

/// Commands that lead on from here.
fn next(e: &Experiment) -> Vec<String> {
    let id = e.id;
    match e.state() {
        State::Paused => vec![format!("cnx resume {id}")],
        State::Failed if e.attempt > 0 => vec![format!("cnx logs {id}"), format!("cnx retry {id}")],
        State::Failed | State::Cancelled => vec![format!("cnx retry {id}")],
        State::Running => vec![format!("cnx logs {id} -f"), format!("cnx status {id} --watch")],
        State::Queued | State::Succeeded | State::Unspecified => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, attempt: u32, what: &str) -> Event {
        Event { at_ms, attempt, what: what.into() }
    }

    fn plain(detail: &ExperimentDetail) -> Vec<String> {
        lines(detail, 100_000).iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect()
    }

    #[test]
    fn what_failed_is_told_with_times_and_what_to_do() {
        let experiment = Experiment {
            id: 4,
            name: "condensenet-98".into(),
            state: State::Failed as i32,
            attempt: 2,
            started_at_ms: 2_000,
            finished_at_ms: 65_000,
            message: "NaN loss at step 7\x1b[2J".into(),
            ..Experiment::default()
        };
        let events = vec![
            event(1_000, 0, "submitted"),
            event(2_000, 1, "leased to a"),
            event(2_400, 1, "signal: killed; queued again after failure 1, not before 0.9 s from now"),
            event(4_000, 2, "leased to b"),
            event(65_000, 2, "diverged: NaN loss at step 7; not tried again"),
        ];
        let detail = ExperimentDetail { experiment: Some(experiment), events, ..Default::default() };
        assert_eq!(
            plain(&detail),
            [
                "4 condensenet-98: failed, attempt 2 (the newest), after 1 min 3 s: NaN loss at step 7\\u{1b}[2J",
                "",
                "what happened (UTC)",
                "  1970-01-01 00:00:01                submitted",
                "  1970-01-01 00:00:02          +1 s  attempt 1: leased to a",
                "  1970-01-01 00:00:02                signal: killed; queued again after failure 1, not before 0.9 s from now",
                "  1970-01-01 00:00:04          +1 s  attempt 2: leased to b",
                "  1970-01-01 00:01:05    +1 min 1 s  diverged: NaN loss at step 7; not tried again",
                "",
                "next: cnx logs 4, or cnx retry 4",
            ]
        );
    }

    #[test]
    fn what_waits_is_told_in_the_coordinators_sentences() {
        let experiment = Experiment {
            id: 3,
            name: "x".into(),
            state: State::Queued as i32,
            priority: 2,
            submitted_at_ms: 40_000,
            message: "waits for 2".into(),
            ..Experiment::default()
        };
        let why = vec!["It runs after 2, which is running (cnx explain 2).".to_owned()];
        let detail = ExperimentDetail { experiment: Some(experiment), why, ..Default::default() };
        assert_eq!(
            plain(&detail)[..2],
            [
                "3 x: queued, priority 2, submitted 1 min ago",
                "It runs after 2, which is running (cnx explain 2)."
            ]
        );
    }
}
