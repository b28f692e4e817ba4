//! The table for people, and in Markdown.

use std::collections::BTreeSet;

use cnx_proto::spec::{Arch, Dataset};
use unicode_width::UnicodeWidthStr;

use super::csv;
use super::rows::{Mean, Row};
use crate::groups::condense_and_groups;
use crate::term::escape::printable;
use crate::term::format::{count, error, flops, params, ranges, signed};
use crate::term::style::{BAD, BOLD, BUSY, DIM, paint};
use crate::term::table::{Cell, Column, Left, Right, Table, wrap};

/// Marks what was measured of a model that was given.
const GIVEN: &str = "†";

/// A table a dataset, each with its title.
pub fn people(rows: &[Row], provenance: bool, width: Option<usize>) -> String {
    let mut out = String::new();
    for rows in rows.chunk_by(|a, b| a.spec.data.dataset == b.spec.data.dataset) {
        if !out.is_empty() {
            out.push('\n');
        }
        let (title, notes) = title(rows);
        out.push_str(&heading(&title, &notes, width));
        for line in table(rows).lines(width.map(|w| w.saturating_sub(2))) {
            out.push_str(&format!("  {line}\n"));
        }
        if provenance {
            rows.iter().for_each(|row| provenance_lines(&row.spec.name, row, &mut out));
        }
    }
    out
}

/// A title, with notes beside it or below.
pub fn heading(title: &str, notes: &str, width: Option<usize>) -> String {
    let beside = width.is_none_or(|width| title.width() + 3 + notes.width() <= width);
    let title = paint(BOLD, title);
    match (notes.is_empty(), beside) {
        (true, _) => format!("{title}\n\n"),
        (false, true) => format!("{title}   {notes}\n\n"),
        (false, false) => format!("{title}\n{}\n\n", wrap(notes, width).join("\n")),
    }
}

/// `CondenseNet on CIFAR-10, top-1 error %` and `(3 seeds; …)`.
fn title(rows: &[Row]) -> (String, String) {
    let archs: BTreeSet<Arch> = rows.iter().map(|r| r.spec.model.arch).collect();
    let what = match archs.first() {
        Some(&arch) if archs.len() == 1 => network(arch),
        _ => "Networks",
    };
    let dataset = rows.first().map_or("?", |r| dataset(r.spec.data.dataset));
    let mut notes = Vec::new();
    match rows.iter().map(|r| r.submitted).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()[..] {
        [1] => {}
        [n] => notes.push(format!("mean ± deviation of {}", count(n, "seed"))),
        _ => notes.push("mean ± deviation over seeds".to_owned()),
    }
    if rows.iter().any(|r| r.converted_top1.is_some()) {
        notes.push("converted = group-convolution model".to_owned());
    }
    if rows.iter().any(|r| r.spec.is_job()) {
        notes.push(format!("{GIVEN} = of a model that was given, not trained here"));
    }
    let notes = if notes.is_empty() { String::new() } else { format!("({})", notes.join("; ")) };
    (format!("{what} on {dataset}, top-1 error %"), notes)
}

/// As its authors call it.
fn network(arch: Arch) -> &'static str {
    match arch {
        Arch::CondenseNet => "CondenseNet",
        Arch::DenseNet => "DenseNet",
        Arch::DenseNetLgc => "DenseNet-LGC",
        Arch::Vgg16 => "VGG-16",
        Arch::ResNet18 => "ResNet-18",
        Arch::MobileNet => "MobileNet",
        Arch::ShuffleNet => "ShuffleNet",
    }
}

fn dataset(dataset: Dataset) -> &'static str {
    match dataset {
        Dataset::Cifar10 => "CIFAR-10",
        Dataset::Cifar100 => "CIFAR-100",
        Dataset::ImageNet => "ImageNet",
        Dataset::Synthetic => "generated images",
    }
}

fn table(rows: &[Row]) -> Table {
    // Of some rows of one name, the epochs often tell which is which.
    let names: BTreeSet<&str> = rows.iter().map(|r| r.spec.name.as_str()).collect();
    let epochs = if names.len() < rows.len() { 0 } else { 5 };
    let mut table = Table::new(&[
        Column("model", Left, 0),
        Column("C=G", Right, 4),
        Column("epochs", Right, epochs),
        Column("FLOPs", Right, 1),
        Column("params", Right, 2),
        Column("published", Right, 0),
        Column("measured", Left, 0),
        Column("converted", Left, 0),
        Column("best", Left, 3),
        Column("Δ", Right, 0),
        Column("seeds", Left, 6),
    ]);
    for r in rows {
        let seeds = if r.submitted > 1 { ranges(&r.seeds) } else { String::new() };
        table.row(vec![
            name(r).into(),
            condense_and_groups(&r.spec).into(),
            r.spec.epochs().map(|n| n.to_string()).unwrap_or_default().into(),
            flops(r.cost.flops).into(),
            params(r.cost.params).into(),
            Cell::new(r.spec.published.top1_error.map(error).unwrap_or_default(), DIM),
            measured(r),
            mean(r.converted_top1).into(),
            Cell::new(mean(r.best_top1), DIM),
            r.delta().map(signed).unwrap_or_default().into(),
            Cell::new(seeds, DIM),
        ]);
    }
    table
}

/// The name, marked where the model was given.
fn name(r: &Row) -> String {
    let name = &r.spec.name;
    if r.spec.is_job() { format!("{name} {GIVEN}") } else { name.clone() }
}

/// `6.31 ± 0.09`.
pub fn mean(of: Option<Mean>) -> String {
    match of {
        None => String::new(),
        Some(Mean { mean, std: None }) => error(mean),
        Some(Mean { mean, std: Some(std) }) => format!("{} ± {}", error(mean), error(std)),
    }
}

/// The mean, and how far the row is where it is not complete.
fn measured(r: &Row) -> Cell {
    match (r.top1, r.seeds.len(), r.submitted) {
        (None, ..) => state(r),
        (_, done, all) if done == all => mean(r.top1).into(),
        (_, done, all) => format!("{} ({done} of {all})", mean(r.top1)).into(),
    }
}

/// Where a row stands of which nothing was measured; empty where nothing of it has begun.
pub fn state(r: &Row) -> Cell {
    match r.submitted {
        all if r.running > 0 && all > 1 => Cell::new(format!("running {}/{all}", r.running), BUSY),
        _ if r.running > 0 => Cell::new("running", BUSY),
        all if r.failed == all => Cell::new("failed", BAD),
        _ => "".into(),
    }
}

/// How the numbers of a row came about, below `heading`; nothing where nothing was measured.
pub fn provenance_lines(heading: &str, row: &Row, out: &mut String) {
    if row.seeds.is_empty() {
        return;
    }
    out.push_str(&format!("\n  {}\n", paint(BOLD, &printable(heading))));
    for column in csv::provenance_columns().chain(csv::columns_of_given()) {
        let text = (column.value)(row).into_text();
        if !text.is_empty() {
            out.push_str(&format!("    {:18} {}\n", column.name, printable(&text)));
        }
    }
}

/// A Markdown table with the columns of the published one, and with `provenance` all that says how it came about.
pub fn markdown(rows: &[Row], provenance: bool) -> String {
    let mut header: Vec<String> =
        ["Model", "Dataset", "FLOPs", "Params", "Published", "Measured", "Converted", "Δ", "Seeds"]
            .map(str::to_owned)
            .into();
    if provenance {
        header.extend(csv::provenance_columns().map(|c| c.name.to_owned()));
    }
    let rule =
        header.iter().enumerate().map(|(i, _)| if i < 2 { "---" } else { "---:" }.to_owned()).collect();
    let mut lines = vec![header, rule];
    for r in rows {
        let mut line = vec![
            name(r),
            dataset(r.spec.data.dataset).to_owned(),
            flops(r.cost.flops),
            params(r.cost.params),
            r.spec.published.top1_error.map(error).unwrap_or_default(),
            mean(r.top1),
            mean(r.converted_top1),
            r.delta().map(signed).unwrap_or_default(),
            format!("{}/{}", r.seeds.len(), r.submitted),
        ];
        if provenance {
            line.extend(csv::provenance_columns().map(|c| (c.value)(r).into_text()));
        }
        lines.push(line);
    }
    lines.into_iter().map(markdown_line).collect()
}

/// A line of a Markdown table.
pub fn markdown_line(cells: Vec<String>) -> String {
    // A bar would end the cell, and what looks like HTML would be some.
    let cell = |text: String| printable(&text).replace('|', "\\|").replace('<', "\\<");
    format!("| {} |\n", cells.into_iter().map(cell).collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use cnx_proto::v1::ResultRow;

    use super::super::rows::{rows, tests::example};
    use super::*;

    #[test]
    fn the_table_stands_measured_beside_published() {
        let text = anstream::adapter::strip_str(&people(&rows(&example()).0, false, None)).to_string();
        assert_eq!(
            text,
            "\
CondenseNet on CIFAR-10, top-1 error %   (mean ± deviation over seeds; converted = group-convolution model)

  model           C=G  epochs  FLOPs  params  published  measured       converted    best             Δ  seeds
  condensenet-50    4     300  28.6M   0.22M       6.22  6.31 ± 0.09    6.33 ± 0.09  6.30 ± 0.09  +0.09  0-2
  condensenet-74    4     300  51.9M   0.41M       6.22  5.30 (1 of 2)  5.32         5.29         -0.92  0
  condensenet-86    4     300  65.8M   0.52M       6.22  running
"
        );
    }

    #[test]
    fn a_terminal_of_80_columns_cuts_neither_names_nor_errors() {
        let text = anstream::adapter::strip_str(&people(&rows(&example()).0, false, Some(80))).to_string();
        assert!(text.lines().all(|line| line.width() <= 80) && !text.contains('…'), "{text}");
        assert!(text.contains("condensenet-74 ") && text.contains("5.30 (1 of 2)"), "{text}");
    }

    #[test]
    fn rows_of_one_name_keep_the_epochs_that_tell_them_apart() {
        let mut results = example();
        let short = results[0].spec_json.replace("\"epochs\":300", "\"epochs\":10");
        results.push(ResultRow { id: 9, spec_json: short, ..results[0].clone() });
        let text = anstream::adapter::strip_str(&people(&rows(&results).0, false, Some(80))).to_string();
        assert!(text.contains("condensenet-50      10") && text.contains("condensenet-50     300"), "{text}");
    }

    #[test]
    fn markdown_leaves_empty_what_is_not_measured() {
        let text = markdown(&rows(&example()).0, false);
        assert!(text.lines().all(|l| l.matches('|').count() == 10), "{text}");
        assert!(
            text.contains("| condensenet-86 | CIFAR-10 | 65.8M | 0.52M | 6.22 |  |  |  | 0/1 |"),
            "{text}"
        );
    }

    #[test]
    fn a_model_that_was_given_is_marked() {
        let trained = &example()[0];
        let spec = cnx_proto::Spec::from_json(&trained.spec_json).unwrap();
        let job = spec.job(vec![cnx_proto::spec::Step::Evaluate], "/model".into(), "0".repeat(64));
        let given = cnx_proto::v1::ResultRow { spec_json: job.to_json(), ..trained.clone() };
        let text = anstream::adapter::strip_str(&people(&rows(&[given]).0, false, None)).to_string();
        assert!(text.contains("† = of a model that was given"), "{text}");
        assert!(text.contains("condensenet-50-evaluate †    4  28.6M"), "no epochs: {text}");
    }
}
