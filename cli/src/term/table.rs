//! Aligned columns. On a terminal a table that is too wide first loses its dispensable columns, then the ends of its
//! longest texts.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::term::escape::printable;
use crate::term::style::{self, PLAIN};

/// Where a column's texts stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}
pub use Align::{Left, Right};

/// A column: header, alignment, and when it goes: 0 never, of the others the highest first.
#[derive(Debug, Clone, Copy)]
pub struct Column(pub &'static str, pub Align, pub u8);

/// A text and its look.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn new(text: impl Into<String>, style: Style) -> Cell {
        // Whoever wrote it: what stands in a table cannot steer the terminal.
        Cell { text: printable(&text.into()).into_owned(), style }
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text, PLAIN)
    }
}

/// Rows below a header.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// Narrower than this no column is cut.
const NARROWEST: usize = 8;
const GAP: usize = 2;

impl Table {
    pub fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell a column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines, header first, each below `max_width` columns wide where that is given. Columns in which no row
    /// has anything are left out.
    pub fn lines(&self, max_width: Option<usize>) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.columns.len())
            .filter(|&c| self.rows.is_empty() || self.rows.iter().any(|row| !row[c].text.is_empty()))
            .collect();
        let natural = |c: usize| {
            let header = self.columns[c].0.width();
            self.rows.iter().map(|row| row[c].text.width()).fold(header, usize::max)
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        if let Some(max) = max_width {
            while total(&shown, &widths) > max {
                let dispensable = shown.iter().copied().filter(|&c| self.columns[c].2 > 0);
                match dispensable.max_by_key(|&c| self.columns[c].2) {
                    Some(c) => shown.retain(|&s| s != c),
                    None => break,
                }
            }
            while total(&shown, &widths) > max {
                match shown.iter().copied().max_by_key(|&c| widths[c]) {
                    Some(c) if widths[c] > NARROWEST => widths[c] -= 1,
                    _ => break,
                }
            }
        }
        let header = self.columns.iter().map(|c| Cell::new(c.0, style::DIM)).collect();
        let all = std::iter::once(&header).chain(&self.rows);
        all.map(|cells: &Vec<Cell>| self.line(cells, &shown, &widths)).collect()
    }

    fn line(&self, cells: &[Cell], shown: &[usize], widths: &[usize]) -> String {
        let mut line = String::new();
        let mut owed = 0; // spaces before the next text; never written at a line's end
        for (i, &c) in shown.iter().enumerate() {
            let text = cut(&cells[c].text, widths[c]);
            let pad = widths[c] - text.width();
            let (before, after) = if self.columns[c].1 == Right { (pad, 0) } else { (0, pad) };
            owed += before + if i > 0 { GAP } else { 0 };
            if !text.is_empty() {
                line.push_str(&" ".repeat(std::mem::take(&mut owed)));
                line.push_str(&style::paint(cells[c].style, &text));
            }
            owed += after;
        }
        line
    }
}

fn total(shown: &[usize], widths: &[usize]) -> usize {
    shown.iter().map(|&c| widths[c]).sum::<usize>() + GAP * shown.len().saturating_sub(1)
}

/// The text, or its start and an ellipsis, at most `width` columns wide.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// The text in lines at most `width` columns wide, where it has spaces to break it at.
pub fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width.is_none_or(|width| line.width() + 1 + word.width() <= width) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect()
    }

    fn example() -> Table {
        let mut table = Table::new(&[
            Column("ID", Right, 0),
            Column("EXPERIMENT", Left, 0),
            Column("NEVER", Left, 0),
            Column("SPEED", Right, 1),
            Column("ATTEMPT", Left, 2),
        ]);
        table.row(vec!["1".into(), "condensenet-50".into(), "".into(), "8,140 img/s".into(), "1".into()]);
        table.row(vec!["12".into(), "a".into(), "".into(), "".into(), "2, resumed at 180".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        assert_eq!(
            plain(&example().lines(None)),
            [
                "ID  EXPERIMENT            SPEED  ATTEMPT",
                " 1  condensenet-50  8,140 img/s  1",
                "12  a                            2, resumed at 180",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_loses_the_dispensable_then_cuts() {
        assert_eq!(plain(&example().lines(Some(40)))[1], " 1  condensenet-50  8,140 img/s");
        assert_eq!(plain(&example().lines(Some(14)))[1], " 1  condensen…");
    }

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("a sentence of words", Some(10)), ["a sentence", "of words"]);
        assert_eq!(wrap("unbreakable  words", Some(4)), ["unbreakable", "", "words"]);
        assert_eq!(wrap("a sentence of words", None), ["a sentence of words"]);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(texts in proptest::collection::vec("\\PC{0,40}", 3), max in 30usize..120) {
            let mut table = Table::new(&[Column("A", Left, 0), Column("B", Right, 0), Column("C", Left, 1)]);
            table.row(texts.into_iter().map(Cell::from).collect());
            for line in plain(&table.lines(Some(max))) {
                prop_assert!(line.width() <= max, "{line:?}");
            }
        }
    }
}
