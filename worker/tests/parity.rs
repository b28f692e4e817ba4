//! The trainer computes what the published reference computes: every fixture's trajectory, in double precision, to 1e-9.
//!
//! Takes every `*.safetensors` in the folder that `CNX_FIXTURES` names (default: `tests/fixtures`).

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
use cnx_worker::tensor_file;
use cnx_worker::train::{StepSettings, train_step};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

const TOLERANCE: f64 = 1e-9;

#[test]
fn every_fixture_s_trajectory_is_reproduced() {
    tch::set_num_threads(1);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = std::env::var_os("CNX_FIXTURES").map_or(own, PathBuf::from);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    assert!(!files.is_empty(), "no *.safetensors in {}", folder.display());
    for file in files {
        println!("{}", file.display());
        Fixture::read(&file).check();
    }
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

    fn spec(&self) -> Spec {
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
        spec.train.precision = Precision::Float64;
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
        let spec = self.spec();
        let cost = cnx_proto::cost::cost(&spec);
        assert_eq!((cost.flops, cost.params), (self.get("flops"), self.get("params")), "{}: cost", self.name);

        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        network.load(&self.below("init.")).unwrap();
        let mut optimizer = Sgd::new(network.state(), &spec.train).unwrap();
        let normalisation = Normalisation::new(&spec, Kind::Double, Device::Cpu).unwrap();

        let steps: u64 = self.get("steps");
        let (size, epochs) = (i64::from(spec.train.batch_size), u64::from(spec.train.epochs));
        let [mut losses, mut lassos, mut rates, mut dropped] = [const { Vec::new() }; 4];
        for step in 0..steps {
            network.condense_to(condensing::stage(step, steps, spec.model.condense_factor)).unwrap();
            lassos.push(network.lasso().unwrap().map_or(0.0, |lasso| lasso.double_value(&[])));
            dropped.extend(network.dropped().into_iter().map(|n| n as f64));
            rates.push(learning_rate(&spec.train, step, steps / epochs));
            let settings = StepSettings { step, learning_rate: rates[step as usize], train: &spec.train };
            let batch = self.batch(step as i64, size);
            let figures =
                train_step(&mut network, &mut optimizer, &normalisation, &batch, &settings).unwrap();
            losses.push(figures.loss.double_value(&[]));
        }
        for (what, found) in [("loss", losses), ("lasso", lassos), ("lr", rates), ("dropped", dropped)] {
            // A network without learned group convolutions drops nothing.
            if !found.is_empty() {
                self.compare(what, &Tensor::from_slice(&found));
            }
        }
        self.compare_state("final.", &network);

        let batch = self.batch(steps as i64, size);
        let logits = |network: &mut Network| {
            let images = normalisation.apply(&batch.images).unwrap();
            tch::no_grad(|| network.forward(&images, Mode::Evaluate)).unwrap()
        };
        self.compare("eval.logits", &logits(&mut network));
        if self.tensors.contains_key("converted.logits") {
            self.check_conversion(&spec, &network, logits);
        }
    }

    /// Where the reference copied weights into a converted model element by element, it did so in single precision, so
    /// the fixtures' copies are rounded, and their logits are those of the rounded model. Ours are not rounded: so our
    /// tensors may differ by that rounding, our logits must follow the fixture's when computed from its
    /// tensors, and be near them when computed from ours.
    fn check_conversion(&self, spec: &Spec, network: &Network, logits: impl Fn(&mut Network) -> Tensor) {
        let mut converted = convert(network, spec).unwrap();
        self.compare_state("converted.", &converted);
        let ours = logits(&mut converted);
        converted.load(&self.below("converted.")).unwrap();
        self.compare("converted.logits", &logits(&mut converted));
        let rounded = self.below("converted.").values().any(is_single);
        let tolerance = if rounded { 1e-6 } else { TOLERANCE };
        self.compare_to("converted.logits", &ours, tolerance);
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
        self.compare_to(what, found, if copied { f64::from(f32::EPSILON) / 2.0 } else { TOLERANCE });
    }

    /// Relative to the largest element: an element near 0 is no more exact than the sums it came from.
    fn compare_to(&self, what: &str, found: &Tensor, tolerance: f64) {
        let (expected, found) = (to_host(&self.tensors[what]).unwrap(), to_host(found).unwrap());
        assert_eq!(expected.len(), found.len(), "{}: length of {what}", self.name);
        let scale = expected.iter().fold(0.0f64, |scale, x| scale.max(x.abs()));
        for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
            assert!((e - f).abs() <= tolerance * scale, "{}: {what}[{i}] is {f}, expected {e}", self.name);
        }
    }
}

/// Whether every element is a single precision number, as after a detour over them.
fn is_single(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Double && to_host(tensor).unwrap().iter().all(|&x| f64::from(x as f32) == x)
}
