//! The model card: what an exported file is, and how it came about. What nobody told is absent, never made up.

use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::cost::{Cost, cost};
use cnx_proto::spec::{Dataset, Published};
use cnx_proto::v1::{self, ExperimentDetail};
use serde::Serialize;

use super::Format;
use crate::source::Which;
use crate::term::escape::printable;

/// Raised when a key goes or changes its meaning.
const VERSION: u32 = 1;

/// A card; its JSON is this, its Markdown derives from it.
#[derive(Debug, Serialize)]
pub struct Card {
    /// Of the card's own form.
    pub version: u32,
    /// Of the experiment, or as the spec says.
    pub name: String,
    pub file: File,
    pub input: Input,
    pub classes: u32,
    pub spec_hash: String,
    /// On one image, as trained and converted.
    pub cost: Cost,
    pub seed: u64,
    pub data: Data,
    /// In per cent, on the test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Measured>,
    pub published: Published,
    /// Of a file that was not made by an experiment that the coordinator knows: none of the following.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// What the last attempt computed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Oldest first, those of the experiments that this one retries before its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What the exported file was made from.
    pub source: SourceFile,
    /// The version of cnx that exported it.
    pub exported_by: String,
    /// All that decided how it was trained.
    pub spec: Spec,
}

#[derive(Debug, Serialize)]
pub struct File {
    pub name: String,
    pub format: Format,
    #[serde(serialize_with = "form_name")]
    pub form: Form,
    pub bytes: u64,
    pub sha256: String,
    /// Arithmetic of its numbers.
    pub precision: &'static str,
    /// What they were rounded from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounded_from: Option<&'static str>,
    /// Of the learned group convolutions: the share of the weights that the masks leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
}

/// What has to be done to an image before it enters: RGB, (value / 255 − mean) / std a channel.
#[derive(Debug, Serialize)]
pub struct Input {
    pub channels: u32,
    pub size: u32,
    pub mean: [f64; 3],
    pub std: [f64; 3],
}

#[derive(Debug, Serialize)]
pub struct Data {
    pub dataset: Dataset,
    /// SHA-256 over the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Measured {
    /// Of which of the three the exported file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_this_file: Option<&'static str>,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    pub trained: Option<Errors>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Errors>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converted: Option<Errors>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Errors {
    pub top1_error: f64,
    pub top5_error: f64,
    pub loss: f64,
    pub images: u64,
}

#[derive(Debug, Serialize)]
pub struct Experiment {
    pub id: u64,
    pub state: String,
    pub epochs_done: u32,
    pub sweeps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    pub device: String,
    pub threads: u32,
    pub cnx_version: String,
    pub commit: String,
    pub libtorch_version: String,
}

#[derive(Debug, Serialize)]
pub struct Attempt {
    pub experiment: u64,
    pub attempt: u32,
    pub worker: String,
    pub outcome: String,
    /// 0: from the start.
    pub resumed_at_epoch: u32,
    pub started_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

#[derive(Debug, Clone, Serialize)]
pub struct SourceFile {
    /// The artifact's, or the file's without its folder.
    pub name: String,
    /// Of an artifact: checkpoint, best-model, final-model or converted-model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of an artifact: after how many epochs it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    pub bytes: u64,
    pub sha256: String,
}

impl Card {
    /// What file and spec tell by themselves.
    pub fn new(spec: &Spec, file: File, source: SourceFile) -> Card {
        let dataset = spec.data.dataset;
        let (mean, std) = dataset.normalisation();
        Card {
            version: VERSION,
            name: spec.name.clone(),
            file,
            input: Input { channels: 3, size: dataset.image_size(), mean, std },
            classes: dataset.classes(),
            spec_hash: spec.hash(),
            cost: cost(spec),
            seed: spec.train.seed,
            data: Data { dataset, sha256: None },
            errors: None,
            published: spec.published.clone(),
            experiment: None,
            environment: None,
            attempts: Vec::new(),
            source,
            exported_by: env!("CARGO_PKG_VERSION").to_owned(),
            spec: spec.clone(),
        }
    }

    /// Adds what the coordinator knows: of the experiment, and before it of those that it retries, the oldest first.
    pub fn tell(&mut self, lineage: &[ExperimentDetail], which: Option<Which>) {
        for detail in lineage {
            let id = detail.experiment.as_ref().map_or(0, |e| e.id);
            self.attempts.extend(detail.attempts.iter().map(|a| attempt(id, a)));
        }
        self.environment = self.attempts.iter().rev().find_map(|a| a.environment.clone());
        let environments = lineage.iter().flat_map(|detail| &detail.attempts).rev();
        let mut hashes = environments.filter_map(|a| a.environment.as_ref()).map(|e| &e.data_hash);
        self.data.sha256 = hashes.find(|hash| !hash.is_empty()).map(|hash| told(hash));
        let Some(detail) = lineage.last() else { return };
        self.errors = detail.figures.as_ref().map(|figures| measured(figures, which));
        self.experiment = detail.experiment.as_ref().map(|e| Experiment {
            id: e.id,
            state: e.state().label(),
            epochs_done: e.epochs_done,
            sweeps: e.sweeps.iter().map(|sweep| told(sweep)).collect(),
            retry_of: (e.retry_of > 0).then_some(e.retry_of),
        });
    }
}

fn measured(figures: &v1::Figures, which: Option<Which>) -> Measured {
    let errors = |e: &Option<v1::Errors>| {
        e.as_ref().map(|e| Errors {
            top1_error: e.top1_error,
            top5_error: e.top5_error,
            loss: e.loss,
            images: e.images,
        })
    };
    Measured {
        of_this_file: which.map(Which::as_str),
        trained: errors(&figures.r#final),
        best: errors(&figures.best),
        best_epoch: (figures.best_epoch > 0).then_some(figures.best_epoch),
        converted: errors(&figures.converted),
    }
}

fn attempt(experiment: u64, a: &v1::Attempt) -> Attempt {
    let environment = a.environment.as_ref().map(|e| Environment {
        device: told(&e.device),
        threads: e.threads,
        cnx_version: told(&e.cnx_version),
        commit: told(&e.commit),
        libtorch_version: told(&e.libtorch_version),
    });
    Attempt {
        experiment,
        attempt: a.attempt,
        worker: told(&a.worker),
        outcome: told(&a.outcome),
        resumed_at_epoch: a.resumed_at_epoch,
        started_at_ms: a.started_at_ms,
        ended_at_ms: (a.ended_at_ms > 0).then_some(a.ended_at_ms),
        environment,
    }
}

/// What a worker told of itself: printed from a file one day.
fn told(text: &str) -> String {
    printable(text).into_owned()
}

fn form_name<S: serde::Serializer>(form: &Form, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(form.as_str())
}
