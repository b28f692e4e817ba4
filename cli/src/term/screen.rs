//! A terminal that is redrawn in place.

use std::io::{IsTerminal, Write};

use crate::failure::Result;
use crate::term::table::cut;

/// The size to draw for, where standard output is a terminal.
pub fn size() -> Option<(usize, usize)> {
    let out = std::io::stdout();
    let size = || terminal_size::terminal_size_of(&out).map(|(w, h)| (usize::from(w.0), usize::from(h.0)));
    out.is_terminal().then(|| size().unwrap_or((80, 24)))
}

/// The width to draw for, where standard output is a terminal.
pub fn width() -> Option<usize> {
    size().map(|(width, _)| width)
}

/// Frames over one another, at the place of the first.
#[derive(Default)]
pub struct Screen {
    drawn: usize,
}

impl Screen {
    /// Draws over the last frame. No line may be wider than the terminal, and there may be no more than its height.
    pub fn draw(&mut self, lines: &[String]) -> Result {
        let mut frame = String::new();
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}F", self.drawn));
        }
        for line in lines {
            // Clearing only the rest of each line does not flicker.
            frame.push_str(line);
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        // Colours go by NO_COLOR, while moving the cursor stays: so not through a stream that strips both.
        let mut out = std::io::stdout().lock();
        let frame = if colours() { frame } else { without_colours(&frame) };
        out.write_all(frame.as_bytes())?;
        out.flush()?;
        self.drawn = lines.len();
        Ok(())
    }
}

fn colours() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Takes out what sets colours (`ESC [ … m`), and nothing else.
fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("\x1b[") {
        let sequence = &rest[start + 2..];
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(sequence.len());
        let after = start + 2 + (end + 1).min(sequence.len());
        out.push_str(if sequence[end..].starts_with('m') { &rest[..start] } else { &rest[..after] });
        rest = &rest[after..];
    }
    out + rest
}

/// A line of plain text, cut to the terminal.
pub fn fitted(text: &str, width: Option<usize>) -> String {
    width.map_or_else(|| text.to_owned(), |width| cut(text, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_out_colours_leaves_the_cursor_alone() {
        assert_eq!(without_colours("\x1b[3Fa\x1b[1;31mb\x1b[0m\x1b[K\n\x1b[J"), "\x1b[3Fab\x1b[K\n\x1b[J");
        assert_eq!(without_colours("plain"), "plain");
        assert_eq!(without_colours("cut \x1b[3"), "cut \x1b[3");
    }
}
