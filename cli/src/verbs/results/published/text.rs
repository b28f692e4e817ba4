//! A published table for people, and in Markdown: the paper's columns, each error beside the published one.

use super::matching::{Filled, NearMiss};
use super::tables::Line;
use crate::term::format::{error, flops, params};
use crate::term::style::{BOLD, DIM, paint};
use crate::term::table::{self, Cell, Left, Right, Table};
use crate::verbs::results::rows::Row;
use crate::verbs::results::table::{markdown_line, mean, measured, provenance_lines};

/// Stands where nothing was measured.
const UNMEASURED: &str = "–";

/// With title, notes and what was not counted.
pub fn people(filled: &Filled, provenance: bool, width: Option<usize>) -> String {
    let mut out = paint(BOLD, filled.table.title);
    out.push_str("   (mean ± deviation over seeds)\n\n");
    for line in table(filled).lines(width.map(|w| w.saturating_sub(2))) {
        out.push_str(&format!("  {line}\n"));
    }
    out.push('\n');
    for note in notes(filled) {
        out.push_str(&format!("  {}\n", paint(DIM, &note)));
    }
    if provenance {
        provenance_of_all(filled, &mut out);
    }
    out
}

/// On a narrow terminal the converted errors go first, then the costs.
fn table(filled: &Filled) -> Table {
    let mut columns = vec![
        table::Column("Model", Left, 0),
        table::Column("FLOPs", Right, 2),
        table::Column("Params", Right, 3),
    ];
    for column in filled.table.columns {
        columns.extend([
            table::Column(column.header, Left, 0),
            table::Column("published", Right, 0),
            table::Column("Δ", Right, 0),
            table::Column("converted", Left, 4),
        ]);
    }
    let mut table = Table::new(&columns);
    for (line, measured) in filled.table.lines.iter().zip(&filled.measured) {
        table.row(cells(filled, line, measured));
    }
    table
}

fn cells(filled: &Filled, line: &Line, rows: &[Option<Row>]) -> Vec<Cell> {
    let (multiply_adds, parameters) = line.cost();
    let mut cells: Vec<Cell> =
        vec![line.label.into(), flops(multiply_adds).into(), params(parameters).into()];
    for column in filled.table.columns {
        let row = rows.get(column.place).and_then(Option::as_ref);
        let shown = row.map(|r| measured(r, column.measured(r))).filter(|cell| !cell.is_empty());
        cells.extend([
            shown.unwrap_or_else(|| Cell::new(UNMEASURED, DIM)),
            Cell::new(column.published(line).map(error).unwrap_or_default(), DIM),
            column.delta(line, row).map(signed).unwrap_or_default().into(),
            mean(row.and_then(|r| column.converted(r))).into(),
        ]);
    }
    cells
}

/// `+0.09`; a difference that rounds to nothing has no sign.
fn signed(delta: f64) -> String {
    let text = format!("{delta:+.2}");
    if text.ends_with("0.00") { "0.00".to_owned() } else { text }
}

/// What a reader must know to compare: how to read it, the table's own notes, and what was not counted.
fn notes(filled: &Filled) -> Vec<String> {
    let mut notes =
        vec![format!("{UNMEASURED} was not measured; Δ is the error after the last epoch − published.")];
    notes.extend(filled.table.notes.iter().map(|&note| note.to_owned()));
    notes.extend(filled.near_misses.iter().map(NearMiss::to_string));
    notes
}

impl std::fmt::Display for NearMiss {
    /// `Not counted: 12, 14 (CondenseNet-86 on cifar10): train.epochs 10 (published 300).`
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
    let mut header = vec!["Model", "FLOPs", "Params"];
    for column in filled.table.columns {
        header.extend([column.header, "published", "Δ", "converted"]);
    }
    let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    let rule =
        header.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
    let mut out = markdown_line(header) + &markdown_line(rule);
    for (line, rows) in filled.table.lines.iter().zip(&filled.measured) {
        out.push_str(&markdown_line(cells(filled, line, rows).into_iter().map(Cell::into_text).collect()));
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
