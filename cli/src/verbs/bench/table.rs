//! The forms of the table: for people, CSV, JSON.

use cnx_proto::Spec;
use cnx_proto::cost::cost;
use cnx_proto::job::latency_json;
use cnx_proto::v1::Latency;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::json::VERSION;
use crate::term::format::{bytes, error, flops};
use crate::term::style::{DIM, paint};
use crate::term::table::{Cell, Column, Left, Right, Table};
use crate::verbs::results::published::tables::Line;

/// A network on an engine.
pub struct Row {
    pub line: Line,
    pub job: Spec,
}

/// The same with its time.
pub struct Timed {
    pub row: Row,
    pub latency: Latency,
}

impl Timed {
    /// Of the multiply-adds that the threads can do at most.
    fn share_of_peak(&self) -> f64 {
        let done = cost(&self.row.job).converted_multiply_adds as f64 / self.latency.median_s;
        done / self.latency.multiply_adds_per_s
    }

    fn published_top1(&self) -> Option<f64> {
        self.row.line.specs.first()?.published.top1_error
    }
}

/// Three digits.
fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    let decimals = [(100.0, 0), (10.0, 1)].iter().find(|(from, _)| ms >= *from).map_or(2, |(_, d)| *d);
    format!("{ms:.decimals$}")
}

pub fn people(timed: &[Timed], width: Option<usize>) -> String {
    let mut table = Table::new(&[
        Column("Model", Left, 0),
        Column("FLOPs", Right, 2),
        Column("Top-1 publ.", Right, 3),
        Column("engine", Left, 0),
        Column("ms", Right, 0),
        Column("10 % to 90 %", Right, 1),
        Column("memory", Right, 4),
        Column("of peak", Right, 5),
        Column("paper's s", Right, 6),
    ]);
    for one in timed {
        let Timed { row, latency } = one;
        let memory = latency.peak_memory_bytes;
        table.row(vec![
            row.line.label.into(),
            flops(row.line.cost().0).into(),
            Cell::new(one.published_top1().map(error).unwrap_or_default(), DIM),
            row.job.run.engine.to_string().into(),
            milliseconds(latency.median_s).into(),
            format!("{} to {}", milliseconds(latency.tenth_s), milliseconds(latency.ninetieth_s)).into(),
            if memory == 0 { String::new() } else { bytes(memory) }.into(),
            format!("{:.0} %", 100.0 * one.share_of_peak()).into(),
            Cell::new(row.line.published_time_s.map(|s| s.to_string()).unwrap_or_default(), DIM),
        ]);
    }
    let mut out = String::new();
    let (threads, most) =
        timed.first().map_or((0, 0.0), |t| (t.latency.threads, t.latency.multiply_adds_per_s / 1e9));
    let s = if threads == 1 { "" } else { "s" };
    out.push_str(&format!("One image of 224×224, {threads} thread{s}, random weights\n\n"));
    for line in table.lines(width.map(|w| w.saturating_sub(2))) {
        out.push_str(&format!("  {line}\n"));
    }
    out.push('\n');
    for note in [
        "ms: the median; memory: the most of the whole process; paper's s: of an ARM processor.".to_owned(),
        format!(
            "of peak: of the {most:.0} thousand million multiply-adds a second that the threads can do at most."
        ),
    ] {
        out.push_str(&format!("  {}\n", paint(DIM, &note)));
    }
    out
}

pub fn json(timed: &[Timed]) -> Value {
    let row = |one: &Timed| {
        let mut row = latency_json(&one.latency);
        let published = &one.row.line;
        row["model"] = published.label.into();
        row["engine"] = one.row.job.run.engine.as_str().into();
        row["flops"] = published.cost().0.into();
        row["published_top1_error"] = one.published_top1().into();
        row["published_time_s"] = published.published_time_s.into();
        row["share_of_peak"] = one.share_of_peak().into();
        row
    };
    json!({ "version": VERSION, "rows": timed.iter().map(row).collect::<Vec<_>>() })
}

/// The published columns (model, FLOPs, top-1 error, time), and what else was measured.
pub fn csv(timed: &[Timed]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| Failure::refused(format!("cannot write CSV: {error}"));
    let header = "model,flops,published_flops,published_top1_error,time_s,published_time_s,engine,threads,runs,time_tenth_s,\
                  time_ninetieth_s,peak_memory_bytes,share_of_peak";
    writer.write_record(header.split(',')).map_err(wrong)?;
    let perhaps = |number: Option<f64>| number.map(|n| n.to_string()).unwrap_or_default();
    for one in timed {
        let Timed { row: Row { line, job }, latency } = one;
        let memory = latency.peak_memory_bytes;
        let fields = [
            line.label.to_owned(),
            line.cost().0.to_string(),
            ((line.published_flops_m * 1e6).round() as u64).to_string(),
            perhaps(one.published_top1()),
            latency.median_s.to_string(),
            perhaps(line.published_time_s),
            job.run.engine.to_string(),
            latency.threads.to_string(),
            latency.runs.to_string(),
            latency.tenth_s.to_string(),
            latency.ninetieth_s.to_string(),
            if memory == 0 { String::new() } else { memory.to_string() },
            format!("{:.4}", one.share_of_peak()),
        ];
        writer.write_record(fields).map_err(wrong)?;
    }
    writer.into_inner().map_err(|error| Failure::refused(format!("cannot write CSV: {error}")))
}
