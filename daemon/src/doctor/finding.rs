//! One thing that was looked at, and what it is like.

use cnx_proto::v1::{Finding, finding::Verdict};

/// Of a problem, how many experiments, files or workers are named.
pub const NAMED: usize = 5;

/// All is well.
pub fn well(area: &str, found: impl Into<String>) -> Finding {
    finding(area, Verdict::Well, found)
}

/// It was not looked at.
pub fn skipped(area: &str, found: impl Into<String>) -> Finding {
    finding(area, Verdict::Skipped, found)
}

/// Somebody should do something.
pub fn problem(area: &str, found: impl Into<String>, which: Vec<String>, advice: &str) -> Finding {
    Finding { which, advice: advice.to_owned(), ..finding(area, Verdict::Problem, found) }
}

fn finding(area: &str, verdict: Verdict, found: impl Into<String>) -> Finding {
    Finding { area: area.to_owned(), verdict: verdict.into(), found: found.into(), ..Finding::default() }
}

/// `1 file`, `3 files`.
pub fn counted(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// Decimal, as `cnx` shows sizes: `12.3 MB`.
pub fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}
