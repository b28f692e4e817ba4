//! `cnx evaluate`: `cnx-worker evaluate` does it.

use std::path::PathBuf;
use std::process::Command;

use crate::args::{EvaluateArgs, SpecOf};
use crate::configs;
use crate::failure::{Code, Failure, Result};
use crate::programs;

pub fn run(args: &EvaluateArgs) -> Result {
    let spec = SpecFile::of(&args.spec)?;
    let mut command = Command::new(programs::worker()?);
    command.arg("evaluate").arg(&args.model).args(spec.arguments());
    if let Some(data) = &args.data {
        command.arg("--data").arg(data);
    }
    if let Some(device) = &args.device {
        command.arg("--device").arg(device);
    }
    if args.json {
        command.arg("--json");
    }
    carry_out(command)
}

/// A config as a file of JSON, as cnx-worker takes it; gone when dropped.
pub struct SpecFile(Option<tempfile::NamedTempFile>);

impl SpecFile {
    pub fn of(spec: &SpecOf) -> Result<SpecFile> {
        let Some(config) = &spec.file else { return Ok(SpecFile(None)) };
        let loaded = configs::load(std::slice::from_ref(config), &spec.set)?;
        let specs: Vec<_> = loaded.into_iter().flat_map(|one| one.experiments).collect();
        let [spec] = specs.as_slice() else {
            let (file, n) = (config.display(), specs.len());
            return Err(Failure::usage(format!(
                "{file} is a sweep of {n} experiments; give the config of one"
            )));
        };
        let write = || {
            let file = tempfile::Builder::new().prefix("cnx-spec-").suffix(".json").tempfile()?;
            std::fs::write(file.path(), spec.to_json())?;
            Ok(SpecFile(Some(file)))
        };
        write().map_err(|error: std::io::Error| {
            Failure::refused(format!("cannot write a temporary file: {error}"))
        })
    }

    pub fn arguments(&self) -> Vec<PathBuf> {
        self.0.iter().flat_map(|file| ["--spec".into(), file.path().to_path_buf()]).collect()
    }
}

/// Runs it with our own input and output, and takes over its exit code.
pub fn carry_out(mut command: Command) -> Result {
    let program = PathBuf::from(command.get_program());
    let status = command
        .status()
        .map_err(|error| Failure::refused(format!("{} cannot be started: {error}", program.display())))?;
    match status.code() {
        Some(0) => Ok(()),
        // It has said why itself.
        Some(2) => Err(Failure { code: Code::Usage, message: String::new() }),
        Some(_) => Err(Failure { code: Code::Refused, message: String::new() }),
        None => Err(Failure::refused(format!("{} died: {status}", program.display()))),
    }
}
