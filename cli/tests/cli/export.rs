//! `cnx export`, of files and of what a played coordinator knows.

use std::path::{Path, PathBuf};

use cnx_formats::{Array, StateDict, checkpoint, safetensors};
use cnx_proto::Spec;
use cnx_proto::architecture::{Form, state_dict};
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::v1::{Artifact, ArtifactKind, State};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::coordinator::Coordinator;
use crate::{Said, cnx, run};

fn spec() -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
    spec.name = "small".to_owned();
    spec.model.stages = serde_json::from_value("1-1".into()).unwrap();
    spec.model.growth = serde_json::from_value("8-8".into()).unwrap();
    spec
}

/// A model whose masks have dropped nothing, or a converted one.
fn model(spec: &Spec, form: Form) -> StateDict {
    let mut state = StateDict { spec_json: Some(spec.to_json()), ..StateDict::default() };
    for info in state_dict(&spec.model, spec.data.dataset, form) {
        let shape: Vec<usize> = info.shape.iter().map(|&n| n as usize).collect();
        let n: usize = shape.iter().product();
        let array = if info.real {
            let constant = if info.name.ends_with("_mask") { Some(1.0) } else { None };
            let constant =
                constant.or(["_count", "_stage"].iter().any(|end| info.name.ends_with(end)).then_some(0.0));
            let value = |i: usize| constant.unwrap_or((i % 7) as f32 / 10.0 + 0.1);
            Array::from_f32(shape, &(0..n).map(value).collect::<Vec<_>>())
        } else if info.name.ends_with("index") {
            // A classifier's ascends, and so does each group's.
            Array::from_i64(shape, &(0..n as i64).collect::<Vec<_>>())
        } else {
            Array::from_i64(shape, &vec![7; n])
        };
        state.tensors.insert(info.name, array.unwrap());
    }
    state
}

fn write(path: &Path, state: &StateDict) -> Artifact {
    let bytes = safetensors::write(state).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, &bytes).unwrap();
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Artifact { sha256, bytes: bytes.len() as u64, epoch: 300, ..Artifact::default() }
}

/// A folder with a model in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    write(&file, &model(&spec(), Form::Large));
    (folder, file)
}

fn export(file: &Path, arguments: &[&str]) -> Said {
    let mut command = cnx(&["export", file.to_str().unwrap()]);
    run(command.args(arguments).current_dir(file.parent().unwrap()))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_file_is_exported_with_a_card_of_what_it_knows() {
    let (folder, file) = folder();
    for (name, format) in [("m.pth", "pth"), ("m.onnx", "onnx"), ("m.safetensors", "safetensors")] {
        let said = export(&file, &["-o", name, "--json"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let told: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            (&told["version"], &told["path"], &told["file"]["format"]),
            (&1.into(), &name.into(), &format.into())
        );
        assert!(said.err.contains("stage 0 of 3"), "it is not condensed, and that is said: {}", said.err);

        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        let card = json(&folder.path().join(format!("{name}.card.json")));
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&card["file"]["sha256"], &card["file"]["form"]), (&sha256.into(), &"large".into()));
        assert_eq!(card["spec_hash"], spec().hash());
        for unknown in ["experiment", "errors", "attempts", "environment"] {
            assert!(card.get(unknown).is_none(), "{unknown}");
        }
        let markdown = std::fs::read_to_string(folder.path().join(format!("{name}.card.md"))).unwrap();
        assert!(
            markdown.starts_with("---\npipeline_tag: image-classification\n")
                && markdown.contains("\n# small\n")
        );
        assert!(!markdown.contains("Attempts") && !markdown.contains("model-index"), "{markdown}");
    }
}

#[test]
fn a_state_dict_comes_back_as_it_was() {
    let (folder, file) = folder();
    assert_eq!(export(&file, &["-o", "m.pth"]).code, 0);
    let back = checkpoint::read(&std::fs::read(folder.path().join("m.pth")).unwrap()).unwrap();
    assert_eq!(back.state, model(&spec(), Form::Large));
    // And goes on from there, by the spec that it carries.
    let said = export(&folder.path().join("m.pth"), &["--format", "safetensors"]);
    assert_eq!((said.code, said.out.as_str()), (0, "m.safetensors\n"), "{}", said.err);
    assert_eq!(std::fs::read(folder.path().join("m.safetensors")).unwrap(), std::fs::read(&file).unwrap());
}

#[test]
fn what_only_a_training_needs_is_left_out() {
    let (folder, file) = folder();
    let mut state = model(&spec(), Form::Large);
    for name in ["optimizer.momentum.classifier.weight", "cnx.record"] {
        state.tensors.insert(name.to_owned(), Array::from_f32(vec![1], &[1.0]).unwrap());
    }
    write(&file, &state);
    let said = export(&file, &["-o", "out.safetensors"]);
    assert!(said.code == 0 && said.err.contains("2 tensors"), "{}", said.err);
    let out = safetensors::read(&std::fs::read(folder.path().join("out.safetensors")).unwrap()).unwrap();
    assert_eq!(out, model(&spec(), Form::Large));
}

#[test]
fn a_model_that_cannot_be_meant_is_refused_and_nothing_is_written() {
    let (folder, file) = folder();
    let damaged = |damage: &dyn Fn(&mut StateDict)| {
        let mut state = model(&spec(), Form::Large);
        damage(&mut state);
        write(&file, &state);
        let said = export(&file, &["-o", "out.onnx"]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
        said.err
    };
    let weight = "features.denseblock_1.denselayer_1.conv_1.conv.weight";
    let nan = damaged(&|state| {
        let shape = state.tensors[weight].shape().to_vec();
        let n = shape.iter().product();
        state.tensors.insert(weight.to_owned(), Array::from_f32(shape, &vec![f32::NAN; n]).unwrap());
    });
    assert!(nan.contains(weight) && nan.contains("NaN"), "{nan}");
    let missing = damaged(&|state| drop(state.tensors.remove("classifier.bias")));
    assert!(missing.contains("classifier.bias") && missing.contains("missing"), "{missing}");
    let half = damaged(&|state| {
        let mask = "features.denseblock_1.denselayer_1.conv_1._mask";
        let shape = state.tensors[mask].shape().to_vec();
        let mut values = vec![1.0; shape.iter().product()];
        values[0] = 0.0;
        state.tensors.insert(mask.to_owned(), Array::from_f32(shape, &values).unwrap());
    });
    assert!(half.contains("conv_1") && half.contains("_mask"), "{half}");
    let nameless = {
        let mut state = model(&spec(), Form::Large);
        state.spec_json = None;
        write(&file, &state);
        export(&file, &["-o", "out.onnx"])
    };
    assert!(nameless.code == 2 && nameless.err.contains("--spec FILE"), "{}", nameless.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the model alone");
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_the_reason() {
    let (folder, file) = folder();
    std::fs::create_dir(folder.path().join("folder.onnx")).unwrap();
    for (arguments, part) in [
        (&["-o", "none/m.onnx"][..], "there is no folder"),
        (&["-o", "folder.onnx"], "it is a folder"),
        (&["-o", "model.safetensors"], "is the model itself"),
        (&["-o", "model.tar"], "--format safetensors, pth or onnx"),
        (&["--artifact", "best", "-o", "m.onnx"], "is a file"),
    ] {
        let said = export(&file, arguments);
        assert!(
            said.code > 0 && said.out.is_empty() && said.err.contains(part),
            "{arguments:?}: {}",
            said.err
        );
    }
}

/// A coordinator that knows experiment 1, with a final and, if so, a converted model.
fn coordinator(kinds: &[ArtifactKind]) -> Coordinator {
    let coordinator = Coordinator::start();
    let folder = coordinator.state.path().join("artifacts");
    let config = coordinator.state.path().join("small.toml");
    let text = "name = \"small\"\n[model]\narch = \"condensenet\"\nstages = \"1-1\"\ngrowth = \"8-8\"\n[data]\ndataset = \"cifar10\"\n";
    std::fs::write(&config, text).unwrap();
    assert_eq!(run(&mut coordinator.cnx(&["submit", config.to_str().unwrap()])).code, 0);
    *coordinator.pool.artifacts_url.lock().unwrap() = format!("file://{}", folder.display());
    for &kind in kinds {
        let form = if kind == ArtifactKind::ConvertedModel { Form::Converted } else { Form::Large };
        let name = format!("experiments/1/{kind}.safetensors");
        let artifact = write(&folder.join(&name), &model(&spec(), form));
        coordinator.pool.artifacts.lock().unwrap().push(Artifact { kind: kind.into(), name, ..artifact });
    }
    coordinator
}

#[test]
fn an_experiment_gives_its_converted_model_as_onnx_and_its_final_one_else() {
    let coordinator = coordinator(&[ArtifactKind::FinalModel, ArtifactKind::ConvertedModel]);
    coordinator.pool.change(1, |e| e.state = State::Succeeded as i32);
    let out = tempfile::tempdir().unwrap();
    let export = |arguments: &[&str]| {
        let said = run(coordinator.cnx(&["export", "small"]).args(arguments).current_dir(out.path()));
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.trim_end().to_owned()
    };
    assert_eq!(export(&["--format", "onnx"]), "small-converted.onnx");
    assert_eq!(export(&["--format", "pth"]), "small-final.pth");

    let card = json(&out.path().join("small-converted.onnx.card.json"));
    assert_eq!(
        (&card["file"]["form"], &card["errors"]["of_this_file"]),
        (&"converted".into(), &"converted".into())
    );
    assert_eq!(card["source"]["name"], "experiments/1/converted-model.safetensors");
    let attempts: Vec<&str> =
        card["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str().unwrap()).collect();
    assert_eq!(attempts, ["worker-lost", "succeeded"]);
    let markdown = std::fs::read_to_string(out.path().join("small-final.pth.card.md")).unwrap();
    for part in ["| final (this file) | 18.00 | 2.00 |", "| 1 | 2 | 3 | succeeded | box-cpu |", "value: 82"] {
        assert!(markdown.contains(part), "{part}: {markdown}");
    }
}

#[test]
fn an_artifact_that_is_missing_damaged_or_elsewhere_is_told() {
    let coordinator = coordinator(&[ArtifactKind::FinalModel]);
    let out = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let said = run(coordinator.cnx(&["export", "1"]).args(arguments).current_dir(out.path()));
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
        said.err
    };
    let missing = refused(&["--format", "onnx"]);
    for part in ["no converted-model", "final-model (epoch 300)", "--artifact final", "cnx status 1 --watch"]
    {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    let file = coordinator.state.path().join("artifacts/experiments/1/final-model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(refused(&["--format", "pth"]).contains("damaged"));
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&["--format", "pth"]).contains("on the coordinator's machine, or gone"));
    *coordinator.pool.artifacts_url.lock().unwrap() = "s3://bucket/cnx".to_owned();
    let elsewhere = refused(&["--format", "pth"]);
    assert!(elsewhere.contains("s3://bucket/cnx") && elsewhere.contains("export the file"), "{elsewhere}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "nothing is written");
}
