//! Jobs: experiments that train nothing. Most take a model from a file, to evaluate or to convert it.
//!
//! A job is a spec like any other: the model's own, with `run.from` saying where the file is, `run.from_sha256` which bytes
//! it must have, and `run.steps` what to do with it. Of a model as trained these are evaluate, convert and
//! evaluate-converted; of one that is converted already, evaluate-converted alone. The step latency needs no model: time
//! does not depend on the weights.

use std::fmt;

use serde_json::{Value, json};

use crate::architecture::Form;
use crate::recipe::default_steps;
use crate::spec::{Engine, Run, Spec, Step};
use crate::v1::{Errors, Latency};

/// The folder of artifacts: the name of one starts with it, a path on a worker does not.
const ARTIFACTS: &str = "experiments/";

/// As long as a path can be on Linux.
const LONGEST_PATH: usize = 4096;

/// Names may be so long ([`crate::validate::is_name`]).
const LONGEST_NAME: usize = 128;

/// Whether `run.from` can name a file: an absolute path, or an artifact's name.
pub(crate) fn is_place(from: &str) -> bool {
    (from.starts_with('/') && from.len() <= LONGEST_PATH && !from.contains('\0')) || is_artifact_name(from)
}

/// Whether a text that came from elsewhere can be the name of an artifact, which below the artifacts' folder leads nowhere else.
pub fn is_artifact_name(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    let folders = name.split('/').count();
    is_artifact(name)
        && folders > 2
        && name.len() <= LONGEST_PATH
        && name.split('/').all(plain)
        && !name.chars().any(char::is_control)
}

/// Whether `run.from` names an artifact, rather than a file by its path on the worker.
pub fn is_artifact(from: &str) -> bool {
    from.starts_with(ARTIFACTS)
}

impl Spec {
    /// Whether it trains nothing: it takes a model from a file, or only times the network.
    pub fn is_job(&self) -> bool {
        self.run.from.is_some() || self.times()
    }

    /// Whether it only measures how long the network takes.
    pub fn times(&self) -> bool {
        self.run.steps == [Step::Latency]
    }

    /// Epochs that it trains; none of a job.
    pub fn epochs(&self) -> Option<u32> {
        (!self.is_job()).then_some(self.train.epochs)
    }

    /// Whether it measures errors: a conversion alone makes a file and no figures.
    pub fn measures(&self) -> bool {
        let measures = |step: &Step| !matches!(step, Step::Convert | Step::Latency);
        !self.is_job() || self.run.steps.iter().any(measures)
    }

    /// The job that times this network.
    pub fn latency_job(&self, engine: Engine, threads: u32) -> Spec {
        let mut job = self.of_model();
        let steps = vec![Step::Latency];
        let suffix = suffix(&steps);
        job.name.truncate(LONGEST_NAME - suffix.len());
        job.name.push_str(suffix);
        job.run = Run { steps, from: None, from_sha256: None, engine };
        (job.resources.gpus, job.resources.threads) = (0, threads);
        job
    }

    /// The job that takes these steps with a model of this spec. It is named after both, so that a name that selected
    /// experiments before still selects the same.
    pub fn job(&self, steps: Vec<Step>, from: String, sha256: String) -> Spec {
        let mut job = self.of_model();
        let suffix = suffix(&steps);
        job.name.truncate(LONGEST_NAME - suffix.len());
        job.name.push_str(suffix);
        job.run = Run { steps, from: Some(from), from_sha256: Some(sha256), engine: Engine::Libtorch };
        if !job.measures() {
            // Converting is arithmetic of the host.
            job.resources.gpus = 0;
        }
        job
    }

    /// What a model's file says of it: of a job, the spec of the model that it was given.
    pub fn of_model(&self) -> Spec {
        let mut spec = self.clone();
        if spec.is_job() {
            let suffix = suffix(&spec.run.steps);
            if let Some(name) = spec.name.strip_suffix(suffix).filter(|name| !name.is_empty()) {
                spec.name = name.to_owned();
            }
            let steps = default_steps(spec.model.arch);
            spec.run = Run { steps, from: None, from_sha256: None, engine: Engine::Libtorch };
        }
        spec
    }
}

fn suffix(steps: &[Step]) -> &'static str {
    match steps {
        [Step::Latency] => "-latency",
        steps if steps.contains(&Step::Convert) => "-convert",
        _ => "-evaluate",
    }
}

/// What evaluating one model tells: in place and as a job in the same words and digits.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Its errors on the test images.
    pub errors: Errors,
    /// As trained, or converted.
    pub form: Form,
}

impl Evaluation {
    /// The JSON form; errors in per cent.
    pub fn to_json(&self) -> Value {
        let Errors { loss, top1_error, top5_error, images } = &self.errors;
        json!({
            "loss": loss, "top1_error": top1_error, "top5_error": top5_error, "images": images,
            "model": self.form.as_str(),
        })
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Errors { loss, top1_error, top5_error, images } = &self.errors;
        let form = self.form;
        write!(
            f,
            "{form} model, {images} images: top-1 error {top1_error:.2} %, top-5 error {top5_error:.2} %, loss {loss:.4}"
        )
    }
}

/// The JSON form of a time; sizes in bytes, times in seconds. What is not known is null.
pub fn latency_json(latency: &Latency) -> Value {
    let Latency { threads, runs, median_s, tenth_s, ninetieth_s, peak_memory_bytes, multiply_adds_per_s } =
        latency;
    json!({
        "threads": threads, "runs": runs, "median_s": median_s, "tenth_s": tenth_s, "ninetieth_s": ninetieth_s,
        "peak_memory_bytes": (*peak_memory_bytes != 0).then_some(peak_memory_bytes),
        "multiply_adds_per_s": multiply_adds_per_s,
    })
}

/// What [`latency_json`] says; none: something is missing.
pub fn latency_from_json(value: &Value) -> Option<Latency> {
    let (number, count) = (|key: &str| value[key].as_f64(), |key: &str| value[key].as_u64());
    Some(Latency {
        threads: u32::try_from(count("threads")?).ok()?,
        runs: count("runs")?,
        median_s: number("median_s")?,
        tenth_s: number("tenth_s")?,
        ninetieth_s: number("ninetieth_s")?,
        peak_memory_bytes: count("peak_memory_bytes").unwrap_or(0),
        multiply_adds_per_s: number("multiply_adds_per_s")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse;

    fn model(name: &str) -> Spec {
        let text = format!(
            "name = \"{name}\"\n[model]\narch = \"condensenet\"\nstages = \"8-8-8\"\ngrowth = \"8-16-32\"\n\
             [data]\ndataset = \"cifar10\"\n[resources]\ngpus = 1\n"
        );
        parse("mine.toml", &text, &[]).unwrap()
    }

    fn job(steps: &[Step]) -> Spec {
        model("mine").job(steps.to_vec(), "/models/mine.safetensors".to_owned(), "0".repeat(64))
    }

    fn refusal(spec: &Spec) -> String {
        Spec::from_json(&spec.to_json()).unwrap_err()
    }

    #[test]
    fn a_job_knows_the_spec_of_its_model() {
        for steps in
            [&[Step::Evaluate][..], &[Step::Convert, Step::EvaluateConverted], &[Step::EvaluateConverted]]
        {
            let job = job(steps);
            assert_eq!(Spec::from_json(&job.to_json()).unwrap(), job);
            assert_eq!(Spec { resources: model("mine").resources, ..job.of_model() }, model("mine"));
        }
        assert_eq!(job(&[Step::Evaluate]).name, "mine-evaluate");
        assert_eq!(job(&[Step::Convert]).name, "mine-convert");
        let again = job(&[Step::Convert]).job(vec![Step::EvaluateConverted], "/m".to_owned(), "1".repeat(64));
        assert_eq!(again.name, "mine-evaluate");
    }

    #[test]
    fn a_network_is_timed_by_a_job_without_a_model() {
        let job = model("mine").latency_job(Engine::Native, 2);
        assert_eq!(Spec::from_json(&job.to_json()).unwrap(), job);
        assert_eq!((job.name.as_str(), job.resources.gpus, job.resources.threads), ("mine-latency", 0, 2));
        assert!(job.is_job() && job.times() && !job.measures() && job.epochs().is_none());
        assert_eq!(job.of_model().run, model("mine").run);
        assert_ne!(job.hash(), model("mine").latency_job(Engine::Libtorch, 2).hash());
        let mut with_model = job.clone();
        with_model.run.from = Some("/m".to_owned());
        with_model.run.from_sha256 = Some("0".repeat(64));
        assert!(refusal(&with_model).contains("names latency"), "{}", refusal(&with_model));
        let mut trains = job;
        trains.run.steps = vec![Step::Train, Step::Latency];
        assert!(refusal(&trains).contains("names latency"), "{}", refusal(&trains));
    }

    #[test]
    fn a_time_is_the_same_after_its_json() {
        let mut latency = Latency {
            threads: 2,
            runs: 100,
            median_s: 0.25,
            tenth_s: 0.125,
            ninetieth_s: 0.5,
            peak_memory_bytes: 1 << 40,
            multiply_adds_per_s: 1.5e11,
        };
        for bytes in [1 << 40, 0] {
            latency.peak_memory_bytes = bytes;
            assert_eq!(latency_from_json(&latency_json(&latency)), Some(latency));
        }
        assert_eq!(latency_from_json(&json!({ "threads": 2 })), None);
    }

    #[test]
    fn the_native_engine_evaluates_given_models_of_dense_blocks() {
        let mut native = job(&[Step::EvaluateConverted]);
        native.run.engine = Engine::Native;
        assert_eq!(Spec::from_json(&native.to_json()).unwrap(), native);
        assert_ne!(native.hash(), job(&[Step::EvaluateConverted]).hash());
        native.model.arch = crate::spec::Arch::ResNet18;
        assert!(refusal(&native).contains("run.engine is native"), "{}", refusal(&native));
        let mut trains = model("mine");
        trains.run.engine = Engine::Native;
        assert!(refusal(&trains).contains("leave it out of a training"), "{}", refusal(&trains));
    }

    #[test]
    fn a_name_that_is_as_long_as_can_be_stays_a_name() {
        let job = model(&"n".repeat(128)).job(vec![Step::Evaluate], "/m".to_owned(), "0".repeat(64));
        assert!(crate::validate::is_name(&job.name), "{}", job.name);
    }

    #[test]
    fn only_what_needs_the_device_asks_for_one() {
        assert_eq!(job(&[Step::Evaluate]).resources.gpus, 1);
        assert_eq!(job(&[Step::Convert]).resources.gpus, 0);
    }

    #[test]
    fn the_hash_is_of_the_bytes_and_not_of_where_they_lie() {
        let here = job(&[Step::Evaluate]);
        let mut elsewhere = here.clone();
        elsewhere.run.from = Some("experiments/3/final.safetensors".to_owned());
        assert_eq!(here.hash(), elsewhere.hash());
        let mut other = here.clone();
        other.run.from_sha256 = Some("1".repeat(64));
        assert_ne!(here.hash(), other.hash());
        assert_ne!(here.group_hash(), other.group_hash());
        assert_ne!(here.hash(), job(&[Step::Convert]).hash());
        assert_ne!(here.group_hash(), model("mine").group_hash());
    }

    #[test]
    fn steps_that_no_file_allows_are_refused() {
        for (steps, expected) in [
            (&[][..], "run.steps names nothing to do"),
            (&[Step::Train, Step::Evaluate], "run.steps names train, but run.from gives the model"),
            (&[Step::Evaluate, Step::EvaluateConverted], "no convert between them"),
            (&[Step::Convert, Step::Evaluate], "must name each step once, in this order"),
        ] {
            assert!(refusal(&job(steps)).contains(expected), "{steps:?}: {}", refusal(&job(steps)));
        }
        let mut densenet = job(&[Step::Convert]);
        (densenet.model.arch, densenet.model.condense_factor) = (crate::spec::Arch::DenseNet, 1);
        assert!(
            refusal(&densenet).contains("densenet has no learned group convolutions"),
            "{}",
            refusal(&densenet)
        );
    }

    #[test]
    fn a_model_is_named_by_a_place_and_its_hash() {
        let with = |from: Option<&str>, sha256: Option<&str>| {
            let mut spec = job(&[Step::Evaluate]);
            (spec.run.from, spec.run.from_sha256) = (from.map(str::to_owned), sha256.map(str::to_owned));
            spec
        };
        let hash = "0".repeat(64);
        for from in ["mine.safetensors", "experiments/../../etc/passwd", "", "/a\0b"] {
            assert!(
                refusal(&with(Some(from), Some(&hash))).contains("run.from is the absolute path"),
                "{from:?}"
            );
        }
        assert!(
            Spec::from_json(&with(Some("experiments/3/final.safetensors"), Some(&hash)).to_json()).is_ok()
        );
        assert!(refusal(&with(Some("/m"), None)).contains("run.from_sha256 is missing"));
        assert!(refusal(&with(Some("/m"), Some("abc"))).contains("64 hexadecimal digits"));
        let mut neither = model("mine");
        neither.run.from_sha256 = Some(hash);
        assert!(refusal(&neither).contains("give both or neither"));
    }
}
