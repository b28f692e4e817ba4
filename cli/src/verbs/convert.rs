//! `cnx convert`: `cnx-worker convert` does it.

use std::process::Command;

use crate::args::ConvertArgs;
use crate::failure::Result;
use crate::programs;
use crate::verbs::evaluate::{SpecFile, carry_out};

pub fn run(args: &ConvertArgs) -> Result {
    let spec = SpecFile::of(&args.spec)?;
    let mut command = Command::new(programs::worker()?);
    command.arg("convert").arg(&args.model).args(spec.arguments()).arg("-o").arg(&args.output);
    carry_out(command)
}
