//! What is exported as ONNX computes what our networks compute: ONNX Runtime's logits of random images beside libtorch's.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../formats/tests/peers/mod.rs"]
mod peers;

use std::path::Path;

use cnx_formats::{StateDict, onnx, safetensors};
use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Precision};
use cnx_worker::convert::convert;
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Form, Mode, Network};
use cnx_worker::tensor_file;
use tch::{Device, Kind, Tensor};

/// For each NAME.onnx of a folder: checks it, and writes the logits of NAME.images to NAME.logits, computed all at once, after
/// making sure that one image alone gives the same.
const RUN: &str = r#"
import pathlib, sys, numpy, onnx, onnxruntime

for file in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [images], [logits] = session.get_inputs(), session.get_outputs()
    assert (images.name, logits.name) == ("images", "logits")
    assert images.shape[0] == logits.shape[0] == "batch", (images.shape, logits.shape)
    values = numpy.fromfile(file.with_suffix(".images"), numpy.float32).reshape(-1, *images.shape[1:])
    found = session.run(["logits"], {"images": values})[0]
    assert found.shape == (len(values), logits.shape[1])
    alone = session.run(["logits"], {"images": values[:1]})[0]
    assert numpy.allclose(found[:1], alone, rtol=1e-5, atol=1e-5 * abs(found).max())
    found.astype(numpy.float32).tofile(file.with_suffix(".logits"))
    metadata = {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}
    print(file.stem, metadata["cnx.spec_hash"])
"#;

const TOLERANCE: f64 = 1e-5;

/// A network to export, and its logits of some images.
struct Case {
    name: String,
    spec: Spec,
    logits: Vec<f64>,
}

#[test]
fn onnx_runtime_computes_what_libtorch_computes() {
    tch::set_num_threads(1);
    tch::manual_seed(1);
    let folder = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for spec in specs() {
        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        unsettle(&mut network);
        if spec.model.arch.condenses() {
            let last = spec.model.condense_factor - 1;
            network.condense_to(last / 2).unwrap();
            cases.push(export(folder.path(), "half-condensed", &spec, &mut network));
            network.condense_to(last).unwrap();
            let mut converted = convert(&network, &spec).unwrap();
            cases.push(export(folder.path(), "converted", &spec, &mut converted));
        }
        cases.push(export(folder.path(), "large", &spec, &mut network));
    }

    let name = "onnx_runtime_computes_what_libtorch_computes";
    let Some(said) = peers::python(name, RUN, &[folder.path()]) else { return };
    for Case { name, spec, logits } in cases {
        assert!(said.lines().any(|line| line == format!("{name} {}", spec.hash())), "{name}: {said}");
        let found = read_numbers(&folder.path().join(format!("{name}.logits")));
        assert_eq!(found.len(), logits.len(), "{name}");
        let scale = logits.iter().fold(0.0f64, |scale, x| scale.max(x.abs()));
        let apart = logits.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: {:.1e} of the largest logit apart", apart / scale);
        assert!(apart <= TOLERANCE * scale, "{name}: {apart} apart, the largest logit is {scale}");
    }
}

/// Every operator, C ≠ G, different groups in 1×1 and 3×3 convolutions, five stages, double precision.
fn specs() -> Vec<Spec> {
    let dense = |arch, dataset, stages: &str, growth: &str| {
        let mut spec = recipe(arch, dataset);
        spec.name = format!("{arch}-{dataset}");
        spec.model.stages = serde_json::from_value(stages.into()).unwrap();
        spec.model.growth = serde_json::from_value(growth.into()).unwrap();
        spec
    };
    let mut unequal = dense(Arch::CondenseNet, Dataset::Cifar100, "2-2-2", "8-8-16");
    (unequal.model.group_1x1, unequal.model.group_3x3, unequal.model.condense_factor) = (2, 8, 4);
    (unequal.model.dropout, unequal.train.precision) = (0.1, Precision::Float64);
    let mut five = dense(Arch::CondenseNet, Dataset::ImageNet, "1-1-2-1-1", "8-8-16-16-16");
    (five.model.group_1x1, five.model.condense_factor) = (4, 8);
    let mut specs = vec![
        unequal,
        five,
        dense(Arch::DenseNet, Dataset::Cifar10, "3-3-3", "12-12-12"),
        dense(Arch::DenseNetLgc, Dataset::Cifar10, "2-2", "8-16"),
    ];
    // VGG-16, half a gigabyte of weights, only where somebody asks for it.
    let large = std::env::var_os("CNX_TEST_VGG").map(|_| Arch::Vgg16);
    for arch in [Arch::ResNet18, Arch::MobileNet, Arch::ShuffleNet].into_iter().chain(large) {
        let dataset = if arch == Arch::Vgg16 { Dataset::ImageNet } else { Dataset::Cifar10 };
        let mut spec = recipe(arch, dataset);
        spec.name = arch.to_string();
        specs.push(spec);
    }
    for spec in &specs {
        assert_eq!(cnx_proto::validate::problems(spec), [], "{}", spec.name);
    }
    specs
}

/// Gives batch norms statistics and scales that are not all alike.
fn unsettle(network: &mut Network) {
    let mut tensors = network.state().snapshot().unwrap();
    let norms: Vec<String> =
        tensors.keys().filter_map(|name| Some(name.strip_suffix("running_var")?.to_owned())).collect();
    for norm in norms {
        for (part, start) in [("weight", 0.5), ("running_var", 0.5), ("bias", -0.5), ("running_mean", -0.5)] {
            let tensor = tensors.get_mut(&format!("{norm}{part}")).unwrap();
            *tensor = tensor.rand_like() + start;
        }
    }
    network.load(&tensors).unwrap();
}

fn export(folder: &Path, form: &str, spec: &Spec, network: &mut Network) -> Case {
    let name = format!("{}-{form}", spec.name);
    let size = i64::from(spec.data.dataset.image_size());
    let images = Tensor::randn([2, 3, size, size], (Kind::Float, Device::Cpu));
    let path = |suffix: &str| folder.join(format!("{name}.{suffix}"));
    let bytes = to_host(&images).unwrap().iter().flat_map(|&x| (x as f32).to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(path("images"), bytes).unwrap();
    let file = onnx::write(spec, network.form(), &state_dict(spec, network)).unwrap();
    std::fs::write(path("onnx"), file).unwrap();

    let images = images.to_kind(network.state().kind());
    let logits = tch::no_grad(|| network.forward(&images, Mode::Evaluate)).unwrap();
    Case { name, spec: spec.clone(), logits: to_host(&logits).unwrap() }
}

fn state_dict(spec: &Spec, network: &Network) -> StateDict {
    let bytes = tensor_file::encode(&spec.to_json(), &network.state().snapshot().unwrap()).unwrap();
    safetensors::read(&bytes).unwrap()
}

fn read_numbers(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect()
}
