//! Without a coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::{cnx, config, repository, run, script};

#[test]
fn the_help_is_as_it_was_agreed() {
    let help = run(&mut cnx(&["--help"]));
    assert_eq!(help.code, 0);
    let snapshot = repository().join("cli/tests/help.txt");
    // To accept a change: CNX_UPDATE_SNAPSHOTS=1 cargo test -p cnx-cli --release
    if std::env::var_os("CNX_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&snapshot, &help.out).unwrap();
    }
    assert_eq!(help.out, std::fs::read_to_string(&snapshot).unwrap());
}

#[test]
fn every_verb_shows_examples() {
    let verbs = "submit,status,logs,cancel,retry,results,workers,inspect,import,evaluate,convert,export,predict,bench latency,data synth,data fetch,\
                 data import,data pack,data verify,up,down,backup,restore,doctor,completions";
    for verb in verbs.split(',') {
        let mut args: Vec<&str> = verb.split(' ').collect();
        args.push("--help");
        let help = run(&mut cnx(&args));
        assert!(help.code == 0 && help.out.contains("Examples:\n  cnx"), "{verb}: {}", help.out);
    }
}

/// Config, then FLOPs, parameters, the same converted, multiply-adds of convolutions and fully connected layers, and of the
/// convolutions alone; counted by another program, from the networks' papers.
const COSTS: &[(&str, [u64; 6])] = &[
    ("condensenet-50.toml", [28641834, 216506, 28639514, 214186, 27185696, 27181056]),
    ("condensenet-74.toml", [51897066, 405466, 51893626, 402026, 49208032, 49201152]),
    ("condensenet-86.toml", [65816394, 520202, 65812394, 516202, 62381888, 62373888]),
    ("condensenet-98.toml", [81263530, 648442, 81258970, 643882, 76997536, 76988416]),
    ("condensenet-110.toml", [98238474, 790186, 98233354, 785066, 93054976, 93044736]),
    ("condensenet-122.toml", [116741226, 945434, 116735546, 939754, 110554208, 110542848]),
    ("condensenet-182.toml", [512671594, 4221946, 512658874, 4209226, 493929312, 493903872]),
    ("densenet-100.toml", [292377190, 769162, 292377190, 769162, 287929692, 287926272]),
    ("cifar100/condensenet-86.toml", [65888484, 592292, 65848484, 552292, 62453888, 62373888]),
    ("cifar100/condensenet-182.toml", [512900644, 4450996, 512773444, 4323796, 494158272, 493903872]),
    ("imagenet/condensenet-74-g4.toml", [530360264, 5805944, 529328264, 4773944, 517672576, 515608576]),
    ("imagenet/condensenet-74-g8.toml", [275265480, 3967416, 274233480, 2935416, 262577792, 260513792]),
    ("imagenet/vgg-16.toml", [15489950696, 138357544, 15489950696, 138357544, 15470264320, 15346630656]),
    ("imagenet/resnet-18.toml", [1818213864, 11689512, 1818213864, 11689512, 1814073344, 1813561344]),
    ("imagenet/mobilenet.toml", [573834216, 4231976, 573834216, 4231976, 568740352, 567716352]),
    ("imagenet/shufflenet.toml", [141655288, 1865728, 141655288, 1865728, 137460672, 136500672]),
    ("demo/tiny.toml", [804978, 4434, 804798, 4254, 741736, 741376]),
    ("demo/small.toml", [1478282, 9450, 1477962, 9130, 1352320, 1351680]),
    ("demo/medium.toml", [1960314, 14714, 1959874, 14274, 1803120, 1802240]),
];

fn inspected(file: &str) -> Vec<Value> {
    let said = run(&mut cnx(&["inspect", "--json", file]));
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{file}");
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn inspect_counts_every_shipped_config_to_the_last_digit() {
    let costs: BTreeMap<&str, [u64; 6]> = COSTS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for folder in ["", "cifar100", "imagenet", "demo", "sweeps"] {
        for entry in std::fs::read_dir(repository().join("configs").join(folder)).unwrap() {
            let name = Path::new(folder).join(entry.unwrap().file_name()).display().to_string();
            if name.ends_with(".toml") && !seen.contains(&name) {
                let all = inspected(&config(&name));
                if let Some(expected) = costs.get(name.as_str()) {
                    let keys = ["flops", "params", "converted_flops", "converted_params"].into_iter();
                    let found: Vec<_> = keys
                        .chain(["multiply_adds", "conv_multiply_adds"])
                        .map(|key| all[0][key].as_u64().unwrap())
                        .collect();
                    assert_eq!((all.len(), found.as_slice()), (1, &expected[..]), "{name}");
                } else {
                    assert!(all.len() > 1, "{name} is a sweep, or its costs are missing here");
                }
                seen.insert(name);
            }
        }
    }
    assert!(costs.keys().all(|name| seen.contains(*name)), "{seen:?}");
}

#[test]
fn inspect_lists_a_sweep_after_a_config() {
    let said =
        run(&mut cnx(&["inspect", "--json", &config("condensenet-86.toml"), &config("sweeps/cifar10.toml")]));
    let all: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    assert_eq!(all.len(), 22, "the config, and 7 models with 3 seeds each");
    assert_eq!(all[0]["name"], "condensenet-86");
}

#[test]
fn what_a_network_does_not_have_is_left_out() {
    let said =
        run(&mut cnx(&["inspect", &config("imagenet/vgg-16.toml"), &config("imagenet/resnet-18.toml")]));
    let header = said.out.lines().next().unwrap();
    let words: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(
        words,
        ["EXPERIMENT", "DATASET", "FLOPS", "PARAMS", "TOP-1", "PUBL.", "SEEDS"],
        "{}",
        said.out
    );
}

#[test]
fn a_bad_config_is_a_usage_error_with_all_its_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let text = "name = \"mine\"\n[model]\narch = \"condensenet\"\nstages = \"8-8-8\"\ngroth = \"8-16-32\"\n[data]\ndataset = \"cifar11\"\n";
    std::fs::write(&file, text).unwrap();
    let said = run(cnx(&["submit", file.to_str().unwrap()]).env("CNX_STATE", folder.path()));
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    for expected in [
        "has 2 problems",
        "line 5: unknown key `groth`",
        "did you mean `growth`",
        "line 7",
        "nothing was queued",
    ] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
}

#[test]
fn without_a_coordinator_the_message_says_how_to_start_one() {
    let state = tempfile::tempdir().unwrap();
    for verb in [&["status"][..], &["results"], &["cancel", "1"], &["logs"], &["workers"]] {
        let said = run(cnx(verb).env("CNX_STATE", state.path()));
        assert_eq!((said.code, said.out.as_str()), (3, ""), "{verb:?}");
        assert!(
            said.err.contains("no coordinator answers at") && said.err.contains("`cnx up`"),
            "{}",
            said.err
        );
    }
    // One that was killed leaves its address behind.
    std::fs::write(state.path().join("endpoint"), "http://127.0.0.1:1").unwrap();
    let said = run(cnx(&["status"]).env("CNX_STATE", state.path()));
    assert!(said.code == 3 && said.err.contains("no coordinator answers at 127.0.0.1:1"), "{}", said.err);
}

#[test]
fn a_dry_run_needs_no_coordinator() {
    let state = tempfile::tempdir().unwrap();
    let said =
        run(cnx(&["submit", &config("sweeps/cifar10.toml"), "--dry-run"]).env("CNX_STATE", state.path()));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("condensenet-182  30-30-30  12-24-48"), "{}", said.out);
    assert!(said.err.contains("sweep cifar10: 21 experiments (7 models × 3 seeds)"), "{}", said.err);
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    for args in
        [&["completions", "bash"][..], &["--help"], &["inspect", "--json", &config("sweeps/cifar10.toml")]]
    {
        let mut child = cnx(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let said = crate::said(child.wait_with_output().unwrap());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn colours_are_for_terminals() {
    let said = run(&mut cnx(&["inspect", &config("condensenet-86.toml")]));
    assert!(!said.out.contains('\x1b'), "{:?}", said.out);
}

#[test]
fn evaluating_hands_the_worker_the_spec_in_json_and_keeps_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("worker");
    script(&worker, "echo \"$@\"; cat \"$4\"; exit 2");
    let spec = config("condensenet-86.toml");
    let args = [
        &["evaluate", "m.safetensors", "--spec", &spec, "--set", "train.seed=5", "--data", "/d"][..],
        &["--engine", "native", "--json"],
    ]
    .concat();
    let said = run(cnx(&args).env("CNX_WORKER", &worker));
    assert_eq!((said.code, said.err.as_str()), (2, ""));
    let (arguments, json) = said.out.split_once('\n').unwrap();
    assert!(
        arguments.starts_with("evaluate m.safetensors --spec /")
            && arguments.ends_with(" --data /d --engine native --json"),
        "{arguments}"
    );
    assert_eq!(cnx_proto::Spec::from_json(json).unwrap().train.seed, 5);
    let file = arguments.split(' ').nth(3).unwrap();
    assert!(!std::path::Path::new(file).exists(), "the temporary file is gone");
}

#[test]
fn an_engine_that_there_is_not_is_wrong_usage() {
    let said = run(&mut cnx(&["evaluate", "m.safetensors", "--engine", "fast"]));
    assert!(said.code == 2 && said.err.contains("expected libtorch or native"), "{}", said.err);
}

#[test]
fn converting_names_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("worker");
    script(&worker, "echo \"$@\"");
    let said = run(cnx(&["convert", "m.safetensors", "-o", "c.safetensors"]).env("CNX_WORKER", &worker));
    assert_eq!((said.code, said.out.as_str()), (0, "convert m.safetensors -o c.safetensors\n"));
}

#[test]
fn generated_data_passes_its_own_check() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    let set = set.to_str().unwrap();
    let said = run(&mut cnx(&["data", "synth", set, "--train", "50", "--test", "20"]));
    assert_eq!((said.code, said.out), (0, format!("{set}\n")));
    let said = run(&mut cnx(&["data", "verify", set]));
    assert!(
        said.code == 0 && said.out.contains("fine; 50 training and 20 test images of 10 classes"),
        "{}",
        said.out
    );
    std::fs::write(format!("{set}/test_batch.bin"), [9; 100]).unwrap();
    let said = run(&mut cnx(&["data", "verify", set]));
    assert!(said.code == 1 && said.err.contains("test_batch.bin has 100 bytes"), "{}", said.err);
    let said = run(&mut cnx(&["data", "verify", folder.path().join("none").to_str().unwrap()]));
    assert!(said.code == 1 && said.err.contains("no dataset in"), "{}", said.err);
}

#[test]
fn class_folders_are_packed_once_and_both_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (set, pack) = (folder.path().join("imagenet"), folder.path().join("imagenet-packed"));
    let jpeg = {
        let pixels = (0..3 * 40 * 30).map(|i| (i % 251) as u8).collect();
        cnx_images::decode::encode_jpeg(&cnx_images::raster::Raster { width: 40, height: 30, pixels }, 90)
    };
    let jpeg = jpeg.expect("encoded");
    for class in ["n01440764", "n01443537"] {
        for split in ["train", "val"] {
            std::fs::create_dir_all(set.join(split).join(class)).expect("made");
            std::fs::write(set.join(split).join(class).join("1.JPEG"), &jpeg).expect("written");
        }
    }
    let set_name = set.to_str().expect("text");
    let said = run(&mut cnx(&["data", "pack", set_name]));
    assert_eq!((said.code, said.out.trim()), (0, pack.to_str().expect("text")), "{}", said.err);
    assert!(said.err.contains("4 images of 2 classes"), "{}", said.err);
    let said = run(&mut cnx(&["data", "pack", set_name]));
    assert!(said.code == 0 && said.err.contains("packed already"), "{}", said.err);
    // The folder that holds both.
    let said = run(&mut cnx(&["data", "verify", folder.path().to_str().expect("text")]));
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "imagenet: fine; 2 training and 2 test images of 2 classes, in folders",
        "imagenet-packed: fine; 2 training",
    ] {
        assert!(said.out.contains(line), "{}", said.out);
    }
    std::fs::write(set.join("val/n01440764/1.JPEG"), &jpeg[..100]).expect("written");
    let said = run(&mut cnx(&["data", "verify", set_name]));
    assert!(
        said.code == 1 && said.err.contains("1 damaged images") && said.err.contains("n01440764/1.JPEG"),
        "{}",
        said.err
    );
    let said = run(&mut cnx(&["data", "pack", set_name]));
    assert!(said.code == 1 && said.err.contains("other images"), "{}", said.err);
}
