//! `cnx doctor`: a checklist. The coordinator does the looking; where none runs, `cnxd doctor` does, on the state folder.

use std::ffi::OsString;
use std::io::Write;

use cnx_proto::v1::{DoctorReply, DoctorRequest, Finding, finding::Verdict};
use serde_json::{Value, json};

use super::backup::ask_daemon;
use crate::args::DoctorArgs;
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Code, Failure, Result};
use crate::json::VERSION;
use crate::term::escape::printable;
use crate::term::format::now_ms;
use crate::term::screen;
use crate::term::style::{BAD, DIM, GOOD, paint};
use crate::term::table::wrap;

/// Clocks of two machines that differ by more than this confuse people; leases do not depend on it.
const CLOCKS_MS: u64 = 5_000;

pub async fn run(context: &Context, args: &DoctorArgs) -> Result {
    let (who, findings) = match Client::connect(context).await {
        Ok(client) => asked(client).await?,
        Err(failure) if failure.code == Code::Unreachable && context.server.is_none() => {
            looked(context, args)?
        }
        Err(failure) => return Err(failure),
    };
    let problems = findings.iter().filter(|f| f.verdict() == Verdict::Problem).count();
    if args.json {
        print_json(&json!({
            "version": VERSION, "well": problems == 0, "findings": findings.iter().map(as_json).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut out = stdout();
        writeln!(out, "{who}")?;
        for line in lines(&findings, screen::width()) {
            writeln!(out, "{line}")?;
        }
    }
    match problems {
        0 => {
            context.talk("all is well");
            Ok(())
        }
        1 => Err(Failure::refused("1 problem")),
        n => Err(Failure::refused(format!("{n} problems"))),
    }
}

/// The running coordinator, and what only this side can see.
async fn asked(mut client: Client) -> Result<(String, Vec<Finding>)> {
    let sent_ms = now_ms();
    let reply =
        client.rpc.doctor(DoctorRequest {}).await.map_err(|status| client.failure(&status))?.into_inner();
    let DoctorReply { mut findings, now_ms: their_ms, version } = reply;
    findings.push(clocks(sent_ms, their_ms, now_ms()));
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        let found = format!("this cnx is of version {own}, the coordinator of {version}");
        findings.push(problem("workers", found, "Install the same version on both sides."));
    }
    Ok((format!("the coordinator at {}, version {}", client.address(), printable(&version)), findings))
}

/// The coordinator told its time between our two.
fn clocks(sent_ms: u64, their_ms: u64, now_ms: u64) -> Finding {
    let off_ms = sent_ms.saturating_sub(their_ms).max(their_ms.saturating_sub(now_ms));
    if off_ms <= CLOCKS_MS {
        let found = "this clock and the coordinator's agree".to_owned();
        return Finding { area: "clock".into(), verdict: Verdict::Well.into(), found, ..Finding::default() };
    }
    let found = format!("this clock and the coordinator's are {} s apart", off_ms / 1000);
    problem(
        "clock",
        found,
        "Set the wrong one (timedatectl set-ntp true). Only the times that are shown depend on it.",
    )
}

/// Without a coordinator: on the state folder.
fn looked(context: &Context, args: &DoctorArgs) -> Result<(String, Vec<Finding>)> {
    let mut arguments: Vec<OsString> = vec!["doctor".into()];
    if let Some(url) = &args.artifacts {
        arguments.extend(["--artifacts".into(), url.into()]);
    }
    let reply: DoctorReply = ask_daemon(context, &arguments)?;
    let mut findings = reply.findings;
    let state = context.state()?;
    if state.endpoint().exists() {
        let found = "a coordinator was started on this state folder, and does not answer".to_owned();
        let advice = "It was killed, or is stuck: look at its log (background/cnxd.log in the state folder), and start it \
                      again with cnx up. Workers go on training meanwhile.";
        findings.insert(0, problem("coordinator", found, advice));
    }
    Ok((format!("no coordinator runs; looked at the state folder {}", state.path().display()), findings))
}

fn problem(area: &str, found: String, advice: &str) -> Finding {
    Finding {
        area: area.to_owned(),
        verdict: Verdict::Problem.into(),
        found,
        advice: advice.to_owned(),
        ..Finding::default()
    }
}

fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Well => "well",
        Verdict::Problem => "problem",
        Verdict::Skipped | Verdict::Unspecified => "skipped",
    }
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "area": finding.area, "verdict": label(finding.verdict()), "found": finding.found, "which": finding.which,
        "advice": (!finding.advice.is_empty()).then_some(&finding.advice),
    })
}

/// A line a finding; below a problem, where it is and what to do.
fn lines(findings: &[Finding], width: Option<usize>) -> Vec<String> {
    let area_width = findings.iter().map(|f| f.area.len()).max().unwrap_or(0);
    let indent = 2 + "problem".len() + 2 + area_width + 2;
    let room = width.map(|width| width.saturating_sub(indent).max(30));
    let mut lines = Vec::new();
    for finding in findings {
        let style = match finding.verdict() {
            Verdict::Well => GOOD,
            Verdict::Problem => BAD,
            Verdict::Skipped | Verdict::Unspecified => DIM,
        };
        let verdict = paint(style, &format!("{:<7}", label(finding.verdict())));
        let head = format!("  {verdict}  {:<area_width$}  ", printable(&finding.area));
        let mut below = wrap(&printable(&finding.found), room);
        below.extend(finding.which.iter().map(|which| format!("- {}", printable(which))));
        if !finding.advice.is_empty() {
            let advice = wrap(&printable(&finding.advice), room.map(|room| room.saturating_sub(2)));
            below.extend(
                advice
                    .iter()
                    .enumerate()
                    .map(|(i, line)| format!("{}{line}", if i == 0 { "→ " } else { "  " })),
            );
        }
        for (i, line) in below.into_iter().enumerate() {
            lines.push(if i == 0 { format!("{head}{line}") } else { format!("{:indent$}{line}", "") });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_and_what_to_do() {
        let well = Finding {
            area: "disk".into(),
            verdict: Verdict::Well.into(),
            found: "there is room".into(),
            ..Finding::default()
        };
        let mut bad = problem("leases", "1 lease not renewed".into(), "Look at the worker.\x1b[2J");
        bad.which = vec!["experiment 4 on w".into()];
        let plain: Vec<String> =
            lines(&[well, bad], None).iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect();
        assert_eq!(
            plain,
            [
                "  well     disk    there is room",
                "  problem  leases  1 lease not renewed",
                "                   - experiment 4 on w",
                "                   → Look at the worker.\\u{1b}[2J",
            ]
        );
    }

    #[test]
    fn clocks_agree_if_the_others_time_lies_between_question_and_answer() {
        assert_eq!(clocks(1_000, 400_000, 500_000).verdict(), Verdict::Well);
        assert_eq!(clocks(100_000, 96_000, 100_100).verdict(), Verdict::Well);
        let ahead = clocks(100_000, 160_100, 100_100);
        assert!(ahead.verdict() == Verdict::Problem && ahead.found.contains("60 s apart"), "{ahead:?}");
        assert_eq!(clocks(100_000, 10_000, 100_100).verdict(), Verdict::Problem);
    }
}
