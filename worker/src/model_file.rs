//! A model that somebody gives, rather than one that the attempt trains: read, checked, loaded.

use std::fs;
use std::path::Path;

use cnx_proto::spec::Step;
use cnx_proto::v1::Assign;
use cnx_proto::{Spec, job};
use sha2::{Digest, Sha256};
use tch::Device;

use crate::artifacts::Artifacts;
use crate::failure::{Failure, Result};
use crate::hex;
use crate::model::{Form, Network};
use crate::tensor_file::{self, TensorFile};

/// What a file holds, and where it is.
#[derive(Debug)]
pub struct ModelFile {
    place: String,
    file: TensorFile,
}

impl ModelFile {
    /// Reads a file of this machine.
    ///
    /// # Errors
    /// DATA_MISSING when it cannot be read, or is no safetensors file.
    pub fn read(path: &Path) -> Result<ModelFile> {
        ModelFile::decode(path.display().to_string(), &bytes(path)?)
    }

    /// Reads the model that a job is given: a file of this worker, or an artifact. None: the spec gives none.
    ///
    /// # Errors
    /// DATA_MISSING when it cannot be read, or is not the file that was submitted.
    pub fn given(assign: &Assign, spec: &Spec) -> Result<Option<ModelFile>> {
        let (Some(from), Some(expected)) = (&spec.run.from, &spec.run.from_sha256) else { return Ok(None) };
        let (place, bytes) = if job::is_artifact(from) {
            let read = Artifacts::open(&assign.artifacts_url)?.get(from);
            let missing =
                |reason| Failure::data(format!("the model's artifact {from} cannot be used: {reason}"));
            (format!("artifact {from}"), read.map_err(missing)?)
        } else {
            (from.clone(), bytes(Path::new(from)).map_err(on_this_worker)?)
        };
        let found = hex(&Sha256::digest(&bytes));
        if found != *expected {
            return Err(on_this_worker(Failure::data(format!(
                "{place} is not the file that was submitted: its SHA-256 is {found}, expected {expected}; put that \
                 file back, or submit this one"
            ))));
        }
        Ok(Some(ModelFile::decode(place, &bytes)?))
    }

    fn decode(place: String, bytes: &[u8]) -> Result<ModelFile> {
        match tensor_file::decode(bytes) {
            Ok(file) => Ok(ModelFile { place, file }),
            Err(reason) => Err(Failure::data(format!("{place}: {reason}"))),
        }
    }

    /// The JSON of the spec that it carries.
    ///
    /// # Errors
    /// When it carries none.
    pub fn spec_json(&self) -> Result<&str> {
        self.file.spec_json.as_deref().ok_or_else(|| {
            let place = &self.place;
            Failure::bad_spec(format!(
                "{place} carries no spec: give the one it was trained with by --spec FILE"
            ))
        })
    }

    /// What is made of it says this of its model: its own spec where it is of the network that a job says, else what
    /// the job says.
    pub fn spec_of_model(&self, job: &Spec) -> Spec {
        let own = self.file.spec_json.as_deref().and_then(|json| Spec::from_json(json).ok());
        let same = |own: &Spec| own.model == job.model && own.data.dataset == job.data.dataset;
        own.filter(same).unwrap_or_else(|| job.of_model())
    }

    /// The network with its tensors.
    ///
    /// # Errors
    /// When they are not of the spec's network; DIVERGED when one holds what is not a finite number.
    pub fn network(&self, spec: &Spec, device: Device) -> Result<Network> {
        let tensors = &self.file.tensors;
        let mut network = Network::new(spec, Form::of(tensors.keys().map(String::as_str)), device)?;
        let at_place =
            |failure: Failure| Failure { message: format!("{}: {failure}", self.place), ..failure };
        network.load(tensors).map_err(at_place)?;
        Ok(network)
    }

    /// Whether the steps of a job can be taken with a model of this form.
    ///
    /// # Errors
    /// BAD_SPEC when they cannot; says which can.
    pub fn check_steps(&self, form: Form, steps: &[Step]) -> Result<()> {
        let (place, has) = (&self.place, |step| steps.contains(&step));
        match form {
            Form::Converted if has(Step::Evaluate) || has(Step::Convert) => Err(Failure::bad_spec(format!(
                "{place} holds a converted model: of it run.steps can only be [\"evaluate-converted\"]"
            ))),
            Form::Large if has(Step::EvaluateConverted) && !has(Step::Convert) => {
                Err(Failure::bad_spec(format!(
                    "{place} holds a model that is not converted: run.steps needs evaluate instead of \
                     evaluate-converted, or convert before it"
                )))
            }
            _ => Ok(()),
        }
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let show = path.display();
    let unreadable = |error: std::io::Error| Failure::data(format!("cannot read the model {show}: {error}"));
    // Of a pipe or a device there is no end to wait for.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Failure::data(format!("{show} is not a file; expected a model in safetensors")));
    }
    fs::read(path).map_err(unreadable)
}

/// A path means another file on another machine: says which machine this is.
fn on_this_worker(failure: Failure) -> Failure {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let message = format!("{failure} (on the worker's host {host}, which must have the file at this path)");
    Failure { message, ..failure }
}
