//! What a person gets to read for what a person writes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io;
use std::path::Path;

use cnx_proto::file::{Override, parse};
use cnx_proto::spec::{Arch, Dataset, Spec, Step};
use cnx_proto::sweep::load;
use proptest::prelude::*;

const GOOD: &str = r#"name = "mine"

[model]
arch = "condensenet"
stages = "14-14-14"
growth = "8-16-32"

[data]
dataset = "cifar10"

[published]
top1_error = 5
"#;

fn good() -> Spec {
    parse("mine.toml", GOOD, &[]).unwrap()
}

fn complaint(text: &str) -> String {
    parse("mine.toml", text, &[]).unwrap_err().to_string()
}

fn complaint_with(overrides: &[&str]) -> String {
    let overrides: Vec<Override> = overrides.iter().map(|o| o.parse().unwrap()).collect();
    parse("mine.toml", GOOD, &overrides).unwrap_err().to_string()
}

#[test]
fn what_is_unsaid_is_the_papers() {
    let spec = good();
    assert_eq!((spec.model.group_1x1, spec.model.group_3x3, spec.model.condense_factor), (4, 4, 4));
    assert_eq!((spec.train.epochs, spec.train.batch_size, spec.train.lr), (300, 64, 0.1));
    assert_eq!(spec.run.steps, [Step::Train, Step::Evaluate, Step::Convert, Step::EvaluateConverted]);
    assert_eq!(spec.published.top1_error, Some(5.0));
    let imagenet = parse("i.toml", &GOOD.replace("cifar10", "imagenet"), &[]).unwrap();
    assert_eq!(
        (imagenet.train.epochs, imagenet.train.batch_size, imagenet.train.group_lasso),
        (120, 256, 1e-5)
    );
    let densenet = parse("d.toml", &GOOD.replace("condensenet", "densenet"), &[]).unwrap();
    assert_eq!((densenet.model.condense_factor, densenet.run.steps), (1, vec![Step::Train, Step::Evaluate]));
}

#[test]
fn stages_may_be_a_text_or_a_list() {
    let listed = parse("mine.toml", &GOOD.replace("\"14-14-14\"", "[14, 14, 14]"), &[]).unwrap();
    assert_eq!(listed, good());
}

#[test]
fn every_problem_is_said_at_once_with_its_line() {
    let text = GOOD
        .replace("growth = \"8-16-32\"", "growth = \"8-16\"\ngroth = 4")
        .replace("[data]", "[train]\nepochs = \"many\"\nlr = -1\n\n[data]");
    assert_eq!(
        complaint(&text),
        "mine.toml has 4 problems\n  \
         line 5: model.stages has 3 entries, growth has 2; give one growth rate per stage\n  \
         line 7: unknown key `groth` in [model]; did you mean `growth`?\n  \
         line 10: train.epochs: invalid type: string \"many\", expected a whole number from 0\n  \
         line 11: train.lr must be above 0, found -1"
    );
}

#[test]
fn a_misspelt_key_is_not_reported_missing_too() {
    let text = GOOD.replace("growth =", "groth =");
    assert_eq!(
        complaint(&text),
        "mine.toml has a problem\n  line 6: unknown key `groth` in [model]; did you mean `growth`?"
    );
}

#[test]
fn a_key_outside_its_section_is_sent_home() {
    assert!(
        complaint(&format!("epochs = 3\n{GOOD}"))
            .contains("line 1: unknown key `epochs`; it belongs in [train]")
    );
}

#[test]
fn what_does_not_divide_is_named_with_its_layer() {
    let found = complaint(&GOOD.replace("[data]", "condense_factor = 3\n[data]"));
    assert!(found.contains("line 8: model.condense_factor 3 does not divide the 16 inputs of features.denseblock_1.denselayer_1.conv_1;"), "{found}");
    let found = complaint(&GOOD.replace("8-16-32", "6-16-32"));
    assert!(found.contains("model.group_3x3 4 does not divide the 6 outputs of features.denseblock_1.denselayer_1.conv_2.conv"), "{found}");
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    assert!(
        complaint("name = \"x\"\n[model\n").contains("line 2: not TOML"),
        "{}",
        complaint("name = \"x\"\n[model\n")
    );
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let found = complaint("");
    for key in
        ["name is missing", "model.arch is missing", "data.dataset is missing", "model.stages is missing"]
    {
        assert!(found.contains(key), "{key} in {found}");
    }
}

#[test]
fn overrides_win_and_are_named_when_wrong() {
    let set: Vec<Override> = ["train.seed=3", "model.stages=2-2-2", "data.dataset=synthetic"]
        .iter()
        .map(|o| o.parse().unwrap())
        .collect();
    let spec = parse("mine.toml", GOOD, &set).unwrap();
    assert_eq!(
        (spec.train.seed, spec.model.stages.to_string(), spec.data.dataset),
        (3, "2-2-2".into(), Dataset::Synthetic)
    );
    assert_eq!(
        spec.published.top1_error, None,
        "a figure published for CIFAR-10 says nothing about another dataset"
    );
    assert!(
        complaint_with(&["train.sed=3"])
            .contains("--set train.sed=3: unknown key `sed` in [train]; did you mean `seed`?")
    );
    assert!(complaint_with(&["seed=3"]).contains("it belongs in [train]"));
    assert!(complaint_with(&["train.epochs=0"]).contains("--set train.epochs=0: train.epochs must be 1 to"));
    assert!("train.seed".parse::<Override>().unwrap_err().contains("KEY=VALUE"));
}

#[test]
fn impossible_values_are_refused() {
    for (set, expected) in [
        ("train.lr=nan", "train.lr must be above 0"),
        ("train.batch_size=0", "train.batch_size must be"),
        ("model.dropout=1.0", "model.dropout is a probability below 1"),
        ("model.stages=0-1-1", "model.stages needs 1 to"),
        ("model.stages=1-1-1-1-1-1-1", "halve the 32×32 map to nothing"),
        ("train.momentum=0", "train.nesterov needs a momentum above 0"),
        ("train.seed=-1", "train.seed"),
        ("run.steps=[\"convert\"]", "run.steps must start with train"),
        ("name=12", "name"),
        ("name=a/../b", "name must be letters"),
        ("data.workers=0", "data.workers must be"),
        ("train.precision=tf32", "train.precision is tf32, which only GPUs compute; set resources.gpus = 1"),
        ("train.precision=float16", "expected one of `float32`, `float64`, `tf32`, `bfloat16`"),
    ] {
        let set = if set == "model.stages=1-1-1-1-1-1-1" {
            vec![set, "model.growth=8-8-8-8-8-8-8"]
        } else {
            vec![set]
        };
        let found = complaint_with(&set);
        assert!(found.contains(expected), "{set:?}: {found}");
    }
}

#[test]
fn json_is_read_back_as_it_was_and_validated() {
    let spec = good();
    assert_eq!(Spec::from_json(&spec.to_json()).unwrap(), spec);
    let bad = spec.to_json().replace("\"stages\":\"14-14-14\"", "\"stages\":\"14-14\"");
    assert!(Spec::from_json(&bad).unwrap_err().contains("model.stages has 2 entries, growth has 3"));
    assert!(Spec::from_json("{}").is_err());
    assert!(Spec::from_json(&spec.to_json().replace("\"seed\"", "\"sede\"")).is_err());
}

#[test]
fn the_hash_is_of_what_decides_the_figures() {
    let spec = good();
    let changed = |set: &str| parse("mine.toml", GOOD, &[set.parse().unwrap()]).unwrap();
    for same in [
        "name=other",
        "published.top1_error=1",
        "data.workers=7",
        "data.root=/tmp",
        "resources.gpus=1",
        "resources.kernels=graph",
        "train.channels_last=false",
        "train.deterministic=true",
    ] {
        assert_eq!(changed(same).hash(), spec.hash(), "{same}");
    }
    for other in [
        "train.seed=1",
        "train.epochs=7",
        "model.growth=8-16-64",
        "data.dataset=cifar100",
        "train.lr=0.2",
        "train.precision=bfloat16",
        "train.channels_last=true",
        "train.deterministic=false",
    ] {
        assert_ne!(changed(other).hash(), spec.hash(), "{other}");
    }
    assert_eq!(changed("train.seed=1").group_hash(), spec.group_hash());
    assert_ne!(changed("train.lr=0.2").group_hash(), spec.group_hash());
}

/// Reads from a small set of named texts.
#[test]
fn a_new_key_leaves_the_hashes_of_old_specs_as_they_were() {
    // Hashes stand in databases: what they are of changes for new specs only.
    let config = include_str!("../../configs/condensenet-86.toml");
    let spec = parse("condensenet-86.toml", config, &[]).unwrap();
    assert_eq!(spec.hash(), "af8e1c3f02798bc01eea50da60ef37a9b6df0651b1424c53eea7409900a36965");
    for unsaid in ["from", "channels_last", "deterministic"] {
        assert!(!spec.to_json().contains(unsaid), "{}", spec.to_json());
    }
    assert!(spec.train.deterministic && !spec.train.channels_last);
}

fn files<'a>(named: &'a [(&'a str, &'a str)]) -> impl Fn(&Path) -> io::Result<String> + 'a {
    move |path| {
        let found = named.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn expand(sweep: &str) -> Result<Vec<(String, u64, f64)>, String> {
    let named = [("s/sweep.toml", sweep), ("s/../mine.toml", GOOD)];
    let loaded = load(Path::new("s/sweep.toml"), &[], &files(&named)).map_err(|p| p.to_string())?;
    Ok(loaded.experiments.into_iter().map(|s| (s.name, s.train.seed, s.train.lr)).collect())
}

#[test]
fn a_sweep_expands_grid_zip_and_list() {
    let grid =
        expand("name = \"s\"\nbase = \"../mine.toml\"\n[grid]\ntrain.lr = [0.1, 0.2]\ntrain.seed = [0, 1]")
            .unwrap();
    let name = |n: &str| n.to_owned();
    assert_eq!(
        grid,
        [
            (name("mine-lr=0.1"), 0, 0.1),
            (name("mine-lr=0.1"), 1, 0.1),
            (name("mine-lr=0.2"), 0, 0.2),
            (name("mine-lr=0.2"), 1, 0.2)
        ]
    );
    let zip = expand(
        "name = \"s\"\nbase = \"../mine.toml\"\n[zip]\n\"train.lr\" = [0.1, 0.2]\n\"train.epochs\" = [7, 8]",
    )
    .unwrap();
    assert_eq!(
        zip.iter().map(|z| z.0.as_str()).collect::<Vec<_>>(),
        ["mine-epochs=7-lr=0.1", "mine-epochs=8-lr=0.2"]
    );
    let list = expand("name = \"s\"\nbase = \"../mine.toml\"\n[[list]]\nname = \"fast\"\n\"train.lr\" = 0.5\n[[list]]\n\"train.lr\" = 0.6").unwrap();
    assert_eq!(list.iter().map(|z| z.0.as_str()).collect::<Vec<_>>(), ["fast", "mine-lr=0.6"]);
}

#[test]
fn a_wrong_sweep_says_so() {
    for (sweep, expected) in [
        ("base = \"../mine.toml\"", "name is missing"),
        ("name = \"s\"\nexperiments = []", "line 2: experiments is a list of config files"),
        (
            "name = \"s\"\nbase = \"../mine.toml\"\ngird = 1",
            "line 3: unknown key `gird` in a sweep; did you mean `grid`?",
        ),
        (
            "name = \"s\"\nbase = \"../mine.toml\"\n[grid]\ntrain.seed = 1",
            "line 3: [grid] needs a list of values for train.seed",
        ),
        (
            "name = \"s\"\nbase = \"../mine.toml\"\n[zip]\ntrain.seed = [1]\ntrain.lr = [1, 2]",
            "[zip] needs lists of one length",
        ),
        ("name = \"s\"\nbase = \"../other.toml\"", "other.toml has a problem\n  it cannot be read"),
        (
            "name = \"s\"\nbase = \"../mine.toml\"\n[grid]\ntrain.sede = [1]",
            "mine.toml has a problem\n  --set train.sede=1: unknown key `sede`",
        ),
    ] {
        let found = expand(sweep).unwrap_err();
        assert!(found.contains(expected), "{sweep}: {found}");
    }
}

#[test]
fn setting_what_a_sweep_varies_is_refused() {
    let sweep = "name = \"s\"\nbase = \"../mine.toml\"\n[grid]\ntrain.seed = [0, 1]";
    let named = [("s/sweep.toml", sweep), ("s/../mine.toml", GOOD)];
    let found =
        load(Path::new("s/sweep.toml"), &["train.seed=3".parse().unwrap()], &files(&named)).unwrap_err();
    assert!(found.to_string().contains("the sweep varies this key"), "{found}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse("x.toml", &text, &[]);
        let _ = Spec::from_json(&text);
    }

    #[test]
    fn no_mutated_file_panics(at in 0..GOOD.len(), with in "[ -~\\n]{0,6}") {
        let mut text = GOOD.to_owned();
        text.replace_range(at..at + 1, &with);
        if let Ok(spec) = parse("x.toml", &text, &[]) {
            prop_assert_eq!(Spec::from_json(&spec.to_json()).unwrap(), spec);
        }
    }

    /// Whatever numbers a spec names, it is refused or its cost can be counted.
    #[test]
    fn any_shape_is_refused_or_counted(
        stages in prop::collection::vec(0u32..40, 0..6),
        growth in prop::collection::vec(0u32..70, 0..6),
        groups in 0u32..10, factor in 0u32..10, arch in 0..Arch::ALL.len(),
    ) {
        let mut spec = good();
        spec.model.arch = Arch::ALL[arch];
        spec.model.stages.0 = stages;
        spec.model.growth.0 = growth;
        spec.model.group_1x1 = groups;
        spec.model.condense_factor = factor;
        spec.run.steps.truncate(if spec.model.arch.condenses() { 4 } else { 2 });
        if let Ok(valid) = Spec::from_json(&spec.to_json()) {
            let cost = cnx_proto::cost::cost(&valid);
            prop_assert!(cost.flops > 0 && cost.params > 0);
            if groups <= factor {
                prop_assert!(cost.converted_flops <= cost.flops && cost.converted_params <= cost.params);
            }
        }
    }
}

#[test]
fn what_asks_for_no_memory_and_no_label_reads_as_it_did_before_there_were_any() {
    let spec = good();
    let json = spec.to_json();
    assert!(!json.contains("memory_gib") && !json.contains("labels"), "{json}");
    assert_eq!(Spec::from_json(&json), Ok(spec.clone()));
    let mut wanting = spec.clone();
    wanting.resources.memory_gib = 8;
    wanting.resources.labels = vec!["a100".into()];
    assert_eq!(Spec::from_json(&wanting.to_json()), Ok(wanting.clone()));
    assert_eq!(wanting.hash(), spec.hash());
}
