//! Checkpoints and models: what is saved after an epoch, and where a new attempt goes on from.
//!
//! Below the artifacts' root, in `experiments/<id>/`: `checkpoint-<epoch>-a<attempt>.safetensors` (the last two),
//! `best-a<attempt>.safetensors`, `final-a<attempt>.safetensors`, `converted-a<attempt>.safetensors`.

use std::collections::BTreeMap;

use cnx_proto::Spec;
use cnx_proto::v1::{Artifact, ArtifactKind, Assign, EpochMetrics, Errors};
use prost::Message;
use tch::Tensor;

use crate::artifacts::Artifacts;
use crate::failure::Result;
use crate::model::Network;
use crate::optimizer::Sgd;
use crate::tensor_file::{self, TensorFile};

/// Checkpoints kept of an experiment: if the newest turns out damaged, the one before it is used.
const KEPT: usize = 2;

/// The tensor that holds the [`Record`] in a checkpoint.
const RECORD: &str = "cnx.record";

/// What a checkpoint knows besides tensors. Random numbers have no state, and the step is epochs × steps an epoch.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Epochs done.
    #[prost(uint32, tag = "1")]
    pub epochs_done: u32,
    /// Their figures.
    #[prost(message, repeated, tag = "2")]
    pub history: Vec<EpochMetrics>,
    /// The best epoch so far; 0: none yet.
    #[prost(uint32, tag = "3")]
    pub best_epoch: u32,
    /// Its errors on the test images.
    #[prost(message, optional, tag = "4")]
    pub best: Option<Errors>,
}

impl Record {
    /// Notes an epoch; true if it is the best so far.
    pub fn add(&mut self, metrics: EpochMetrics, errors: Errors) -> bool {
        self.epochs_done = metrics.epoch;
        self.history.push(metrics);
        let better = self.best.as_ref().is_none_or(|best| errors.top1_error < best.top1_error);
        if better {
            (self.best_epoch, self.best) = (metrics.epoch, Some(errors));
        }
        better
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

    /// The newest usable checkpoint: of each experiment of the lineage in turn, the latest epoch first. What is damaged,
    /// or of another spec, is passed over, and `log` hears why.
    ///
    /// # Errors
    /// When the artifacts cannot be listed.
    pub fn newest_checkpoint(&self, log: &mut dyn FnMut(String)) -> Result<Option<Checkpoint>> {
        for &experiment in &self.lineage {
            let mut names = self.checkpoints(experiment)?;
            while let Some((_, _, name)) = names.pop() {
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

    /// Saves a checkpoint, and deletes those that it makes superfluous.
    ///
    /// # Errors
    /// DISK_FULL, or what went wrong.
    pub fn checkpoint(&self, network: &Network, optimizer: &Sgd, record: &Record) -> Result<Artifact> {
        let (epoch, attempt) = (record.epochs_done, self.attempt);
        let name = format!("{}/checkpoint-{epoch:04}-a{attempt}.safetensors", folder(self.experiment));
        let mut tensors = network.state().snapshot()?;
        tensors.extend(optimizer.snapshot()?);
        tensors.insert(RECORD.to_owned(), Tensor::f_from_slice(&record.encode_to_vec())?);
        let mut artifact = self.put(ArtifactKind::Checkpoint, name, &tensors, epoch)?;

        let mut old = self.checkpoints(self.experiment)?;
        old.truncate(old.len().saturating_sub(KEPT));
        // What a later attempt wrote is not ours to delete: we may have been overtaken without knowing.
        old.retain(|(_, of, _)| *of <= attempt);
        artifact.deleted = old.into_iter().map(|(_, _, name)| name).collect();
        self.artifacts.delete(&artifact.deleted)?;
        Ok(artifact)
    }

    /// Saves the best model so far, and deletes that of earlier attempts.
    ///
    /// # Errors
    /// DISK_FULL, or what went wrong.
    pub fn best(&self, network: &Network, epoch: u32) -> Result<Artifact> {
        self.replace(ArtifactKind::BestModel, "best", network, epoch)
    }

    /// Saves the trained or the converted model, and deletes that of earlier attempts.
    ///
    /// # Errors
    /// DISK_FULL, or what went wrong.
    pub fn model(&self, kind: ArtifactKind, network: &Network, epoch: u32) -> Result<Artifact> {
        let file = if kind == ArtifactKind::ConvertedModel { "converted" } else { "final" };
        self.replace(kind, file, network, epoch)
    }

    /// Under a name with the attempt: one that was overtaken cannot overwrite what the record says of a later one.
    fn replace(&self, kind: ArtifactKind, file: &str, network: &Network, epoch: u32) -> Result<Artifact> {
        let name_of = |attempt: u32| format!("{}/{file}-a{attempt}.safetensors", folder(self.experiment));
        let tensors = network.state().snapshot()?;
        let mut artifact = self.put(kind, name_of(self.attempt), &tensors, epoch)?;
        let there = self.artifacts.list(&folder(self.experiment))?;
        artifact.deleted = (1..self.attempt).map(name_of).filter(|name| there.contains(name)).collect();
        self.artifacts.delete(&artifact.deleted)?;
        Ok(artifact)
    }

    fn put(
        &self,
        kind: ArtifactKind,
        name: String,
        tensors: &BTreeMap<String, Tensor>,
        epoch: u32,
    ) -> Result<Artifact> {
        let bytes = tensor_file::encode(&self.spec.to_json(), tensors)?;
        let stored = self.artifacts.put(&name, bytes, self.attempt)?;
        let (sha256, bytes) = (stored.sha256, stored.bytes);
        Ok(Artifact { kind: kind.into(), name, sha256, bytes, epoch, deleted: Vec::new() })
    }

    /// Checkpoints of an experiment: epoch, attempt and name, ascending.
    fn checkpoints(&self, experiment: u64) -> Result<Vec<(u32, u32, String)>> {
        let names = self.artifacts.list(&folder(experiment))?;
        let mut found: Vec<_> = names.into_iter().filter_map(parse).collect();
        found.sort();
        Ok(found)
    }
}

fn folder(experiment: u64) -> String {
    format!("experiments/{experiment}")
}

/// Epoch and attempt of a checkpoint, from its name.
fn parse(name: String) -> Option<(u32, u32, String)> {
    let file = name.rsplit('/').next()?.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?;
    let (epoch, attempt) = file.split_once("-a")?;
    Some((epoch.parse().ok()?, attempt.parse().ok()?, name))
}
