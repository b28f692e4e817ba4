//! `cnx completions`.

use std::io::Write;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::context::stdout;
use crate::failure::Result;

pub fn run(args: &CompletionsArgs) -> Result {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cnx", &mut script);
    Ok(stdout().write_all(&script)?)
}
