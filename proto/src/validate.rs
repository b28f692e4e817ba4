//! What makes a spec impossible, beyond the types of its values. Every problem is found, not only the first.

use std::fmt;

use crate::architecture::{Form, Layer, Op, layers};
use crate::recipe::recipe;
use crate::spec::{Arch, Dataset, Engine, Precision, Run, Spec, Step};

/// Something wrong with a spec: which key, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Section and key, e.g. `model.stages`.
    pub key: String,
    /// What is wrong, what was expected, what to do; reads on from the key.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)
    }
}

/// Bounds that keep a hostile or mistyped spec from asking for a network that no machine holds.
const MAX_STAGES: usize = 16;
const MAX_LAYERS: u32 = 1000;
const MAX_GROWTH: u32 = 4096;
/// Most epochs that a spec may ask for.
pub const MAX_EPOCHS: u32 = 1_000_000;
const MAX_BATCH: u32 = 1 << 20;

/// Labels that a spec or a worker may have.
pub const MAX_LABELS: usize = 16;

/// Every problem of a spec, in the order of its keys; none means that it can be run.
pub fn problems(spec: &Spec) -> Vec<Problem> {
    let mut found = Findings::default();
    name(spec, &mut found);
    if !spec.model.arch.is_dense() {
        fixed_shape(spec, &mut found);
    } else if shape(spec, &mut found) {
        divisibility(spec, &mut found);
    }
    data(spec, &mut found);
    training(spec, &mut found);
    steps(&spec.run, spec.model.arch, &mut found);
    found.0
}

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    /// Notes a problem unless `fine`.
    fn require(&mut self, fine: bool, key: &str, message: impl FnOnce() -> String) {
        if !fine {
            self.0.push(Problem { key: key.to_owned(), message: message() });
        }
    }
}

/// Whether a text may name an experiment or a sweep: letters, digits and `. _ + = -`, at most 128 of them, and nothing
/// that reads as an ID, since IDs and names are interchangeable on the command line.
pub fn is_name(text: &str) -> bool {
    let reads_as_id = text == "last" || text.chars().all(|c| c.is_ascii_digit());
    text.chars().all(in_names) && text.len() <= 128 && !reads_as_id
}

/// Whether a name may hold this character.
pub(crate) fn in_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._+=-".contains(c)
}

/// What [`is_name`] asks for, in words.
pub(crate) const NAME_RULE: &str = "must be letters, digits and . _ + = - (at most 128, and not only digits)";

fn name(spec: &Spec, found: &mut Findings) {
    let name = &spec.name;
    found.require(!name.is_empty(), "name", || "is missing; e.g. name = \"condensenet-86\"".into());
    found.require(name.is_empty() || is_name(name), "name", || format!("{NAME_RULE}, found {name:?}"));
}

/// Checks lists and scalars of `[model]`; true if the layers can be laid out.
fn shape(spec: &Spec, found: &mut Findings) -> bool {
    let model = &spec.model;
    let before = found.0.len();
    let (stages, growth) = (&model.stages, &model.growth);
    let entries = |n: usize| if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") };
    found.require(!stages.is_empty(), "model.stages", || "is missing; e.g. stages = \"14-14-14\"".into());
    found.require(!growth.is_empty(), "model.growth", || "is missing; e.g. growth = \"8-16-32\"".into());
    found.require(
        stages.len() == growth.len() || stages.is_empty() || growth.is_empty(),
        "model.stages",
        || {
            format!(
                "has {}, growth has {}; give one growth rate per stage",
                entries(stages.len()),
                growth.len()
            )
        },
    );
    found.require(stages.len() <= MAX_STAGES, "model.stages", || {
        format!("has more than {MAX_STAGES} entries")
    });
    found.require(stages.iter().all(|&s| (1..=MAX_LAYERS).contains(&s)), "model.stages", || {
        format!("needs 1 to {MAX_LAYERS} layers in every stage, found {stages}")
    });
    found.require(growth.iter().all(|&g| (1..=MAX_GROWTH).contains(&g)), "model.growth", || {
        format!("must be 1 to {MAX_GROWTH} in every stage, found {growth}")
    });
    let halvings = stages.len().saturating_sub(1) as u32;
    let size = spec.data.dataset.image_size() >> if spec.data.dataset == Dataset::ImageNet { 1 } else { 0 };
    found.require(size.checked_shr(halvings).is_some_and(|s| s > 0), "model.stages", || {
        format!(
            "has {}, which halve the {size}×{size} map to nothing; use fewer stages",
            entries(stages.len())
        )
    });
    for (key, value) in [
        ("model.bottleneck", model.bottleneck),
        ("model.group_1x1", model.group_1x1),
        ("model.group_3x3", model.group_3x3),
        ("model.condense_factor", model.condense_factor),
    ] {
        found.require((1..=1024).contains(&value), key, || format!("must be 1 to 1024, found {value}"));
    }
    probability(model.dropout, found);
    found.require(model.reduction > 0.0 && model.reduction <= 1.0, "model.reduction", || {
        format!("is a share above 0 and at most 1, found {}", model.reduction)
    });
    if !model.arch.condenses() {
        found.require(model.condense_factor == 1, "model.condense_factor", || {
            format!(
                "must be 1: {} has no learned group convolutions to condense (densenet-lgc has)",
                model.arch
            )
        });
    }
    found.0.len() == before
}

/// A network of one shape takes nothing from `[model]` but its name, and VGG-16 its dropout.
fn fixed_shape(spec: &Spec, found: &mut Findings) {
    let (model, arch) = (&spec.model, spec.model.arch);
    let plain = recipe(arch, spec.data.dataset).model;
    for (key, fine) in [
        ("model.stages", model.stages == plain.stages),
        ("model.growth", model.growth == plain.growth),
        ("model.bottleneck", model.bottleneck == plain.bottleneck),
        ("model.group_1x1", model.group_1x1 == plain.group_1x1),
        ("model.group_3x3", model.group_3x3 == plain.group_3x3),
        ("model.condense_factor", model.condense_factor == plain.condense_factor),
        ("model.reduction", model.reduction == plain.reduction),
    ] {
        found.require(fine, key, || format!("must be left out: {arch} has one shape only"));
    }
    let has_dropout = arch == Arch::Vgg16;
    found.require(has_dropout || model.dropout == 0.0, "model.dropout", || {
        format!("must be left out: {arch} has no dropout")
    });
    probability(model.dropout, found);
    let dataset = spec.data.dataset;
    found.require(arch != Arch::Vgg16 || dataset.image_size() == 224, "data.dataset", || {
        format!(
            "is {dataset}, of {0}×{0} images, but vgg-16's fully connected layers need those of 224×224; use imagenet",
            dataset.image_size()
        )
    });
}

fn probability(dropout: f64, found: &mut Findings) {
    found.require((0.0..1.0).contains(&dropout), "model.dropout", || {
        format!("is a probability below 1, found {dropout}")
    });
}

/// Channels must divide by the groups and the condense factor; names the first layer where they do not.
fn divisibility(spec: &Spec, found: &mut Findings) {
    let layers = layers(&spec.model, spec.data.dataset, Form::Large);
    for rule in [&condense_factor as &Rule, &outputs_by_groups, &inputs_by_groups] {
        if let Some((key, message)) = layers.iter().find_map(rule) {
            found.require(false, key, || message);
        }
    }
}

type Rule = dyn Fn(&Layer) -> Option<(&'static str, String)>;

fn condense_factor(layer: &Layer) -> Option<(&'static str, String)> {
    let Op::LearnedGroupConv { condense_factor, .. } = layer.op else { return None };
    let (c, inputs) = (u64::from(condense_factor), layer.in_channels);
    (!inputs.is_multiple_of(c)).then(|| {
        let message = format!(
            "{c} does not divide the {inputs} inputs of {}; choose one that divides every growth rate",
            layer.name
        );
        ("model.condense_factor", message)
    })
}

fn outputs_by_groups(layer: &Layer) -> Option<(&'static str, String)> {
    let (key, groups) = groups(layer)?;
    (!layer.out_channels.is_multiple_of(groups)).then(|| {
        let message = format!(
            "{groups} does not divide the {} outputs of {}; choose a number that divides every growth rate",
            layer.out_channels, layer.name
        );
        (key, message)
    })
}

fn inputs_by_groups(layer: &Layer) -> Option<(&'static str, String)> {
    // A learned group convolution chooses its inputs: they need not divide by its groups.
    let Op::Conv { .. } = layer.op else { return None };
    let (key, groups) = groups(layer)?;
    (!layer.in_channels.is_multiple_of(groups)).then(|| {
        let message = format!(
            "{groups} does not divide the {} inputs of {}; choose a number that divides every growth rate",
            layer.in_channels, layer.name
        );
        (key, message)
    })
}

fn groups(layer: &Layer) -> Option<(&'static str, u64)> {
    match layer.op {
        Op::Conv { kernel: 1, groups, .. } | Op::LearnedGroupConv { groups, .. } => {
            Some(("model.group_1x1", u64::from(groups)))
        }
        Op::Conv { groups, .. } => Some(("model.group_3x3", u64::from(groups))),
        _ => None,
    }
}

fn data(spec: &Spec, found: &mut Findings) {
    let data = &spec.data;
    found.require((1..=256).contains(&data.workers), "data.workers", || {
        format!("must be 1 to 256 threads, found {}", data.workers)
    });
    for (key, images) in [("data.train_images", data.train_images), ("data.test_images", data.test_images)] {
        found.require(images.is_none_or(|n| (1..=10_000_000).contains(&n)), key, || {
            format!("must be 1 to 10000000, found {}", images.unwrap_or_default())
        });
    }
}

fn training(spec: &Spec, found: &mut Findings) {
    let train = &spec.train;
    let (key, epochs) = ("train.epochs", train.epochs);
    found.require((1..=MAX_EPOCHS).contains(&epochs), key, || {
        format!("must be 1 to {MAX_EPOCHS}, found {epochs}")
    });
    found.require((1..=MAX_BATCH).contains(&train.batch_size), "train.batch_size", || {
        format!("must be 1 to {MAX_BATCH} images, found {}", train.batch_size)
    });
    found.require(train.lr > 0.0 && train.lr.is_finite(), "train.lr", || {
        format!("must be above 0, found {}", train.lr)
    });
    found.require((0.0..1.0).contains(&train.momentum), "train.momentum", || {
        format!("must be at least 0 and below 1, found {}", train.momentum)
    });
    found.require(!train.nesterov || train.momentum > 0.0, "train.nesterov", || {
        "needs a momentum above 0; set nesterov = false".into()
    });
    for (key, value) in [("train.weight_decay", train.weight_decay), ("train.group_lasso", train.group_lasso)]
    {
        found
            .require(value >= 0.0 && value.is_finite(), key, || format!("must be at least 0, found {value}"));
    }
    // TOML's whole numbers are signed; a larger seed could not be written back to a file.
    found.require(i64::try_from(train.seed).is_ok(), "train.seed", || {
        format!("must be at most {}, found {}", i64::MAX, train.seed)
    });
    found.require(train.precision != Precision::Tf32 || spec.resources.gpus > 0, "train.precision", || {
        "is tf32, which only GPUs compute; set resources.gpus = 1, or precision = \"float32\"".into()
    });
    found.require((1..=1000).contains(&spec.resources.max_attempts), "resources.max_attempts", || {
        format!("must be 1 to 1000, found {}", spec.resources.max_attempts)
    });
    found.require(spec.resources.threads <= 4096, "resources.threads", || {
        format!("must be at most 4096, found {}", spec.resources.threads)
    });
    found.require(spec.resources.memory_gib <= 1 << 20, "resources.memory_gib", || {
        format!("must be at most {}, found {}", 1 << 20, spec.resources.memory_gib)
    });
    labels(&spec.resources.labels, found);
}

/// Labels of an experiment and of a worker are the same words.
fn labels(labels: &[String], found: &mut Findings) {
    let key = "resources.labels";
    found.require(labels.len() <= MAX_LABELS, key, || {
        format!("has {} entries, expected at most {MAX_LABELS}", labels.len())
    });
    found.require(labels.iter().all(|label| is_label(label)), key, || {
        format!("must be 1 to 64 letters, digits and . _ + = - each, found {labels:?}")
    });
}

/// Whether a text can be a label.
pub fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+=-".contains(c))
}

fn steps(run: &Run, arch: Arch, found: &mut Findings) {
    let has = |step| run.steps.contains(&step);
    let native = run.engine == Engine::Native;
    found.require(!native || arch.is_dense(), "run.engine", || {
        format!("is native, which runs condensenet, densenet-lgc and densenet, not {arch}; leave it out")
    });
    let times = run.steps == [Step::Latency];
    found.require(!native || run.from.is_some() || times, "run.engine", || {
        "is native, which evaluates a model that run.from gives; leave it out of a training".into()
    });
    let key = "run.steps";
    found.require(run.steps.is_sorted() && run.steps.windows(2).all(|w| w[0] != w[1]), key, || {
        "must name each step once, in this order: train, evaluate, convert, evaluate-converted".into()
    });
    found.require(arch.condenses() || !has(Step::Convert), key, || {
        format!("names convert, but {arch} has no learned group convolutions to convert")
    });
    found.require(!has(Step::Latency) || times && run.from.is_none(), key, || {
        "names latency, which stands alone: it takes random weights, and neither trains nor reads a model"
            .into()
    });
    match &run.from {
        None if times => {}
        Some(from) => steps_of_a_job(run, from, found),
        None => {
            found.require(has(Step::Train), key, || {
                "must start with train: an attempt makes its own model, unless run.from gives one".into()
            });
            found.require(has(Step::Convert) || !has(Step::EvaluateConverted), key, || {
                "names evaluate-converted, which needs convert before it".into()
            });
            found.require(run.from_sha256.is_none(), "run.from_sha256", || {
                "is the hash of a model that run.from names; give both or neither".into()
            });
        }
    }
}

fn steps_of_a_job(run: &Run, from: &str, found: &mut Findings) {
    let has = |step| run.steps.contains(&step);
    let key = "run.steps";
    found.require(!run.steps.is_empty(), key, || {
        "names nothing to do with the model of run.from; e.g. steps = [\"evaluate\"]".into()
    });
    found.require(!has(Step::Train), key, || {
        "names train, but run.from gives the model already; leave train out".into()
    });
    // A file holds one model: as trained, or converted.
    let both = has(Step::Evaluate) && has(Step::EvaluateConverted) && !has(Step::Convert);
    found.require(!both, key, || {
        "names evaluate and evaluate-converted, but no convert between them; of a converted model evaluate-converted \
         alone is right"
            .into()
    });
    found.require(crate::job::is_place(from), "run.from", || {
        format!("is the absolute path of a file on the worker, or the name of an artifact, found {from:?}")
    });
    let is_hash =
        |hash: &String| hash.len() == 64 && hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    found.require(run.from_sha256.as_ref().is_some_and(is_hash), "run.from_sha256", || {
        match &run.from_sha256 {
            None => {
                "is missing: run.from needs it, so that the figures are of that file; sha256sum prints it"
                    .into()
            }
            Some(hash) => format!("must be 64 hexadecimal digits in lower case, found {hash:?}"),
        }
    });
}
