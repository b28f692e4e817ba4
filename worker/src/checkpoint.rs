//! Checkpoints and models: what is saved, under which names, and where a new attempt goes on from.
//!
//! Below the artifacts' root, in `experiments/<id>/`: `checkpoint-<epochs done>-a<attempt>.safetensors`, of the middle of an epoch
//! `checkpoint-<epochs done>-s<steps of the next>-a<attempt>.safetensors` (of both kinds together the last two, in the order of
//! their names); `best-a<attempt>.safetensors`, `final-a<attempt>.safetensors`, `converted-a<attempt>.safetensors`.

use std::collections::BTreeMap;

use cnx_formats::{Array, Dtype, StateDict, safetensors};
use cnx_proto::Spec;
use cnx_proto::v1::{Artifact, ArtifactKind, Assign};
use prost::Message;
use tch::Tensor;

use crate::artifacts::Artifacts;
use crate::failure::{Failure, Result};
use crate::model::Network;
use crate::optimizer::Sgd;
use crate::record::{Position, Record};
use crate::tensor_file::{self, TensorFile};

/// Checkpoints kept of an experiment: if the newest turns out damaged, the one before it is used.
const KEPT: usize = 2;

/// The tensor that holds the [`Record`] in a checkpoint.
const RECORD: &str = "cnx.record";

/// A training between two steps, copied to the host: nothing of it changes any more.
#[derive(Debug)]
pub struct Snapshot {
    network: BTreeMap<String, Array>,
    momentum: BTreeMap<String, Array>,
    record: Record,
    is_best: bool,
}

impl Snapshot {
    /// Copies a training. `is_best`: its network is the best so far, and is kept as a model too.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn take(network: &Network, optimizer: &Sgd, record: Record, is_best: bool) -> Result<Snapshot> {
        let network = tensors_of(network)?;
        let momentum = tensor_file::to_host(&optimizer.snapshot()?)?;
        Ok(Snapshot { network, momentum, record, is_best })
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.record.position()
    }
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its artifact name.
    pub name: String,
    /// What it knows besides tensors.
    pub record: Record,
    /// Parameters, buffers and momenta.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Keeps the files of one attempt.
#[derive(Debug)]
pub struct Keeper {
    artifacts: Artifacts,
    experiment: u64,
    attempt: u32,
    lineage: Vec<u64>,
    spec: Spec,
}

impl Keeper {
    /// Of the attempt that is assigned.
    ///
    /// # Errors
    /// When the place of the artifacts cannot be reached.
    pub fn open(assign: &Assign, spec: &Spec) -> Result<Keeper> {
        let lease = assign.lease.clone().unwrap_or_default();
        let artifacts = Artifacts::open(&assign.artifacts_url)?;
        artifacts.clear_unfinished(&folder(lease.experiment), lease.attempt)?;
        let mut lineage = assign.lineage.clone();
        if !lineage.contains(&lease.experiment) {
            lineage.insert(0, lease.experiment);
        }
        let (experiment, attempt) = (lease.experiment, lease.attempt);
        Ok(Keeper { artifacts, experiment, attempt, lineage, spec: spec.clone() })
    }

    /// The spec of the attempt.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The newest usable checkpoint: of each experiment of the lineage in turn, the one that came furthest first. What is damaged,
    /// or of another spec, is passed over, and `log` hears why.
    ///
    /// # Errors
    /// When the artifacts cannot be listed.
    pub fn newest_checkpoint(&self, log: &mut dyn FnMut(String)) -> Result<Option<Checkpoint>> {
        for &experiment in &self.lineage {
            let mut names = self.checkpoints(experiment)?;
            while let Some(Name { name, .. }) = names.pop() {
                match self.read(&name) {
                    Ok(checkpoint) => return Ok(Some(checkpoint)),
                    Err(reason) => {
                        log(format!("checkpoint {name} is not used: {reason}; trying the one before it"))
                    }
                }
            }
        }
        Ok(None)
    }

    fn read(&self, name: &str) -> Result<Checkpoint, String> {
        let TensorFile { spec_json, mut tensors } = tensor_file::decode(&self.artifacts.get(name)?)?;
        let spec = Spec::from_json(&spec_json.ok_or("it carries no spec")?)?;
        if spec.hash() != self.spec.hash() {
            return Err("it is of another spec".to_owned());
        }
        let record = tensors.remove(RECORD).ok_or("it is a model, not a checkpoint")?;
        let mut bytes = vec![0; record.numel()];
        let count = bytes.len();
        record.f_copy_data_u8(&mut bytes, count).map_err(|e| e.to_string())?;
        let record = Record::decode(bytes.as_slice()).map_err(|e| format!("its record is damaged: {e}"))?;
        Ok(Checkpoint { name: name.to_owned(), record, tensors })
    }

    /// Saves a snapshot as a checkpoint, and deletes those that it makes superfluous; before that its network as the best
    /// model, if it is, so that a record never names a best model that is not there.
    ///
    /// # Errors
    /// DISK_FULL, or what went wrong.
    pub fn save(&self, snapshot: Snapshot) -> Result<Vec<Artifact>> {
        let Snapshot { network, momentum, record, is_best } = snapshot;
        let epoch = record.epochs_done;
        let mut saved = Vec::new();
        let mut state = StateDict { tensors: network, spec_json: Some(self.spec.to_json()) };
        if is_best {
            saved.push(self.replace(ArtifactKind::BestModel, "best", &state, epoch)?);
        }
        let position = record.position();
        let name = name_of(self.experiment, position, self.attempt);
        let record = record.encode_to_vec();
        let record = Array::new(Dtype::U8, vec![record.len()], record).map_err(Failure::internal)?;
        state.tensors.extend(momentum);
        state.tensors.insert(RECORD.to_owned(), record);
        let mut artifact = self.put(ArtifactKind::Checkpoint, name, &state, epoch)?;

        let mut old = self.checkpoints(self.experiment)?;
        // What is further was of no use when this attempt started: it does not count.
        old.retain(|old| old.position <= position);
        old.truncate(old.len().saturating_sub(KEPT));
        // What a later attempt wrote is not ours to delete: we may have been overtaken without knowing.
        old.retain(|old| old.attempt <= self.attempt);
        artifact.deleted = old.into_iter().map(|old| old.name).collect();
        self.artifacts.delete(&artifact.deleted)?;
        saved.push(artifact);
        Ok(saved)
    }

    /// Saves the trained or the converted model, and deletes that of earlier attempts.
    ///
    /// # Errors
    /// DISK_FULL, or what went wrong.
    pub fn model(&self, kind: ArtifactKind, network: &Network, epoch: u32) -> Result<Artifact> {
        let file = if kind == ArtifactKind::ConvertedModel { "converted" } else { "final" };
        let state = StateDict { tensors: tensors_of(network)?, spec_json: Some(self.spec.to_json()) };
        self.replace(kind, file, &state, epoch)
    }

    /// Under a name with the attempt: one that was overtaken cannot overwrite what the record says of a later one.
    fn replace(&self, kind: ArtifactKind, file: &str, state: &StateDict, epoch: u32) -> Result<Artifact> {
        let name_of = |attempt: u32| format!("{}/{file}-a{attempt}.safetensors", folder(self.experiment));
        let mut artifact = self.put(kind, name_of(self.attempt), state, epoch)?;
        let there = self.artifacts.list(&folder(self.experiment))?;
        artifact.deleted = (1..self.attempt).map(name_of).filter(|name| there.contains(name)).collect();
        self.artifacts.delete(&artifact.deleted)?;
        Ok(artifact)
    }

    fn put(&self, kind: ArtifactKind, name: String, state: &StateDict, epoch: u32) -> Result<Artifact> {
        let bytes = safetensors::write(state).map_err(Failure::internal)?;
        let stored = self.artifacts.put(&name, bytes, self.attempt)?;
        let (sha256, bytes) = (stored.sha256, stored.bytes);
        Ok(Artifact { kind: kind.into(), name, sha256, bytes, epoch, deleted: Vec::new() })
    }

    /// Checkpoints of an experiment; what is further comes later.
    fn checkpoints(&self, experiment: u64) -> Result<Vec<Name>> {
        let names = self.artifacts.list(&folder(experiment))?;
        let mut found: Vec<_> = names.into_iter().filter_map(Name::parse).collect();
        found.sort();
        Ok(found)
    }
}

/// Copies of a network's tensors, on the host.
fn tensors_of(network: &Network) -> Result<BTreeMap<String, Array>> {
    tensor_file::to_host(network.state().entries.iter().map(|entry| (&entry.name, &entry.tensor)))
}

fn folder(experiment: u64) -> String {
    format!("experiments/{experiment}")
}

/// The artifact's name of a checkpoint. In the order of their letters too, what is further comes later, as long as an epoch has
/// less than a million steps.
fn name_of(experiment: u64, position: Position, attempt: u32) -> String {
    let Position { epochs_done, steps } = position;
    let step = if steps > 0 { format!("-s{steps:06}") } else { String::new() };
    format!("{}/checkpoint-{epochs_done:04}{step}-a{attempt}.safetensors", folder(experiment))
}

/// What the name of a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    position: Position,
    attempt: u32,
    name: String,
}

impl Name {
    /// None: it is no checkpoint's.
    fn parse(name: String) -> Option<Name> {
        let file = name.rsplit('/').next()?.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?;
        let (place, attempt) = file.split_once("-a")?;
        let (epochs_done, steps) = match place.split_once("-s") {
            Some((epochs_done, steps)) => (epochs_done, steps.parse().ok()?),
            None => (place, 0),
        };
        let position = Position { epochs_done: epochs_done.parse().ok()?, steps };
        Some(Name { position, attempt: attempt.parse().ok()?, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_place_and_sort_by_it() {
        let at = |epochs_done, steps| Position { epochs_done, steps };
        let places =
            [(at(0, 7), 1), (at(5, 0), 1), (at(5, 0), 12), (at(5, 9), 3), (at(5, 391), 2), (at(6, 0), 2)];
        let names = places.map(|(position, attempt)| name_of(12, position, attempt));
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(names[1], "experiments/12/checkpoint-0005-a1.safetensors");
        assert_eq!(names[4], "experiments/12/checkpoint-0005-s000391-a2.safetensors");
        for ((position, attempt), name) in places.into_iter().zip(names) {
            assert_eq!(Name::parse(name.clone()), Some(Name { position, attempt, name }));
        }
        for other in [
            "best-a1.safetensors",
            "checkpoint-0005-a1.txt",
            "checkpoint-x-a1.safetensors",
            "checkpoint-0005-s-a1.safetensors",
        ] {
            assert_eq!(Name::parse(other.to_owned()), None, "{other}");
        }
    }
}
