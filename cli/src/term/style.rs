//! The few colours. [`anstream`] takes them out where they do not belong.

use anstyle::{AnsiColor, Style};

pub const PLAIN: Style = Style::new();
pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const BUSY: Style = AnsiColor::Cyan.on_default();
pub const DOUBT: Style = AnsiColor::Yellow.on_default();

/// Text in a style.
pub fn paint(style: Style, text: &str) -> String {
    if style == PLAIN { text.to_owned() } else { format!("{style}{text}{style:#}") }
}
