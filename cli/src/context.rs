//! What every verb is given: where the coordinator is, and how much to say.

use std::fmt::Display;
use std::io::Write;

use cnx_proto::state_dir::StateDir;

use crate::args::Global;
use crate::failure::{Failure, Result};

/// The global flags, read.
pub struct Context {
    state: std::result::Result<StateDir, String>,
    /// The coordinator's URL where one was named.
    pub server: Option<String>,
    quiet: bool,
}

impl Context {
    pub fn new(global: &Global) -> Context {
        Context {
            state: StateDir::locate(global.state.as_deref(), |name| std::env::var_os(name)),
            server: global.server.clone().filter(|url| !url.is_empty()),
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
    writeln!(out, "{value:#}")?;
    Ok(())
}
