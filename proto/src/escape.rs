//! Text that others wrote (logs, messages, names) must not steer a terminal, nor forge a line of a log.

use std::borrow::Cow;

/// The text with control characters, and those that turn the direction of writing, spelled out: one line.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_harmful)
}

/// Like [`printable`], but tabs stay: for log lines.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_harmful(c) && c != '\t')
}

/// Like [`printable`], but lines stay lines.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_harmful(c) && c != '\n')
}

fn is_harmful(c: char) -> bool {
    // C0, DEL and C1; line and paragraph separators; bidirectional marks, embeddings, overrides and isolates.
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

fn escape(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&harmful) {
        return Cow::Borrowed(text);
    }
    let spelled = |c: char| if harmful(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spelled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_are_spelled_out() {
        assert_eq!(printable("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert_eq!(printable("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(printable("top-1 error 6.31 ± 0.09"), "top-1 error 6.31 ± 0.09");
        assert_eq!(printable_line("a\tb\r"), "a\tb\\r");
        assert_eq!(printable_lines("a\nb\x07"), "a\nb\\u{7}");
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in "\\PC*|(?s).*") {
            prop_assert!(!printable(&text).chars().any(is_harmful));
        }
    }
}
