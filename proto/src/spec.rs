//! The spec: all that decides what an experiment computes. Defined once, here. TOML is its file form
//! ([`crate::file`]), JSON its form on the wire and in the database.
//!
//! Every field is always present: what a file leaves out is filled in from the paper's recipe for its
//! architecture and dataset ([`crate::recipe`]), so a stored spec never depends on defaults that may change.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dashed::Dashed;

/// Defines a section of the spec, once: the struct, its serde form, and the table of its keys with the type
/// check of each that lets [`crate::file`] report every problem of a file at once.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }

        impl $name {
            /// The keys of this section, in the order of the struct.
            pub(crate) const KEYS: &'static [Key] = &[$(Key { name: stringify!($field), check: check::<$ty> },)*];
        }
    };
}

/// A key of a section and whether a value has its type.
pub(crate) struct Key {
    pub name: &'static str,
    pub check: fn(toml::Value) -> Result<(), String>,
}

fn check<T: serde::de::DeserializeOwned>(value: toml::Value) -> Result<(), String> {
    value.try_into::<T>().map(drop).map_err(|error| in_words(error.message()))
}

/// Rust's names of types, as a person who writes TOML calls them.
fn in_words(message: &str) -> String {
    let words = [
        ("expected u32", "expected a whole number from 0"),
        ("expected u64", "expected a whole number from 0"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
    ];
    let message = message.trim_end().to_owned();
    words.iter().fold(message, |text, (rust, plain)| text.replace(rust, plain))
}

/// One experiment, validated. Build one with [`crate::file::parse`] or [`Spec::from_json`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The row's name in tables. Experiments that differ in nothing but the seed share it.
    pub name: String,
    /// The network.
    pub model: Model,
    /// What it learns from.
    pub data: Data,
    /// How it learns.
    pub train: Train,
    /// What is done with it.
    pub run: Run,
    /// What a worker must have to take it.
    pub resources: Resources,
    /// The figures of the paper, to stand beside the measured ones.
    #[serde(default)]
    pub published: Published,
}

section! {
    /// `[model]`: the network (paper, section 3 and 4).
    Model {
        /// condensenet, densenet, densenet-lgc, or one of fixed shape: vgg-16, resnet-18, mobilenet, shufflenet.
        arch: Arch,
        /// Dense layers in each dense block.
        stages: Dashed,
        /// Growth rate (output channels of a dense layer) in each dense block.
        growth: Dashed,
        /// A dense layer's 1×1 convolution has bottleneck × growth output channels.
        bottleneck: u32,
        /// Groups G of the 1×1 convolutions.
        group_1x1: u32,
        /// Groups of the 3×3 convolutions.
        group_3x3: u32,
        /// Condense factor C: a learned group convolution keeps 1/C of its inputs.
        condense_factor: u32,
        /// Dropout probability before the 1×1 convolutions.
        dropout: f64,
        /// Share of the channels that a DenseNet's transition keeps; CondenseNets have no such transition.
        reduction: f64,
    }
}

section! {
    /// `[data]`: the dataset.
    Data {
        /// cifar10, cifar100, imagenet or synthetic.
        dataset: Dataset,
        /// The folder that holds it; unset: `--data`, `$CNX_DATA` or `~/.cache/cnx` of the worker.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<PathBuf>,
        /// Threads that prepare batches.
        workers: u32,
        /// Use only the first so many training images; of `synthetic`, make so many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_images: Option<u32>,
        /// Use only the first so many test images; of `synthetic`, make so many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_images: Option<u32>,
        /// Random crop and horizontal flip of the training images.
        augment: bool,
    }
}

section! {
    /// `[train]`: stochastic gradient descent (paper, section 4.1).
    Train {
        /// Passes over the training set.
        epochs: u32,
        /// Images a step; the last step of an epoch takes what is left.
        batch_size: u32,
        /// Learning rate at the start.
        lr: f64,
        /// cosine (to 0, by step) or multistep (a tenth from half of the epochs, a hundredth from three quarters).
        schedule: Schedule,
        /// Momentum.
        momentum: f64,
        /// Nesterov's form of the momentum.
        nesterov: bool,
        /// Weight decay, on all parameters.
        weight_decay: f64,
        /// λ of the group lasso over the learned group convolutions, until condensing is over.
        group_lasso: f64,
        /// Decides the initial weights, the order of the images and their augmentation.
        seed: u64,
        /// float32, float64, tf32 (of GPUs) or bfloat16.
        precision: Precision,
        /// Feature maps with the channels innermost in memory: libtorch then takes other algorithms, faster on some GPUs.
        #[serde(default, skip_serializing_if = "is_false")]
        channels_last: bool,
        /// On a GPU only algorithms that repeat bit for bit, so that a resumed training is the undisturbed one; false lets libtorch
        /// take the fastest it finds. On a CPU all are.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        deterministic: bool,
    }
}

section! {
    /// `[run]`: which steps an attempt takes.
    Run {
        /// Of train, evaluate, convert, evaluate-converted; each needs the ones before it. Or latency alone.
        steps: Vec<Step>,
        /// A model to work with instead of training one ([`crate::job`]): the absolute path of a file on the worker,
        /// or the name of an artifact.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// SHA-256 of that file, in hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_sha256: Option<String>,
        /// What evaluates it: libtorch, or native, the engine without libtorch that runs converted networks on CPUs.
        #[serde(default, skip_serializing_if = "is_libtorch")]
        engine: Engine,
    }
}

section! {
    /// `[resources]`: what a worker must have, and how often to try.
    Resources {
        /// GPUs; 0 runs on whatever the worker has.
        gpus: u32,
        /// CPU threads for the arithmetic; 0: the worker's share of its cores. Figures repeat bit for bit only
        /// with the same number.
        threads: u32,
        /// Attempts before a transient failure counts as final.
        max_attempts: u32,
        /// Main memory in GiB that is set aside for it on its worker; 0: none.
        #[serde(default, skip_serializing_if = "is_zero")]
        memory_gib: u32,
        /// What takes the steps: auto (on a CPU cnx's own kernels where they can, several times as fast; on a GPU as graph),
        /// libtorch (always, operation by operation) or graph (from data on the device, captured as a graph on a GPU).
        #[serde(default, skip_serializing_if = "is_auto")]
        kernels: Kernels,
        /// Labels that its worker must have, all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
    }
}

section! {
    /// `[published]`: the paper's errors, in per cent.
    #[derive(Default)]
    Published {
        /// Top-1 error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top1_error: Option<f64>,
        /// Top-5 error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top5_error: Option<f64>,
    }
}

/// Defines an enum whose names in files, on the wire and on screen are one list.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every value, in the order of the definition.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name in files, on the wire and on screen.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

named! {
    /// A network architecture.
    Arch {
        /// CondenseNet: learned group convolutions, dense connectivity across blocks, growing growth.
        CondenseNet = "condensenet",
        /// DenseNet-BC.
        DenseNet = "densenet",
        /// DenseNet with learned group convolutions (the paper's ablation).
        DenseNetLgc = "densenet-lgc",
        /// VGG-16.
        Vgg16 = "vgg-16",
        /// ResNet-18.
        ResNet18 = "resnet-18",
        /// 1.0 MobileNet-224.
        MobileNet = "mobilenet",
        /// ShuffleNet 1× with 3 groups.
        ShuffleNet = "shufflenet",
    }
}

impl Arch {
    /// Whether the 1×1 convolutions are learned group convolutions.
    pub fn condenses(self) -> bool {
        matches!(self, Arch::CondenseNet | Arch::DenseNetLgc)
    }

    /// Whether it is made of dense blocks, whose stages, growth and groups the spec says; the others have one shape.
    pub fn is_dense(self) -> bool {
        matches!(self, Arch::CondenseNet | Arch::DenseNet | Arch::DenseNetLgc)
    }
}

named! {
    /// A dataset.
    Dataset {
        /// 60,000 colour images of 32×32 in 10 classes.
        Cifar10 = "cifar10",
        /// 60,000 colour images of 32×32 in 100 classes.
        Cifar100 = "cifar100",
        /// ILSVRC 2012: 1.28 million images in 1000 classes.
        ImageNet = "imagenet",
        /// Generated images of 32×32 in 10 classes: for demonstrations and tests.
        Synthetic = "synthetic",
    }
}

impl Dataset {
    /// Number of classes.
    pub fn classes(self) -> u32 {
        match self {
            Dataset::Cifar10 | Dataset::Synthetic => 10,
            Dataset::Cifar100 => 100,
            Dataset::ImageNet => 1000,
        }
    }

    /// Height and width of the images that enter the network, in pixels.
    pub fn image_size(self) -> u32 {
        match self {
            Dataset::ImageNet => 224,
            _ => 32,
        }
    }

    /// Per-channel mean and standard deviation of the training images, of values in 0 … 1.
    pub fn normalisation(self) -> ([f64; 3], [f64; 3]) {
        match self {
            Dataset::Cifar10 | Dataset::Synthetic => ([0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616]),
            Dataset::Cifar100 => ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
            Dataset::ImageNet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        }
    }
}

named! {
    /// A learning rate schedule.
    Schedule {
        /// lr/2 · (1 + cos(π · step / steps)), every step.
        Cosine = "cosine",
        /// lr, lr/10 from half of the epochs, lr/100 from three quarters.
        Multistep = "multistep",
    }
}

named! {
    /// Arithmetic of the training.
    Precision {
        /// IEEE single precision.
        Float32 = "float32",
        /// IEEE double precision: for parity with the reference.
        Float64 = "float64",
        /// Float32, but what enters products and convolutions is rounded to 10 bits of mantissa: arithmetic of GPUs.
        Tf32 = "tf32",
        /// Products and convolutions in bfloat16; weights, statistics, loss and update in float32.
        Bfloat16 = "bfloat16",
    }
}

named! {
    /// What takes the steps of a training.
    #[derive(Default)]
    Kernels {
        /// On a CPU cnx's own kernels for dense blocks in float32, libtorch for all else; on a GPU `Graph`.
        #[default]
        Auto = "auto",
        /// libtorch, operation by operation, from batches that threads prepare.
        Libtorch = "libtorch",
        /// libtorch, from data that lie on the device; on a GPU a step is captured once and then replayed.
        Graph = "graph",
    }
}

named! {
    /// What runs a network that is not trained any more.
    #[derive(Default)]
    Engine {
        /// libtorch, and cnx's kernels for dense blocks on CPUs.
        #[default]
        Libtorch = "libtorch",
        /// cnx's own engine for CPUs, which needs no libtorch: what `cnx predict` runs.
        Native = "native",
    }
}

named! {
    /// A step of an attempt.
    Step {
        /// Train, with a checkpoint an epoch.
        Train = "train",
        /// Evaluate the trained model on the test images.
        Evaluate = "evaluate",
        /// Convert learned group convolutions to group convolutions (paper, section 3.2).
        Convert = "convert",
        /// Evaluate the converted model on the test images.
        EvaluateConverted = "evaluate-converted",
        /// Measure how long the network takes for one image on a CPU, with random weights, converted where it converts.
        Latency = "latency",
    }
}

/// What asks for nothing is left unsaid: a worker of an older version, which knows no such key, can run it.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_auto(kernels: &Kernels) -> bool {
    *kernels == Kernels::Auto
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

fn is_libtorch(engine: &Engine) -> bool {
    *engine == Engine::Libtorch
}

impl Spec {
    /// Reads the JSON form and validates it.
    ///
    /// # Errors
    /// Everything that is wrong with it, one problem a line.
    pub fn from_json(json: &str) -> Result<Spec, String> {
        let spec: Spec = serde_json::from_str(json).map_err(|e| format!("not a spec in JSON: {e}"))?;
        let problems = crate::validate::problems(&spec);
        if problems.is_empty() {
            return Ok(spec);
        }
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Err(lines.join("\n"))
    }

    /// The JSON form: every field, keys sorted, no white space.
    pub fn to_json(&self) -> String {
        // Through Value, whose maps are sorted; a Spec holds nothing that JSON cannot (NaN becomes null, and
        // validation refuses it).
        serde_json::to_value(self).map(|v| v.to_string()).unwrap_or_default()
    }

    /// SHA-256, in hexadecimal, of all that decides the figures. Left out: the name, the published figures,
    /// where the data and a given model lie, threads of the loader, and resources.
    pub fn hash(&self) -> String {
        self.hash_of(self.train.seed)
    }

    /// Like [`Spec::hash`], without the seed: equal for experiments that are averaged into one row of a table.
    pub fn group_hash(&self) -> String {
        self.hash_of(0)
    }

    fn hash_of(&self, seed: u64) -> String {
        use sha2::{Digest, Sha256};
        let mut spec = self.clone();
        spec.train.seed = seed;
        spec.data.root = None;
        spec.data.workers = 0;
        spec.run.from = None;
        let decisive = serde_json::json!({
            "model": spec.model, "data": spec.data, "train": spec.train, "run": spec.run,
        });
        Sha256::digest(decisive.to_string()).iter().map(|b| format!("{b:02x}")).collect()
    }
}
