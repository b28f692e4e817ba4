//! A curve in the terminal, drawn in Braille dots: two columns and four rows a character.

use crate::term::format;

/// Draws `points` (x, y; x ascending) into `width` × `height` characters with a scale at the left, and a dotted line at `mark`.
/// Nothing for fewer than two points.
pub fn plot(points: &[(f64, f64)], mark: Option<f64>, width: usize, height: usize) -> Vec<String> {
    let points: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() < 2 || width == 0 || height == 0 {
        return Vec::new();
    }
    let ys = || points.iter().map(|&(_, y)| y).chain(mark.filter(|m| m.is_finite()));
    let (low, high) = (ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };

    let mut canvas = Canvas::new(width, height);
    let column = |x: f64| scale(x, first.0, last.0, canvas.columns());
    let row = |y: f64| canvas.rows() - 1 - scale(y, low, high, canvas.rows());
    let dots: Vec<(usize, usize)> = points.iter().map(|&(x, y)| (column(x), row(y))).collect();
    let mark_row = mark.filter(|m| m.is_finite()).map(row);
    for pair in dots.windows(2) {
        canvas.line(pair[0], pair[1]);
    }
    if let Some(row) = mark_row {
        (0..canvas.columns()).step_by(4).for_each(|column| canvas.set(column, row));
    }

    let labels = [format::error(high), format::error(low)];
    let label_width = labels.iter().map(String::len).max().unwrap_or(0);
    let label = |line: usize| match line {
        0 => labels[0].as_str(),
        l if l + 1 == height => labels[1].as_str(),
        _ => "",
    };
    let mut lines: Vec<String> = (canvas.lines().iter().enumerate())
        .map(|(i, dots)| format!("{:>label_width$} ┤{dots}", label(i)).trim_end().to_owned())
        .collect();
    let (from, to) = (first.0.to_string(), last.0.to_string());
    let between = width.saturating_sub(from.len() + to.len());
    lines.push(format!("{:label_width$}  {from}{}{to}", "", " ".repeat(between)));
    lines
}

/// Which of `steps` a value between `low` and `high` falls on.
fn scale(value: f64, low: f64, high: f64, steps: usize) -> usize {
    let share = if high > low { (value - low) / (high - low) } else { 0.0 };
    ((share * (steps - 1) as f64).round() as usize).min(steps - 1)
}

struct Canvas {
    width: usize,
    cells: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Canvas {
        Canvas { width, cells: vec![0; width * height] }
    }

    fn columns(&self) -> usize {
        self.width * 2
    }

    fn rows(&self) -> usize {
        self.cells.len() / self.width * 4
    }

    fn set(&mut self, column: usize, row: usize) {
        // Bits of U+2800 … U+28FF: dots 1 2 3 7 down the left, 4 5 6 8 down the right.
        const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        self.cells[row / 4 * self.width + column / 2] |= DOTS[column % 2][row % 4];
    }

    fn line(&mut self, (x0, y0): (usize, usize), (x1, y1): (usize, usize)) {
        let steps = x1.abs_diff(x0).max(y1.abs_diff(y0)).max(1);
        for step in 0..=steps {
            let between = |a: usize, b: usize| {
                let share = step as f64 / steps as f64;
                (a as f64 + (b as f64 - a as f64) * share).round() as usize
            };
            self.set(between(x0, x1), between(y0, y1));
        }
    }

    fn lines(&self) -> Vec<String> {
        let dots = |&cell: &u8| match cell {
            0 => ' ',
            bits => char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' '),
        };
        self.cells.chunks(self.width).map(|row| row.iter().map(dots).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_curve_falls() {
        let points: Vec<(f64, f64)> = (1..=8).map(|e| (f64::from(e), 90.0 - 10.0 * f64::from(e))).collect();
        assert_eq!(plot(&points, None, 8, 2), ["80.00 ┤⠑⠢⢄⣀", "10.00 ┤    ⠉⠒⠤⣀", "       1      8"],);
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        assert!(plot(&[], None, 8, 2).is_empty());
        assert!(plot(&[(1.0, 2.0)], None, 8, 2).is_empty());
        assert!(plot(&[(1.0, f64::NAN), (2.0, 1.0)], None, 8, 2).is_empty());
        assert_eq!(plot(&[(1.0, 5.0), (2.0, 5.0)], Some(5.0), 4, 1).len(), 2);
    }
}
