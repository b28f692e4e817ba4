//! Attempts that are given a model: what they measure and make, and what they refuse.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cnx_formats::{Array, Dtype, safetensors};
use cnx_proto::Spec;
use cnx_proto::spec::{Dataset, Engine, Step};
use cnx_proto::v1::{ArtifactKind, Errors, FailureClass, Figures, outcome::Kind};
use cnx_worker::stop::Stop;
use common::{NEVER, Told, run, run_with, tiny};
use sha2::{Digest, Sha256};

/// One training that all tests take models from: `final`, `converted`, and what it measured.
fn trained() -> (PathBuf, Figures) {
    static TRAINED: OnceLock<(tempfile::TempDir, Figures)> = OnceLock::new();
    let (folder, figures) = TRAINED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let told = run(&tiny(), folder.path(), 1, None);
        let figures = told.figures();
        (folder, figures)
    });
    (folder.path().to_path_buf(), *figures)
}

fn model(name: &str) -> PathBuf {
    trained().0.join("experiments/1").join(name)
}

fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn job(spec: &Spec, steps: &[Step], file: &Path) -> Spec {
    spec.job(steps.to_vec(), file.display().to_string(), sha256(file))
}

/// Carries out a job in a folder of its own.
fn carried_out(job: &Spec) -> (Told, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (run(job, folder.path(), 1, None), folder)
}

/// Carries out a job that must fail: class and message.
fn failure(job: &Spec) -> (FailureClass, String) {
    let (told, _) = carried_out(job);
    assert_eq!(told.outcome().kind(), Kind::Failed);
    (told.outcome().failure(), told.outcome().message)
}

/// A copy of a model whose tensors are changed.
fn changed(source: &Path, to: &Path, change: impl Fn(&str, &Array) -> Array) {
    let mut state = safetensors::read(&fs::read(source).unwrap()).unwrap();
    for (name, array) in &mut state.tensors {
        *array = change(name, array);
    }
    fs::write(to, safetensors::write(&state).unwrap()).unwrap();
}

#[test]
fn a_job_measures_what_the_training_measured() {
    let (_, figures) = trained();
    let (told, _folder) = carried_out(&job(&tiny(), &[Step::Evaluate], &model("final-a1.safetensors")));
    assert_eq!(told.figures(), Figures { r#final: figures.r#final, ..Figures::default() });
    assert!(told.epochs().is_empty() && told.artifacts().is_empty());
    assert_eq!(told.started().resumed_from, "");

    let of_converted = job(&tiny(), &[Step::EvaluateConverted], &model("converted-a1.safetensors"));
    let (told, _folder) = carried_out(&of_converted);
    assert_eq!(told.figures(), Figures { converted: figures.converted, ..Figures::default() });
}

/// The largest relative difference of two losses that still is rounding.
const ROUNDING: f64 = 1e-5;

#[test]
fn the_native_engine_measures_what_libtorch_measures() {
    let (_, figures) = trained();
    let files = [
        (Step::Evaluate, "final-a1.safetensors", figures.r#final),
        (Step::EvaluateConverted, "converted-a1.safetensors", figures.converted),
    ];
    for (step, file, expected) in files {
        let mut native = job(&tiny(), &[step], &model(file));
        native.run.engine = Engine::Native;
        let (told, _folder) = carried_out(&native);
        let found = told.figures();
        let found = if step == Step::Evaluate { found.r#final } else { found.converted };
        let (found, expected) = (found.unwrap(), expected.unwrap());
        let counts = |e: &Errors| (e.images, e.top1_error, e.top5_error);
        assert_eq!(counts(&found), counts(&expected), "{file}");
        assert!((found.loss - expected.loss).abs() <= ROUNDING * expected.loss, "{found:?} {expected:?}");
    }
    // In place: the same.
    let evaluate = |engine: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cnx-worker"));
        let arguments = ["evaluate", "--json", "--engine", engine];
        let output = command.args(arguments).arg(model("converted-a1.safetensors")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let (native, libtorch) = (evaluate("native"), evaluate("libtorch"));
    assert_eq!(native["top1_error"], libtorch["top1_error"]);
    assert_eq!(native["images"], 60);
}

#[test]
fn a_network_is_timed_on_both_engines() {
    for engine in [Engine::Libtorch, Engine::Native] {
        let (told, _folder) = carried_out(&tiny().latency_job(engine, 1));
        assert_eq!(told.outcome().kind(), Kind::Succeeded, "{}", told.outcome().message);
        let figures = told.figures();
        let latency = figures.latency.unwrap();
        assert_eq!(figures, Figures { latency: Some(latency), ..Figures::default() });
        assert!(latency.threads == 1 && latency.runs > 1 && latency.median_s > 0.0, "{latency:?}");
        assert_eq!((told.started().environment.unwrap().device.as_str(), told.epochs().len()), ("cpu", 0));
    }
}

#[test]
fn a_job_converts_to_the_file_that_the_training_made() {
    let steps = [Step::Evaluate, Step::Convert, Step::EvaluateConverted];
    let (told, folder) = carried_out(&job(&tiny(), &steps, &model("final-a1.safetensors")));
    let (_, figures) = trained();
    assert_eq!(told.figures(), Figures { best: None, best_epoch: 0, ..figures });
    let artifacts = told.artifacts();
    assert_eq!(artifacts.len(), 1);
    assert_eq!(artifacts[0].kind(), ArtifactKind::ConvertedModel);
    assert_eq!(
        artifacts[0].sha256,
        sha256(&model("converted-a1.safetensors")),
        "to the byte, metadata and all"
    );
    assert_eq!(artifacts[0].sha256, sha256(&folder.path().join(&artifacts[0].name)));
}

#[test]
fn a_model_may_be_an_artifact() {
    let (folder, figures) = trained();
    let name = "experiments/1/final-a1.safetensors".to_owned();
    let mut job = tiny().job(vec![Step::Evaluate], name, sha256(&model("final-a1.safetensors")));
    let told = run(&job, &folder, 1, None);
    assert_eq!(told.figures().r#final, figures.r#final);

    job.run.from = Some("experiments/7/final-a1.safetensors".to_owned());
    let outcome = run(&job, &folder, 1, None).outcome();
    assert_eq!(outcome.failure(), FailureClass::DataMissing);
    assert!(outcome.message.contains("artifact experiments/7/final-a1.safetensors"), "{}", outcome.message);
}

#[test]
fn converting_needs_no_images() {
    let mut elsewhere = tiny();
    (elsewhere.name, elsewhere.data.dataset) = ("elsewhere".to_owned(), Dataset::Cifar10);
    elsewhere.data.root = Some("/nothing/here".into());
    let (told, folder) = carried_out(&job(&elsewhere, &[Step::Convert], &model("final-a1.safetensors")));
    assert_eq!(told.outcome().kind(), Kind::Succeeded, "{}", told.outcome().message);
    assert_eq!(told.figures(), Figures::default());
    // The file says that it is of the generated images, the job says otherwise: the job was asked for.
    let bytes = fs::read(folder.path().join(&told.artifacts()[0].name)).unwrap();
    let spec = Spec::from_json(&safetensors::read(&bytes).unwrap().spec_json.unwrap()).unwrap();
    assert_eq!((spec.name.as_str(), spec.data.dataset), ("elsewhere", Dataset::Cifar10));
    assert!(!spec.is_job());

    let evaluate = job(&elsewhere, &[Step::Evaluate], &model("final-a1.safetensors"));
    assert_eq!(failure(&evaluate).0, FailureClass::DataMissing);
}

#[test]
fn a_file_that_is_not_the_submitted_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    fs::copy(model("final-a1.safetensors"), &file).unwrap();
    let job = job(&tiny(), &[Step::Evaluate], &file);

    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (class, message) = failure(&job);
    assert_eq!(class, FailureClass::DataMissing);
    let hashes = [sha256(&file), sha256(&model("final-a1.safetensors"))];
    for part in
        [&*file.display().to_string(), &hashes[0], &format!("expected {}", hashes[1]), "worker's host"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }

    fs::remove_file(&file).unwrap();
    let (class, message) = failure(&job);
    assert_eq!(class, FailureClass::DataMissing);
    assert!(message.contains("model.safetensors") && message.contains("worker's host"), "{message}");
    fs::create_dir(&file).unwrap();
    assert!(failure(&job).1.contains("is not a file"), "{}", failure(&job).1);
}

#[test]
fn a_file_that_does_not_fit_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("pytorch.pth.tar"), b"PK\x03\x04 and so on").unwrap();
    // Stopped in its first epoch: nothing is condensed yet.
    run_with(&tiny(), folder.path(), 1, Stop::at_check(3), None, NEVER);
    let unfinished = at("experiments/1/checkpoint-0000-s000003-a1.safetensors");
    changed(&model("final-a1.safetensors"), &at("nan.safetensors"), |name, array| match name {
        "features.norm_last.weight" => {
            let mut bytes = array.bytes().to_vec();
            bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            Array::new(Dtype::F32, array.shape().to_vec(), bytes).unwrap()
        }
        _ => array.clone(),
    });
    // A mask that keeps more than its stage says.
    changed(&model("final-a1.safetensors"), &at("half.safetensors"), |name, array| match name {
        "features.denseblock_2.denselayer_1.conv_1._mask" => {
            let ones = vec![1.0; array.len()];
            Array::from_f32(array.shape().to_vec(), &ones).unwrap()
        }
        _ => array.clone(),
    });
    let mut wider = tiny();
    wider.model.growth = serde_json::from_value("4-8-8".into()).unwrap();
    let (large, converted) = (model("final-a1.safetensors"), model("converted-a1.safetensors"));

    use FailureClass::{BadSpec, DataMissing, Diverged};
    let nan = "features.norm_last.weight holds NaN or infinity in 1 of its";
    let cases = [
        (job(&tiny(), &[Step::Evaluate], &at("pytorch.pth.tar")), DataMissing, "`cnx import`"),
        (job(&tiny(), &[Step::Convert], &unfinished), BadSpec, "condensing is not over"),
        (job(&tiny(), &[Step::Evaluate], &at("nan.safetensors")), Diverged, nan),
        (job(&tiny(), &[Step::Convert], &at("nan.safetensors")), Diverged, nan),
        (
            job(&tiny(), &[Step::Convert], &at("half.safetensors")),
            BadSpec,
            "the mask of features.denseblock_2",
        ),
        (job(&wider, &[Step::Evaluate], &large), BadSpec, "features.denseblock_2"),
        (job(&tiny(), &[Step::Evaluate], &converted), BadSpec, "only be [\"evaluate-converted\"]"),
        (job(&tiny(), &[Step::Convert], &converted), BadSpec, "only be [\"evaluate-converted\"]"),
        (job(&tiny(), &[Step::EvaluateConverted], &large), BadSpec, "is not converted"),
    ];
    for (job, class, part) in cases {
        let (found, message) = failure(&job);
        assert_eq!(found, class, "{message}");
        assert!(message.contains(part), "{part}: {message}");
        let place = job.run.from.clone().unwrap();
        assert!(message.contains(&place) || part.contains("condensing"), "{place}: {message}");
    }
    for verb in [&["evaluate"][..], &["convert", "-o", "/nothing/here"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cnx-worker"));
        let output = command.args(verb).arg(at("nan.safetensors")).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(nan), "{verb:?}: {error}");
    }
}
