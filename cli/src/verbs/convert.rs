//! `cnx convert`: `cnx-worker convert` does it here, or a worker of the coordinator as a job.

use std::io::Write;
use std::process::Command;

use cnx_proto::architecture::Form;
use cnx_proto::spec::{Engine, Step};
use cnx_proto::v1::{ArtifactKind, ExperimentDetail};

use crate::args::ConvertArgs;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Failure, Result};
use crate::job::{self, Given};
use crate::json;
use crate::programs;
use crate::source::{self, Source, Stored};
use crate::term::escape::printable;
use crate::verbs::evaluate::{SpecFile, carry_out};
use crate::whole_file;

pub async fn run(context: &Context, args: &ConvertArgs) -> Result {
    if args.queue.queue && args.output.is_some() && !args.queue.wait {
        return Err(Failure::usage("-o with --queue needs --wait: the file is there once the job is done"));
    }
    let source = source::find(context, &args.model, args.artifact).await?;
    if args.queue.queue {
        return queued(context, args, &source).await;
    }
    let spec = SpecFile::of(&args.spec)?;
    let mut command = Command::new(programs::worker()?);
    command.arg("convert").arg(source.path()?).args(spec.arguments());
    if let Some(output) = &args.output {
        command.arg("-o").arg(output);
    }
    carry_out(command)
}

async fn queued(context: &Context, args: &ConvertArgs, source: &Source) -> Result {
    let given = Given::of(source, &args.spec)?;
    if given.form == Form::Converted {
        let model = args.model.display();
        return Err(Failure::refused(format!("cannot convert {model}: the model is converted already")));
    }
    let job = given.job(vec![Step::Convert], Engine::Libtorch, None)?;
    let Some(detail) = job::queue(context, job, &args.queue, args.json).await? else { return Ok(()) };
    let converted = converted(detail)?;
    let path = match &args.output {
        Some(output) => {
            whole_file::write(output, &source::read(&converted.path()?)?)?;
            Some(output.clone())
        }
        None => converted.path().ok(),
    };
    if args.json {
        let mut artifact = json::artifact(&converted.artifact);
        artifact["path"] = path.map(|path| path.display().to_string()).into();
        return print_json(&artifact);
    }
    let shown = path
        .map_or_else(|| printable(&converted.artifact.name).into_owned(), |path| path.display().to_string());
    Ok(writeln!(stdout(), "{shown}")?)
}

fn converted(detail: ExperimentDetail) -> Result<Stored> {
    let artifact = detail.artifacts.iter().find(|a| a.kind() == ArtifactKind::ConvertedModel).cloned();
    let artifact =
        artifact.ok_or_else(|| Failure::refused("the job is done, but told of no converted model"))?;
    Ok(Stored { detail, artifact })
}
