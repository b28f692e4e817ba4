//! The trainer computes what the published reference computes: every fixture's trajectory in double precision to 1e-9, and
//! every step of it in single precision to 1e-4.
//!
//! Takes every `*.safetensors` in the folder that `CNX_FIXTURES` names (relative to the root of the checkout; default:
//! `tests/fixtures`).

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Precision, Schedule};
use cnx_worker::condensing;
use cnx_worker::convert::convert;
use cnx_worker::data::batches::{Batch, Normalisation};
use cnx_worker::learning_rate::learning_rate;
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Form, Mode, Network};
use cnx_worker::optimizer::Sgd;
use cnx_worker::step::{StepSettings, train_step};
use cnx_worker::tensor_file;
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

const DOUBLE: f64 = 1e-9;
const SINGLE: f64 = 1e-4;

#[test]
fn every_fixture_s_trajectory_is_reproduced() {
    tch::set_num_threads(1);
    for file in fixtures() {
        println!("{}", file.display());
        Fixture::read(&file).check();
    }
}

/// Each step starts from the state in double precision: over many steps a trajectory in single precision leaves it, whoever
/// computes it, since rounding moves values across the bend of a ReLU (a change of the initial weights by 1e-7, in double
/// precision, moves the last logits of these fixtures by up to a tenth).
#[test]
fn single_precision_stays_near_it() {
    tch::set_num_threads(1);
    for file in fixtures() {
        println!("{}", file.display());
        Fixture::read(&file).check_single_precision();
    }
}

fn fixtures() -> Vec<PathBuf> {
    let worker = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = worker.parent().unwrap();
    let folder = std::env::var_os("CNX_FIXTURES").map_or(worker.join("tests/fixtures"), |f| root.join(f));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    assert!(!files.is_empty(), "no *.safetensors in {}", folder.display());
    files
}

struct Fixture {
    name: String,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

impl Fixture {
    fn read(path: &Path) -> Fixture {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        Fixture {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            metadata: metadata.metadata().clone().unwrap(),
            tensors: tensor_file::decode(&bytes).unwrap().tensors,
        }
    }

    fn get<T: std::str::FromStr>(&self, key: &str) -> T {
        self.metadata[key].parse().unwrap_or_else(|_| panic!("{key} = {}", self.metadata[key]))
    }

    fn spec(&self, precision: Precision) -> Spec {
        let arch = match self.metadata["model"].as_str() {
            "condensenet" => Arch::CondenseNet,
            "densenet" => Arch::DenseNet,
            "densenet_LGC" => Arch::DenseNetLgc,
            other => panic!("unknown model {other}"),
        };
        let dataset = match self.metadata["data"].as_str() {
            "cifar10" => Dataset::Cifar10,
            "cifar100" => Dataset::Cifar100,
            other => panic!("unknown data {other}"),
        };
        let dashed = |key: &str| serde_json::from_value(self.metadata[key].clone().into()).unwrap();
        let mut spec = recipe(arch, dataset);
        spec.name = self.name.clone();
        spec.model.stages = dashed("stages");
        spec.model.growth = dashed("growth");
        spec.model.bottleneck = self.get("bottleneck");
        spec.model.group_1x1 = self.get("group_1x1");
        spec.model.group_3x3 = self.get("group_3x3");
        spec.model.condense_factor = self.get("condense_factor");
        spec.model.reduction = self.get("reduction");
        spec.train.epochs = self.get("epochs");
        spec.train.batch_size = self.get("batch_size");
        spec.train.lr = self.get("lr");
        spec.train.schedule = match self.metadata["lr_type"].as_str() {
            "cosine" => Schedule::Cosine,
            "multistep" => Schedule::Multistep,
            other => panic!("unknown schedule {other}"),
        };
        spec.train.momentum = self.get("momentum");
        spec.train.nesterov = self.get("nesterov");
        spec.train.weight_decay = self.get("weight_decay");
        spec.train.group_lasso = self.get("group_lasso_lambda");
        spec.train.precision = precision;
        spec
    }

    /// The tensors below a prefix.
    fn below(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let of = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), tensor.shallow_clone()))
        };
        self.tensors.iter().filter_map(of).collect()
    }

    fn batch(&self, number: i64, size: i64) -> Batch {
        let part = |name: &str| self.tensors[name].narrow(0, number * size, size);
        Batch { images: part("images"), labels: part("labels") }
    }

    fn check(&self) {
        let mut trainer = Trainer::new(self, Precision::Float64);
        let cost = cnx_proto::cost::cost(&trainer.spec);
        assert_eq!((cost.flops, cost.params), (self.get("flops"), self.get("params")), "{}: cost", self.name);

        let [mut losses, mut lassos, mut rates, mut dropped] = [const { Vec::new() }; 4];
        for step in 0..self.get("steps") {
            let figures = trainer.step(self, step);
            losses.push(figures.loss);
            lassos.push(figures.lasso);
            rates.push(figures.learning_rate);
            dropped.extend(figures.dropped);
        }
        for (what, found) in [("loss", losses), ("lasso", lassos), ("lr", rates), ("dropped", dropped)] {
            // A network without learned group convolutions drops nothing.
            if !found.is_empty() {
                self.compare(what, &Tensor::from_slice(&found));
            }
        }
        self.compare_state("final.", &trainer.network);

        let logits = trainer.logits(self);
        self.compare("eval.logits", &logits);
        if self.tensors.contains_key("converted.logits") {
            self.check_conversion(trainer);
        }
    }

    fn check_single_precision(&self) {
        let mut double = Trainer::new(self, Precision::Float64);
        let mut single = Trainer::new(self, Precision::Float32);
        for step in 0..self.get("steps") {
            single.adopt(&double);
            let (expected, found) = (double.step(self, step), single.step(self, step));
            let what = |figure: &str| format!("{}: {figure} of step {step}", self.name);
            near(&what("loss"), &[expected.loss], &[found.loss], SINGLE);
            near(&what("lasso"), &[expected.lasso], &[found.lasso], SINGLE);
            assert_eq!(expected.dropped, found.dropped, "{}", what("dropped"));
            let after = [&double, &single].map(|trainer| flat(&trainer.network));
            let apart = (&after[0] - &after[1]).norm().double_value(&[]) / after[0].norm().double_value(&[]);
            assert!(apart <= SINGLE, "{} are {apart} apart", what("weights and statistics"));
        }
        single.adopt(&double);
        self.compare_to("eval.logits", &single.logits(self), SINGLE);
        if self.tensors.contains_key("converted.logits") {
            single.network = convert(&single.network, &single.spec).unwrap();
            self.compare_to("converted.logits", &single.logits(self), SINGLE);
        }
    }

    /// Where the reference copied weights into a converted model element by element, it did so in single precision, so
    /// the fixtures' copies are rounded, and their logits are those of the rounded model. Ours are not rounded: so our
    /// tensors may differ by that rounding, our logits must follow the fixture's when computed from its
    /// tensors, and be near them when computed from ours.
    fn check_conversion(&self, mut trainer: Trainer) {
        trainer.network = convert(&trainer.network, &trainer.spec).unwrap();
        self.compare_state("converted.", &trainer.network);
        let ours = trainer.logits(self);
        trainer.network.load(&self.below("converted.")).unwrap();
        self.compare("converted.logits", &trainer.logits(self));
        let rounded = self.below("converted.").values().any(is_single);
        self.compare_to("converted.logits", &ours, if rounded { 1e-6 } else { DOUBLE });
    }

    fn compare_state(&self, prefix: &str, network: &Network) {
        let mut expected = self.below(prefix);
        expected.remove("logits");
        let found = network.state().snapshot().unwrap();
        let names = |tensors: &BTreeMap<String, Tensor>| tensors.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{}: names of {prefix}*", self.name);
        for (name, tensor) in &found {
            assert_eq!(tensor.size(), expected[name].size(), "{}: shape of {prefix}{name}", self.name);
            self.compare(&format!("{prefix}{name}"), tensor);
        }
    }

    fn compare(&self, what: &str, found: &Tensor) {
        let copied = what.starts_with("converted.") && is_single(&self.tensors[what]);
        self.compare_to(what, found, if copied { f64::from(f32::EPSILON) / 2.0 } else { DOUBLE });
    }

    fn compare_to(&self, what: &str, found: &Tensor, tolerance: f64) {
        let (expected, found) = (to_host(&self.tensors[what]).unwrap(), to_host(found).unwrap());
        near(&format!("{}: {what}", self.name), &expected, &found, tolerance);
    }
}

/// Relative to the largest element: an element near 0 is no more exact than the sums it came from.
fn near(what: &str, expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!(expected.len(), found.len(), "length of {what}");
    let scale = expected.iter().fold(0.0f64, |scale, x| scale.max(x.abs()));
    for (i, (e, f)) in expected.iter().zip(found).enumerate() {
        assert!((e - f).abs() <= tolerance * scale, "{what}[{i}] is {f}, expected {e}");
    }
}

/// All real tensors of a network, one after another, in double precision.
fn flat(network: &Network) -> Tensor {
    let tensors: Vec<Tensor> = network.state().snapshot().unwrap().into_values().collect();
    let real = tensors.iter().filter(|tensor| tensor.kind() != Kind::Int64);
    Tensor::cat(&real.map(|tensor| tensor.reshape([-1]).to_kind(Kind::Double)).collect::<Vec<_>>(), 0)
}

/// A network of a fixture in training.
struct Trainer {
    spec: Spec,
    network: Network,
    optimizer: Sgd,
    normalisation: Normalisation,
}

struct StepRecord {
    loss: f64,
    lasso: f64,
    learning_rate: f64,
    dropped: Vec<f64>,
}

impl Trainer {
    fn new(fixture: &Fixture, precision: Precision) -> Trainer {
        let spec = fixture.spec(precision);
        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        network.load(&fixture.below("init.")).unwrap();
        let optimizer = Sgd::new(network.state(), &spec.train).unwrap();
        let normalisation = Normalisation::new(&spec, network.state().kind(), Device::Cpu).unwrap();
        Trainer { spec, network, optimizer, normalisation }
    }

    /// Goes on from the state of another.
    fn adopt(&mut self, other: &Trainer) {
        self.network.load(&other.network.state().snapshot().unwrap()).unwrap();
        self.optimizer.load(&other.optimizer.snapshot().unwrap()).unwrap();
    }

    fn step(&mut self, fixture: &Fixture, step: u64) -> StepRecord {
        let Trainer { spec, network, optimizer, normalisation } = self;
        let (steps, epochs) = (fixture.get::<u64>("steps"), u64::from(spec.train.epochs));
        network.condense_to(condensing::stage(step, steps, spec.model.condense_factor)).unwrap();
        let lasso = network.lasso(Mode::Evaluate).unwrap().map_or(0.0, |lasso| lasso.double_value(&[]));
        let dropped = network.dropped().into_iter().map(|n| n as f64).collect();
        let learning_rate = learning_rate(&spec.train, step, steps / epochs);
        let settings = StepSettings { step, learning_rate, train: &spec.train };
        let batch = fixture.batch(step as i64, i64::from(spec.train.batch_size));
        let figures = train_step(network, optimizer, normalisation, &batch, &settings).unwrap();
        StepRecord { loss: figures.loss.double_value(&[]), lasso, learning_rate, dropped }
    }

    /// Of the images that are evaluated.
    fn logits(&mut self, fixture: &Fixture) -> Tensor {
        let batch = fixture.batch(fixture.get("steps"), i64::from(self.spec.train.batch_size));
        let images = self.normalisation.apply(&batch.images).unwrap();
        tch::no_grad(|| self.network.forward(&images, Mode::Evaluate)).unwrap()
    }
}

/// Whether every element is a single precision number, as after a detour over them.
fn is_single(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Double && to_host(tensor).unwrap().iter().all(|&x| f64::from(x as f32) == x)
}
