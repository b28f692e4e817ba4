//! `cnx evaluate`: `cnx-worker evaluate` does it here, or a worker of the coordinator as a job.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use cnx_proto::architecture::Form;
use cnx_proto::job::Evaluation;
use cnx_proto::spec::Step;

use crate::args::{EvaluateArgs, SpecOf};
use crate::context::{Context, stdout};
use crate::failure::{Code, Failure, Result};
use crate::job::{self, Given};
use crate::programs;
use crate::source::{self, Source};

pub async fn run(context: &Context, args: &EvaluateArgs) -> Result {
    let source = source::find(context, &args.model, args.artifact).await?;
    if args.queue.queue {
        return queued(context, args, &source).await;
    }
    let spec = SpecFile::of(&args.spec)?;
    let mut command = Command::new(programs::worker()?);
    command.arg("evaluate").arg(source.path()?).args(spec.arguments());
    if let Some(data) = &args.data {
        command.arg("--data").arg(data);
    }
    if let Some(device) = &args.device {
        command.arg("--device").arg(device);
    }
    if let Some(engine) = args.engine {
        command.arg("--engine").arg(engine.as_str());
    }
    if args.json {
        command.arg("--json");
    }
    carry_out(command)
}

async fn queued(context: &Context, args: &EvaluateArgs, source: &Source) -> Result {
    let given = Given::of(source, &args.spec)?;
    let form = given.form;
    let step = if form == Form::Converted { Step::EvaluateConverted } else { Step::Evaluate };
    let engine = args.engine.unwrap_or_default();
    let job = given.job(vec![step], engine, args.data.as_deref())?;
    let Some(detail) = job::queue(context, job, &args.queue, args.json).await? else { return Ok(()) };
    let figures = detail.figures.unwrap_or_default();
    let errors = if form == Form::Converted { figures.converted } else { figures.r#final };
    let errors = errors.ok_or_else(|| Failure::refused("the job is done, but told no figures"))?;
    let evaluation = Evaluation { errors, form };
    // As the worker prints it in place.
    match args.json {
        true => writeln!(stdout(), "{}", evaluation.to_json())?,
        false => writeln!(stdout(), "{evaluation}")?,
    }
    Ok(())
}

/// A config as a file of JSON, as cnx-worker takes it; gone when dropped.
pub struct SpecFile(Option<tempfile::NamedTempFile>);

impl SpecFile {
    pub fn of(said: &SpecOf) -> Result<SpecFile> {
        let Some(spec) = job::spec_of(said)? else { return Ok(SpecFile(None)) };
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
