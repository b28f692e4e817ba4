//! A model that a person names: a file, or an experiment whose artifact it is.

use std::fs;
use std::path::{Path, PathBuf};

use cnx_proto::Spec;
use cnx_proto::job::is_artifact_name;
use cnx_proto::v1::{Artifact, ArtifactKind, DescribeRequest, ExperimentDetail, State};
use cnx_proto::validate::is_name;
use sha2::{Digest, Sha256};
use url::Url;

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// Endings that no experiment's name is taken to have: who types one means a file.
const ENDINGS: &[&str] = &[".safetensors", ".pth", ".pt", ".tar", ".bin", ".onnx"];

/// Which model of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// After the last epoch
    Final,
    /// Of the best epoch
    Best,
    /// The final one, converted to group convolutions
    Converted,
}

impl Which {
    /// Which one an artifact is; none: a checkpoint.
    pub fn of(artifact: &Artifact) -> Option<Which> {
        [Which::Final, Which::Best, Which::Converted]
            .into_iter()
            .find(|which| which.kind() == artifact.kind())
    }

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Which::Final => "final",
            Which::Best => "best",
            Which::Converted => "converted",
        }
    }

    fn kind(self) -> ArtifactKind {
        match self {
            Which::Final => ArtifactKind::FinalModel,
            Which::Best => ArtifactKind::BestModel,
            Which::Converted => ArtifactKind::ConvertedModel,
        }
    }
}

/// Where a model is.
pub enum Source {
    /// In a file of this machine.
    File(PathBuf),
    /// With the artifacts of an experiment.
    Stored(Box<Stored>),
}

/// An artifact, and all that is known of its experiment.
pub struct Stored {
    pub detail: ExperimentDetail,
    pub artifact: Artifact,
}

/// Finds a model by the path of its file, or by the ID or name of its experiment. What is there as a file is the file.
/// Unless said otherwise an experiment's model is its final one, or, where that is all there is, its converted one.
pub async fn find(context: &Context, model: &Path, which: Option<Which>) -> Result<Source> {
    let show = model.display();
    match selector(model).filter(|_| !model.exists()) {
        Some(selector) => Ok(Source::Stored(Box::new(stored(context, selector, which).await?))),
        None if which.is_some() => {
            Err(Failure::usage(format!("--artifact chooses a model of an experiment, but {show} is a file")))
        }
        None => Ok(Source::File(model.to_path_buf())),
    }
}

/// The text, if it can mean an experiment.
fn selector(model: &Path) -> Option<&str> {
    let text = model.to_str()?;
    let is_id = text == "last" || (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()));
    let is_file = ENDINGS.iter().any(|ending| text.ends_with(ending)) || text.starts_with('.');
    (is_id || (!text.is_empty() && is_name(text) && !is_file)).then_some(text)
}

async fn stored(context: &Context, selector: &str, which: Option<Which>) -> Result<Stored> {
    let no_file =
        |f: Failure| Failure { message: format!("there is no file {selector} here, and {}", f.message), ..f };
    let mut client = Client::connect(context).await.map_err(no_file)?;
    let request = DescribeRequest { selector: selector.to_owned() };
    let detail = match client.rpc.describe(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => {
            return Err(no_file(client.failure(&status)));
        }
        Err(status) => return Err(client.failure(&status)),
    };
    let artifact = choose(&detail, which)?.clone();
    Ok(Stored { detail, artifact })
}

fn choose(detail: &ExperimentDetail, which: Option<Which>) -> Result<&Artifact> {
    let wanted = which.map_or(vec![Which::Final, Which::Converted], |one| vec![one]);
    let of_kind = |which: &Which| detail.artifacts.iter().rev().find(|a| a.kind() == which.kind());
    wanted.iter().find_map(of_kind).ok_or_else(|| none_of_them(detail, which.unwrap_or(Which::Final)))
}

fn none_of_them(detail: &ExperimentDetail, which: Which) -> Failure {
    let (id, state) = detail.experiment.as_ref().map_or((0, State::Unspecified), |e| (e.id, e.state()));
    let there: Vec<String> =
        detail.artifacts.iter().map(|a| format!("{} (epoch {})", a.kind(), a.epoch)).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    let mut message = format!("experiment {id} ({state}) has no {}; its artifacts: {there}", which.kind());
    if !state.is_final() {
        message.push_str(&format!("\nit is not finished: `cnx status {id} --watch` follows it"));
    }
    for other in [Which::Final, Which::Best, Which::Converted] {
        if detail.artifacts.iter().any(|a| a.kind() == other.kind()) {
            message.push_str(&format!("\n--artifact {} takes the one that is there", other.as_str()));
        }
    }
    Failure::refused(message)
}

impl Source {
    /// A path that can be read here.
    pub fn path(&self) -> Result<PathBuf> {
        match self {
            Source::File(path) => Ok(path.clone()),
            Source::Stored(stored) => stored.path(),
        }
    }
}

impl Stored {
    /// The spec of its experiment.
    pub fn spec(&self) -> Result<Spec> {
        let json = self.detail.experiment.as_ref().map_or("", |e| &e.spec_json);
        Spec::from_json(json)
            .map_err(|problems| Failure::refused(format!("the spec of {}: {problems}", self.artifact.name)))
    }

    /// Another artifact of the same experiment.
    pub fn choose(self, which: Which) -> Result<Stored> {
        let artifact = choose(&self.detail, Some(which))?.clone();
        Ok(Stored { artifact, ..self })
    }

    /// The artifact's file on this machine, checked against its hash.
    pub fn path(&self) -> Result<PathBuf> {
        self.path_or("or let a worker do this (--queue)")
    }

    /// The same; what helps where it is not on this machine, besides copying it from there, is `otherwise`.
    pub fn path_or(&self, otherwise: &str) -> Result<PathBuf> {
        let (name, url) = (&self.artifact.name, &self.detail.artifacts_url);
        if !is_artifact_name(name) {
            return Err(Failure::refused(format!(
                "the coordinator names an artifact {name:?}, which none is called"
            )));
        }
        let folder =
            Url::parse(url).ok().filter(|url| url.scheme() == "file").and_then(|u| u.to_file_path().ok());
        let Some(folder) = folder else {
            return Err(Failure::refused(format!(
                "{name} is kept in {url}, not in a folder of this machine: copy it from there, {otherwise}"
            )));
        };
        let path = folder.join(name);
        let found = sha256(&path).map_err(|failure| Failure {
            message: format!(
                "{}: it is on the coordinator's machine, or gone; copy it from there, {otherwise}",
                failure.message
            ),
            ..failure
        })?;
        if found != self.artifact.sha256 {
            let (path, expected) = (path.display(), &self.artifact.sha256);
            return Err(Failure::refused(format!(
                "{path} is damaged: its SHA-256 is {found}, expected {expected}"
            )));
        }
        Ok(path)
    }
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    Ok(Sha256::digest(read(path)?).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| Failure {
        code: Code::Refused,
        message: format!("cannot read the model {}: {error}", path.display()),
    };
    // Of a pipe or a device there is no end to wait for.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Failure::refused(format!("{} is not a file; expected a model", path.display())));
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_as_a_file_is_not_asked_for() {
        for file in ["m.safetensors", "a/b", "/12", "./12", "model.pth.tar", "", "a b"] {
            assert_eq!(selector(Path::new(file)), None, "{file}");
        }
        for experiment in ["12", "last", "condensenet-86", "v1.5"] {
            assert_eq!(selector(Path::new(experiment)), Some(experiment));
        }
    }

    #[test]
    fn an_experiment_gives_its_final_model_or_the_one_that_is_named() {
        let artifact = |kind: ArtifactKind| Artifact { kind: kind.into(), ..Artifact::default() };
        let mut detail = ExperimentDetail {
            artifacts: [ArtifactKind::Checkpoint, ArtifactKind::FinalModel, ArtifactKind::ConvertedModel]
                .map(artifact)
                .into(),
            ..ExperimentDetail::default()
        };
        assert_eq!(choose(&detail, None).unwrap().kind(), ArtifactKind::FinalModel);
        assert_eq!(choose(&detail, Some(Which::Converted)).unwrap().kind(), ArtifactKind::ConvertedModel);
        let missing = choose(&detail, Some(Which::Best)).unwrap_err().message;
        assert!(
            missing.contains("no best-model")
                && missing.contains("checkpoint (epoch 0), final-model (epoch 0)"),
            "{missing}"
        );
        detail.artifacts.remove(1);
        assert_eq!(
            choose(&detail, None).unwrap().kind(),
            ArtifactKind::ConvertedModel,
            "of a conversion job"
        );
    }
}
