//! What every verb is given: where the coordinator is, and how much to say.

use std::fmt::Display;
use std::io::Write;

use cnx_access::TlsArgs;
use cnx_proto::escape::printable;
use cnx_proto::state_dir::StateDir;

use crate::args::Global;
use crate::failure::{Failure, Result};

/// The global flags, read.
pub struct Context {
    state: std::result::Result<StateDir, String>,
    /// The coordinator's URL where one was named.
    pub server: Option<String>,
    /// Whom to trust, and what to show.
    pub tls: TlsArgs,
    quiet: bool,
}

impl Context {
    pub fn new(global: &Global) -> Context {
        Context {
            state: StateDir::locate(global.state.as_deref(), |name| std::env::var_os(name)),
            server: global.server.clone().filter(|url| !url.is_empty()),
            tls: global.tls.clone(),
            quiet: global.quiet,
        }
    }

    /// The state folder.
    pub fn state(&self) -> Result<&StateDir> {
        self.state.as_ref().map_err(|message| Failure::usage(message.clone()))
    }

    /// Whether only data and errors are wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says something to the person, on standard error; not with `--quiet`.
    pub fn talk(&self, text: impl Display) {
        if !self.quiet {
            warn(text);
        }
    }
}

/// Says something to the person, on standard error, whatever was asked. Nobody can be told when that fails.
pub fn warn(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Standard output, without colours where it is not a terminal or NO_COLOR is set.
pub fn stdout() -> anstream::AutoStream<std::io::StdoutLock<'static>> {
    anstream::AutoStream::auto(std::io::stdout().lock())
}

/// Prints a JSON document.
pub fn print_json(value: &serde_json::Value) -> Result {
    let mut out = stdout();
    // JSON escapes the control characters of ASCII only; the rest would steer a terminal as well.
    writeln!(out, "{}", ascii_where_harmful(&format!("{value:#}")))?;
    Ok(())
}

/// The same document, with those characters in JSON's own escapes that a terminal may take for commands. None of them
/// stands outside of strings.
pub fn ascii_where_harmful(json: &str) -> std::borrow::Cow<'_, str> {
    let harmful = |c: char| !c.is_ascii() && printable(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8();
    if !json.contains(harmful) && !json.contains('\x7f') {
        return json.into();
    }
    let escaped = |c: char| match harmful(c) || c == '\x7f' {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    json.chars().map(escaped).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_the_same_text_and_steers_no_terminal() {
        let text = "a\u{9b}2J\u{202e}\x1b[2J\x7f ± \"\\";
        let json = serde_json::json!({ "text": text });
        let printed = ascii_where_harmful(&format!("{json:#}")).into_owned();
        assert_eq!(cnx_proto::escape::printable_lines(&printed), printed);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), json);
    }
}
