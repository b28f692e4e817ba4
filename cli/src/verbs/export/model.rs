//! The model that is exported: read, checked against its spec, and nothing but the tensors of its network.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cnx_formats::check::{Listed, Report, add_missing_counts, check};
use cnx_formats::{Dtype, StateDict, checkpoint};
use cnx_proto::Spec;
use cnx_proto::architecture::{Form, state_dict};
use sha2::{Digest, Sha256};

use super::Format;
use super::card::{Card, File, SourceFile};
use crate::args::SpecOf;
use crate::failure::{Failure, Result};
use crate::job;
use crate::source::{self, Source};

/// What a checkpoint of cnx holds besides the network: momenta, and its record.
const OF_TRAINING: &[&str] = &["cnx.", "optimizer."];

/// A model to export.
pub struct Model {
    /// The file that it was read from, in full.
    pub path: PathBuf,
    pub spec: Spec,
    pub form: Form,
    pub state: StateDict,
    /// Trained numbers of the network; of a learned group convolution, those that its mask leaves.
    pub parameters: u64,
    /// What a person should know of it.
    pub notes: Vec<String>,
    source: SourceFile,
    /// Of the learned group convolutions: the share of the weights that the masks leave.
    density: Option<f64>,
}

impl Model {
    /// Reads a model. The spec is the one that is said, or else the file's own.
    pub fn read(source: &Source, said: &SpecOf) -> Result<Model> {
        let path = match source {
            Source::File(path) => path.clone(),
            Source::Stored(stored) => stored.path_or("and export the file")?,
        };
        let show = path.display().to_string();
        let bytes = source::read(&path)?;
        let found = checkpoint::read(&bytes).map_err(|error| Failure::refused(format!("{show}: {error}")))?;
        let mut state = found.state;
        let mut spec = spec(&show, &state, said)?;
        // Where the data lay is this machine's own affair.
        spec.data.root = None;
        state.spec_json = Some(spec.to_json());
        let mut notes = Vec::new();
        only_the_network(&mut state, &spec, &mut notes);
        add_missing_counts(&mut state, &spec);
        let report = check(&state, &spec);
        if !report.problems.is_empty() {
            let listed = Listed(&report);
            let message = format!("{show} does not hold the network of its spec, {}:{listed}", spec.name);
            return Err(Failure::refused(message));
        }
        let form = report.form;
        let density = density(&state);
        notes.extend(unfinished(&report, density));
        let source = source_file(source, &path, &bytes);
        let parameters = parameters(&state, &spec, form);
        let path = path.canonicalize().unwrap_or(path);
        Ok(Model { path, spec, form, state, parameters, notes, source, density })
    }

    /// What is known of the exported file by itself.
    pub fn card(self: &Model, output: &Path, format: Format, bytes: &[u8]) -> Card {
        let double = self.state.tensors.values().any(|array| array.dtype() == Dtype::F64);
        let stored = if double { "float64" } else { "float32" };
        let rounds = double && format == Format::Onnx;
        let file = File {
            name: file_name(output),
            format,
            form: self.form,
            bytes: bytes.len() as u64,
            sha256: hash(bytes),
            precision: if rounds { "float32" } else { stored },
            rounded_from: rounds.then_some(stored),
            density: self.density,
        };
        Card::new(&self.spec, file, self.source.clone())
    }
}

fn spec(show: &str, state: &StateDict, said: &SpecOf) -> Result<Spec> {
    match (job::spec_of(said)?, &state.spec_json) {
        (Some(said), _) => Ok(said),
        (None, Some(json)) => Ok(job::parsed(json, show)?.of_model()),
        (None, None) => Err(Failure::usage(format!(
            "{show} carries no spec: give the one it was trained with by --spec FILE"
        ))),
    }
}

/// Leaves out what a checkpoint holds for the training to go on.
fn only_the_network(state: &mut StateDict, spec: &Spec, notes: &mut Vec<String>) {
    let form = Form::of(state.tensors.keys().map(String::as_str));
    let network = state_dict(&spec.model, spec.data.dataset, form);
    let names: BTreeSet<&str> = network.iter().map(|info| info.name.as_str()).collect();
    let before = state.tensors.len();
    let of_training = |name: &str| OF_TRAINING.iter().any(|prefix| name.starts_with(prefix));
    state.tensors.retain(|name, _| names.contains(name.as_str()) || !of_training(name));
    let left_out = before - state.tensors.len();
    if left_out > 0 {
        notes.push(format!("a checkpoint: {left_out} tensors that only its training needs are left out"));
    }
}

/// A model whose condensing is not over computes something well defined, but not what it is being trained for.
fn unfinished(report: &Report, density: Option<f64>) -> Option<String> {
    let condensing = report.condensing.filter(|c| c.stage < c.last)?;
    Some(format!(
        "condensing is not over: at stage {} of {}, the masks leave {:.3} of the weights; exported as it computes now",
        condensing.stage, condensing.last, density?
    ))
}

/// None where nothing is masked.
fn density(state: &StateDict) -> Option<f64> {
    let masks = state.tensors.iter().filter(|(name, _)| name.ends_with("._mask"));
    let (mut kept, mut all) = (0.0, 0);
    for (_, mask) in masks {
        kept += mask.to_f64().iter().sum::<f64>();
        all += mask.len();
    }
    (all > 0).then(|| kept / all as f64)
}

fn parameters(state: &StateDict, spec: &Spec, form: Form) -> u64 {
    let network = state_dict(&spec.model, spec.data.dataset, form);
    let trained = network.iter().filter(|info| info.role == cnx_proto::architecture::Role::Parameter);
    let count = |name: &str, shape: &[u64]| {
        let mask =
            name.strip_suffix("conv.weight").and_then(|start| state.tensors.get(&format!("{start}_mask")));
        mask.map_or(shape.iter().product(), |mask| mask.to_f64().iter().sum::<f64>() as u64)
    };
    trained.map(|info| count(&info.name, &info.shape)).sum()
}

fn source_file(source: &Source, path: &Path, bytes: &[u8]) -> SourceFile {
    let (bytes, sha256) = (bytes.len() as u64, hash(bytes));
    match source {
        Source::File(_) => SourceFile { name: file_name(path), kind: None, epoch: None, bytes, sha256 },
        Source::Stored(stored) => SourceFile {
            name: stored.artifact.name.clone(),
            kind: Some(stored.artifact.kind().label()),
            epoch: Some(stored.artifact.epoch),
            bytes,
            sha256,
        },
    }
}

/// Without its folder, which is this machine's own affair.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
