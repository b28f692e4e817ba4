//! A published table for people, and in Markdown: the paper's columns, each error beside the published one.

use super::matching::{Filled, NearMiss};
use super::tables::{self, Line};
use crate::term::format::{error, flops, params, signed};
use crate::term::style::{DIM, paint};
use crate::term::table::{Cell, Column, Left, Right, Table, wrap};
use crate::verbs::results::rows::Row;
use crate::verbs::results::table::{heading, markdown_line, mean, provenance_lines, state};

/// Stands where nothing was measured.
const UNMEASURED: &str = "–";

/// Of notes that go to no terminal, in columns.
const NOTES_WIDTH: usize = 110;

/// With title, notes and what was not counted.
pub fn people(filled: &Filled, provenance: bool, width: Option<usize>) -> String {
    let mut out = heading(filled.table.title, "(mean ± deviation over n seeds)", width);
    let width = width.map(|w| w.saturating_sub(2));
    let mut table = Table::new(&columns(&filled.table));
    lines(filled).for_each(|cells| table.row(cells));
    for line in table.lines(width) {
        out.push_str(&format!("  {line}\n"));
    }
    out.push('\n');
    for note in notes(filled).iter().flat_map(|note| wrap(note, Some(width.unwrap_or(NOTES_WIDTH)))) {
        out.push_str(&format!("  {}\n", paint(DIM, &note)));
    }
    if provenance {
        provenance_of_all(filled, &mut out);
    }
    out
}

/// The columns: the paper's, and beside each error the published one, the difference and the converted model's. On a narrow
/// terminal the latter go first, then the number of seeds, then the costs.
fn columns(of: &tables::Table) -> Vec<Column> {
    let mut columns = vec![Column("Model", Left, 0), Column("FLOPs", Right, 2)];
    columns.extend(of.has_params().then_some(Column("Params", Right, 3)));
    for column in of.columns {
        columns.extend([
            Column(column.header, Left, 0),
            Column("paper", Right, 0),
            Column("Δ", Right, 0),
            Column("n", Right, 4),
            Column("converted", Left, 5),
        ]);
    }
    if of.has_times() {
        columns.extend([Column("Time(s)", Left, 0), Column("paper", Right, 1)]);
    }
    columns
}

/// A line's cells: one a column.
fn cells(of: &tables::Table, line: &Line, rows: &[Option<Row>], time_s: Option<f64>) -> Vec<Cell> {
    let unmeasured = || Cell::new(UNMEASURED, DIM);
    let published = |text: Option<String>| Cell::new(text.unwrap_or_default(), DIM);
    let (multiply_adds, parameters) = line.cost();
    let mut cells: Vec<Cell> = vec![line.label.into(), flops(multiply_adds).into()];
    cells.extend(of.has_params().then(|| params(parameters).into()));
    for column in of.columns {
        let row = rows.get(column.place).and_then(Option::as_ref);
        let error_of_it = row.and_then(|r| column.measured(r));
        let state = row.map(state).filter(|cell| !cell.is_empty()).unwrap_or_else(unmeasured);
        cells.extend([
            if error_of_it.is_some() { mean(error_of_it).into() } else { state },
            published(column.published(line).map(error)),
            column.delta(line, row).map(signed).unwrap_or_default().into(),
            row.map(seeds).unwrap_or_default().into(),
            mean(row.and_then(|r| column.converted(r))).into(),
        ]);
    }
    if of.has_times() {
        let measured = time_s.map_or_else(unmeasured, |s| format!("{s:.4}").into());
        cells.extend([measured, published(line.published_time_s.map(|s| s.to_string()))]);
    }
    cells
}

/// The lines, each with its cells.
fn lines(filled: &Filled) -> impl Iterator<Item = Vec<Cell>> {
    let lines = filled.table.lines.iter().zip(&filled.measured).zip(&filled.times);
    lines.map(|((line, rows), &time_s)| cells(&filled.table, line, rows, time_s))
}

/// How many seeds are in the mean; of more that were submitted, `2/3`.
fn seeds(row: &Row) -> String {
    match (row.seeds.len(), row.submitted) {
        (done, all) if done == all => done.to_string(),
        (done, all) => format!("{done}/{all}"),
    }
}

/// What a reader must know to compare: how to read it, the table's own notes, and what was not counted.
fn notes(filled: &Filled) -> Vec<String> {
    let mut notes =
        vec![format!("{UNMEASURED} was not measured; Δ is the error after the last epoch − the paper's.")];
    notes.extend(filled.table.notes.iter().map(|&note| note.to_owned()));
    notes.extend(filled.near_misses.iter().map(NearMiss::to_string));
    notes
}

impl std::fmt::Display for NearMiss {
    /// `Not counted: 12, 14 (CondenseNet-86 on cifar10): train.epochs 10 (expected 300).`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |texts: Vec<String>| texts.join(", ");
        let ids = join(self.ids.iter().map(u64::to_string).collect());
        let differences = join(self.differences.iter().map(ToString::to_string).collect());
        write!(f, "Not counted: {ids} ({} on {}): {differences}.", self.label, self.dataset)
    }
}

fn provenance_of_all(filled: &Filled, out: &mut String) {
    for (line, rows) in filled.table.lines.iter().zip(&filled.measured) {
        for row in rows.iter().flatten() {
            provenance_lines(&format!("{} on {}", line.label, row.spec.data.dataset), row, out);
        }
    }
}

/// The same columns and notes; the provenance as it is for people.
pub fn markdown(filled: &Filled, provenance: bool) -> String {
    let header: Vec<String> = columns(&filled.table).iter().map(|column| column.0.to_owned()).collect();
    let rule =
        header.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
    let mut out = markdown_line(header) + &markdown_line(rule);
    for cells in lines(filled) {
        out.push_str(&markdown_line(cells.into_iter().map(Cell::into_text).collect()));
    }
    out.push('\n');
    notes(filled).into_iter().for_each(|note| out.push_str(&format!("- {note}\n")));
    if provenance {
        let mut below = String::new();
        provenance_of_all(filled, &mut below);
        out.push_str(&format!("\n```\n{}\n```\n", anstream::adapter::strip_str(below.trim_matches('\n'))));
    }
    out
}
