//! `cnx import`, on the reference's own files and on files that are wrong.

use std::path::{Path, PathBuf};

use cnx_formats::{Array, StateDict, checkpoint, pth, safetensors};
use serde_json::Value;

use crate::{Said, cnx, repository, run};

fn fixture(name: &str) -> PathBuf {
    repository().join("formats/tests/fixtures").join(name)
}

/// A folder with the spec of the fixtures.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(tempfile::tempdir().unwrap());
        let spec = "name = \"c4\"\n[model]\narch = \"condensenet\"\nstages = \"2-2-2\"\ngrowth = \"4-8-16\"\n\
                    [data]\ndataset = \"cifar10\"\n";
        std::fs::write(desk.path("c4.toml"), spec).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn import(&self, checkpoint: &Path, arguments: &[&str]) -> Said {
        let (spec, output) = (self.path("c4.toml"), self.path("model.safetensors"));
        let mut command = cnx(&["import"]);
        command.arg(checkpoint).arg("--spec").arg(spec).arg("-o").arg(output).args(arguments);
        run(&mut command)
    }

    /// Imports a state dict of the fixtures that somebody changed.
    fn import_changed(&self, change: impl FnOnce(&mut StateDict), arguments: &[&str]) -> Said {
        let bytes = std::fs::read(fixture("condensenet-c4.zip.pth.tar")).unwrap();
        let mut state = checkpoint::read(&bytes).unwrap().state;
        change(&mut state);
        std::fs::write(self.path("changed.pth"), pth::write(&state).unwrap()).unwrap();
        self.import(&self.path("changed.pth"), arguments)
    }

    fn refused(&self, said: &Said, why: &[&str]) {
        assert_eq!(said.code, 1, "{}", said.err);
        for why in why {
            assert!(said.err.contains(why), "expected: {why}\nfound: {}", said.err);
        }
        assert!(!self.path("model.safetensors").exists(), "nothing is written");
    }
}

#[test]
fn the_reference_s_checkpoints_become_models_that_carry_their_spec() {
    for (name, container, network) in [
        ("zip", "PyTorch's zip container", "large c4: 98 tensors, 14,490 parameters, condensed\n"),
        ("legacy", "PyTorch's legacy container", "large c4: 98 tensors, 14,490 parameters, condensed\n"),
        ("converted.legacy", "PyTorch's legacy container", "converted c4: 87 tensors, 9,130 parameters\n"),
    ] {
        let desk = Desk::new();
        let said = desk.import(&fixture(&format!("condensenet-c4.{name}.pth.tar")), &[]);
        let output = desk.path("model.safetensors");
        assert_eq!((said.code, said.out), (0, format!("{}\n", output.display())), "{}", said.err);
        assert!(said.err.contains(container) && said.err.contains(network), "{}", said.err);
        let model = safetensors::read(&std::fs::read(&output).unwrap()).unwrap();
        assert_eq!(cnx_proto::Spec::from_json(&model.spec_json.unwrap()).unwrap().name, "c4");
        // From here on no spec has to be named.
        let again = desk.path("again.safetensors");
        let said = run(cnx(&["import"]).arg(&output).arg("-o").arg(&again));
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(std::fs::read(again).unwrap(), std::fs::read(output).unwrap());
    }
}

#[test]
fn what_was_found_can_be_had_as_json() {
    let desk = Desk::new();
    let said = desk.import(&fixture("condensenet-c4.legacy.pth.tar"), &["--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    for (key, value) in [
        ("container", Value::from("torch-legacy")),
        ("key", "state_dict".into()),
        ("epoch", 3.into()),
        ("data_parallel", true.into()),
        ("model", "large".into()),
        ("parameters", 14490.into()),
        ("condensing_stage", 3.into()),
        ("condensing_stages", 3.into()),
        ("problems", Value::Array(vec![])),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused_with_every_mismatch() {
    let desk = Desk::new();
    let file = fixture("condensenet-c4.zip.pth.tar");
    let wrong = ["--set", "model.stages=2-3-2", "--set", "data.dataset=cifar100"];
    let said = desk.import(&file, &wrong);
    let why = [
        "features.denseblock_2.denselayer_3.* (13 tensors)",
        "features.denseblock_3.denselayer_1.conv_1._mask has shape [64, 32, 1, 1], expected [64, 40, 1, 1]",
        "more lines (`cnx import --json` lists all)",
        "hint: model.stages is 2-3-2 in the spec, but the file looks like 2-2-2",
        "hint: data.dataset is cifar100 in the spec, but the file looks like cifar10",
        "nothing was written",
    ];
    desk.refused(&said, &why);
    assert_eq!(said.out, "");

    let said = desk.import(&file, &[&wrong[..], &["--json"]].concat());
    assert_eq!(said.code, 1);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let problems = told["problems"].as_array().unwrap();
    assert!(said.err.contains(&format!("{} problems", problems.len())), "{}", said.err);
    let missing = problems.iter().filter(|problem| problem["problem"] == "missing").count();
    assert_eq!(missing, 13, "one dense layer");
    let classifier = problems.iter().find(|problem| problem["name"] == "classifier.weight").unwrap();
    assert_eq!((&classifier["problem"], &classifier["expected"][0]), (&"shape".into(), &100.into()));
    assert_eq!((&told["output"], told["hints"].as_array().unwrap().len()), (&Value::Null, 2));
}

#[test]
fn tensors_that_are_missing_extra_or_no_numbers_are_named() {
    let desk = Desk::new();
    let said = desk.import_changed(
        |state| {
            state.tensors.remove("classifier.bias");
            state.tensors.insert("fc.bias".to_owned(), Array::from_f32(vec![1], &[0.0]).unwrap());
            let nan = Array::from_f32(vec![64], &[f32::NAN; 64]).unwrap();
            state.tensors.insert("features.norm_last.weight".to_owned(), nan);
        },
        &[],
    );
    let why = [
        "3 problems",
        "classifier.bias is missing; expected of shape [10]",
        "fc.bias is not in this network; of shape [1]",
        "features.norm_last.weight has 64 of 64 elements that are NaN or infinite",
    ];
    desk.refused(&said, &why);
}

#[test]
fn a_half_condensed_mask_is_refused() {
    let desk = Desk::new();
    let layer = "features.denseblock_1.denselayer_1.conv_1";
    let said = desk.import_changed(
        |state| {
            let ones = Array::from_f32(vec![16, 8, 1, 1], &[1.0; 128]).unwrap();
            state.tensors.insert(format!("{layer}._mask"), ones);
        },
        &[],
    );
    let why = format!(
        "{layer}: its _mask has dropped 0 inputs per group (stage 0), but _count is 6 and _stage is 3"
    );
    desk.refused(&said, &[&why]);
}

#[test]
fn counts_that_old_files_lack_are_added_and_told() {
    let desk = Desk::new();
    let old = |state: &mut StateDict| state.tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
    let said = desk.import_changed(old, &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.err.contains("13 counts of batch norms, which PyTorch before 0.4.1 did not save, set to 0"),
        "{}",
        said.err
    );
}

#[test]
fn what_is_no_checkpoint_or_a_hostile_one_is_refused() {
    let desk = Desk::new();
    let whole = std::fs::read(fixture("condensenet-c4.legacy.pth.tar")).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"", "not a checkpoint: the file is empty"),
        (b"hello, world", "not a checkpoint: it begins with `hello, w`"),
        (&whole[..whole.len() / 2], "the file is damaged: it ends before its storage"),
        (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", "the callable `posix.system`"),
    ];
    for (bytes, why) in cases {
        std::fs::write(desk.path("bad.pth"), bytes).unwrap();
        desk.refused(&desk.import(&desk.path("bad.pth"), &[]), &[why, "bad.pth: "]);
    }
    desk.refused(&desk.import(desk.0.path(), &[]), &["is not a file; expected a model"]);
    desk.refused(&desk.import(&desk.path("none.pth"), &[]), &["cannot read the model", "No such file"]);
}

#[test]
fn without_a_spec_or_a_place_to_write_the_message_says_what_to_do() {
    let desk = Desk::new();
    let file = fixture("condensenet-c4.zip.pth.tar");
    let said = run(cnx(&["import"]).arg(&file).arg("-o").arg(desk.path("model.safetensors")));
    assert!(said.code == 2 && said.err.contains("carries no spec: give the config"), "{}", said.err);
    let spec = desk.path("c4.toml");
    let said =
        run(cnx(&["import"]).arg(&file).arg("--spec").arg(spec).arg("-o").arg(desk.path("none/model")));
    assert!(said.code == 1 && said.err.contains("there is no folder"), "{}", said.err);
    // An output that is there is left as it was when the import is refused.
    std::fs::write(desk.path("model.safetensors"), "mine").unwrap();
    assert_eq!(desk.import(&file, &["--set", "model.stages=2-3-2"]).code, 1);
    assert_eq!(std::fs::read_to_string(desk.path("model.safetensors")).unwrap(), "mine");
}
