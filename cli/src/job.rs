//! Jobs: a model that is to be evaluated or converted by a worker, as an experiment in the queue.

use std::path::{Path, PathBuf};

use cnx_formats::safetensors;
use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::spec::{Engine, Step};
use cnx_proto::v1::{ArtifactKind, DescribeRequest, ExperimentDetail, Submitted};
use sha2::{Digest, Sha256};

use crate::args::{QueueArgs, SpecOf};
use crate::client::Client;
use crate::configs;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::source::{self, Source};
use crate::term::escape::printable;
use crate::verbs::status::{self, Display};
use crate::verbs::submit::{self, Batch, Terms};
use crate::view;

/// A model as a job names it, and what is known of it.
pub struct Given {
    /// Of the model.
    pub spec: Spec,
    /// As trained, or converted.
    pub form: Form,
    from: String,
    sha256: String,
}

impl Given {
    /// Of a file the spec is the one it carries, of an artifact that of its experiment; `said` wins over both.
    pub fn of(source: &Source, said: &SpecOf) -> Result<Given> {
        let said = spec_of(said)?;
        match source {
            Source::File(path) => of_file(path, said),
            Source::Stored(stored) => {
                let json = stored.detail.experiment.as_ref().map_or("", |e| &e.spec_json);
                let spec = said.map_or_else(|| parsed(json, &stored.artifact.name), Ok)?;
                let converted = stored.artifact.kind() == ArtifactKind::ConvertedModel;
                Ok(Given {
                    spec,
                    form: if converted { Form::Converted } else { Form::Large },
                    from: stored.artifact.name.clone(),
                    sha256: stored.artifact.sha256.clone(),
                })
            }
        }
    }

    /// The job that takes these steps with it. `engine`: what evaluates it; `data`: where the worker finds the datasets.
    pub fn job(self, steps: Vec<Step>, engine: Engine, data: Option<&Path>) -> Result<Spec> {
        let from = self.from.clone();
        let mut job = self.spec.job(steps, self.from, self.sha256);
        job.run.engine = engine;
        if engine == Engine::Native {
            job.resources.gpus = 0;
        }
        if let Some(data) = data {
            job.data.root = Some(absolute(data)?);
        }
        Spec::from_json(&job.to_json())
            .map_err(|problems| Failure::usage(format!("{from}: {problems}\nnothing was queued")))
    }
}

fn of_file(path: &Path, said: Option<Spec>) -> Result<Given> {
    let show = path.display().to_string();
    let bytes = source::read(path)?;
    let state = safetensors::read(&bytes).map_err(|reason| Failure::refused(format!("{show}: {reason}")))?;
    let spec = match (said, &state.spec_json) {
        (Some(said), _) => said,
        (None, Some(json)) => parsed(json, &show)?,
        (None, None) => {
            return Err(Failure::usage(format!(
                "{show} carries no spec: give the one it was trained with by --spec FILE"
            )));
        }
    };
    let from = absolute(path)?.to_str().map(str::to_owned);
    let from = from.ok_or_else(|| Failure::usage(format!("{show}: a queued model's path must be UTF-8")))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let form = Form::of(state.tensors.keys().map(String::as_str));
    Ok(Given { spec, form, from, sha256 })
}

/// A spec that came with a model.
pub fn parsed(json: &str, of: &str) -> Result<Spec> {
    Spec::from_json(json).map_err(|problems| Failure::refused(format!("the spec of {of}: {problems}")))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::refused(format!("{} has no absolute path: {error}", path.display())))
}

/// The one experiment of the config that was given.
pub fn spec_of(said: &SpecOf) -> Result<Option<Spec>> {
    let Some(config) = &said.file else { return Ok(None) };
    let loaded = configs::load(std::slice::from_ref(config), &said.set)?;
    let mut specs: Vec<Spec> = loaded.into_iter().flat_map(|one| one.experiments).collect();
    match (specs.pop(), specs.len()) {
        (Some(spec), 0) => Ok(Some(spec)),
        (_, others) => Err(Failure::usage(format!(
            "{} is a sweep of {} experiments; give the config of one",
            config.display(),
            others + 1
        ))),
    }
}

/// Queues a job. With `--wait`: all that is known of it once it is done.
pub async fn queue(
    context: &Context,
    job: Spec,
    args: &QueueArgs,
    json: bool,
) -> Result<Option<ExperimentDetail>> {
    let mut client = Client::connect(context).await?;
    let mut batches = [Batch::new(None, vec![job])];
    let terms = Terms { force: args.force, ..Terms::default() };
    submit::offer(&mut client, &terms, &mut batches).await?;
    if !args.wait {
        submit::show(context, &batches, false, json)?;
        return Ok(None);
    }
    let [batch] = &batches;
    batch.submitted().for_each(|one| context.talk(queued(one)));
    let ids: Vec<String> = batch.submitted().map(|one| one.id.to_string()).collect();
    let display = (!json && !context.is_quiet()).then(Display::beside_data);
    status::wait(context, &ids, display).await?;
    let request = DescribeRequest { selector: ids.first().cloned().unwrap_or_default() };
    let detail = client.rpc.describe(request).await.map_err(|status| client.failure(&status))?;
    Ok(Some(detail.into_inner()))
}

fn queued(one: &Submitted) -> String {
    match one.existing {
        true => {
            format!(
                "{} is there already as {} ({}); --force does it again",
                printable(&one.name),
                one.id,
                view::word(one.state())
            )
        }
        false => format!("queued {} as {}", printable(&one.name), one.id),
    }
}
