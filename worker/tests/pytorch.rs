//! A model trained here evaluates there: PyTorch's own modules, under the reference's names, load the state dict that is exported
//! and compute our logits.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../formats/tests/peers/mod.rs"]
mod peers;

use std::path::Path;

use cnx_formats::{pth, safetensors};
use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Precision};
use cnx_worker::convert::convert;
use cnx_worker::model::state::to_host;
use cnx_worker::model::{Mode, Network};
use cnx_worker::{model::Form, tensor_file};
use tch::{Device, Kind, Tensor};

/// A CondenseNet for CIFAR-10 of stages 2-2, growth 8-8, C = 4, G = 2 and 4 groups of the 3×3 convolutions. Loads FOLDER/NAME.pth
/// strictly, and writes the logits of FOLDER/images, all in double precision.
const NETWORK: &str = r#"
import pathlib, sys, torch
from torch import nn

G, GROUPS_3X3, C = 2, 4, 4

class Masked(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 1, bias=False)
        self.register_buffer("_mask", torch.ones(outputs, inputs, 1, 1))
        self.register_buffer("_count", torch.zeros(1))
        self.register_buffer("_stage", torch.zeros(1))

    def forward(self, x):
        return nn.functional.conv2d(self.norm(x).relu(), self.conv.weight * self._mask)

class Condensed(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        gathered = inputs // C * G
        self.norm, self.conv = nn.BatchNorm2d(gathered), nn.Conv2d(gathered, outputs, 1, groups=G, bias=False)
        self.register_buffer("index", torch.zeros(gathered, dtype=torch.long))

    def forward(self, x):
        return nn.functional.channel_shuffle(self.conv(self.norm(x[:, self.index]).relu()), G)

class Spatial(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, groups=GROUPS_3X3, bias=False)

    def forward(self, x):
        return self.conv(self.norm(x).relu())

class Half(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.linear = nn.Linear(features // 2, classes)
        self.register_buffer("index", torch.zeros(features // 2, dtype=torch.long))

    def forward(self, x):
        return self.linear(x[:, self.index])

class DenseLayer(nn.Module):
    def __init__(self, one_by_one, inputs, growth):
        super().__init__()
        self.conv_1, self.conv_2 = one_by_one(inputs, 4 * growth), Spatial(4 * growth, growth)

    def forward(self, x):
        return torch.cat([x, self.conv_2(self.conv_1(x))], 1)

class CondenseNet(nn.Module):
    def __init__(self, one_by_one, classifier):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("init_conv", nn.Conv2d(3, 16, 3, padding=1, bias=False))
        channels = 16
        for i in (1, 2):
            block = nn.Sequential()
            for j in (1, 2):
                block.add_module(f"denselayer_{j}", DenseLayer(one_by_one, channels, 8))
                channels += 8
            self.features.add_module(f"denseblock_{i}", block)
            if i == 1:
                self.features.add_module("transition_1", nn.AvgPool2d(2))
        self.features.add_module("norm_last", nn.BatchNorm2d(channels))
        self.classifier = classifier(channels, 10)

    def forward(self, x):
        return self.classifier(self.features(x).relu().mean((2, 3)))

folder = pathlib.Path(sys.argv[1])
images = torch.frombuffer(bytearray((folder / "images").read_bytes()), dtype=torch.double).view(-1, 3, 32, 32)
for name, parts in (("masked", (Masked, nn.Linear)), ("converted", (Condensed, Half))):
    model = CondenseNet(*parts).double().eval()
    model.load_state_dict(torch.load(folder / f"{name}.pth", weights_only=True))
    with torch.no_grad():
        (folder / f"{name}.logits").write_bytes(model(images).numpy().tobytes())
"#;

#[test]
fn a_model_of_ours_evaluates_in_pytorch() {
    tch::set_num_threads(1);
    tch::manual_seed(2);
    let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
    spec.name = "small".to_owned();
    spec.model.stages = serde_json::from_value("2-2".into()).unwrap();
    spec.model.growth = serde_json::from_value("8-8".into()).unwrap();
    (spec.model.group_1x1, spec.model.group_3x3, spec.model.condense_factor) = (2, 4, 4);
    spec.train.precision = Precision::Float64;
    let mut masked = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    // A step of training gives the batch norms statistics of their own.
    let images = Tensor::randn([4, 3, 32, 32], (Kind::Double, Device::Cpu));
    let _ = tch::no_grad(|| masked.forward(&images, Mode::Train { seed: 1, step: 0 })).unwrap();
    masked.condense_to(3).unwrap();
    let mut converted = convert(&masked, &spec).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = to_host(&images).unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(folder.path().join("images"), bytes).unwrap();
    for (name, network) in [("masked", &masked), ("converted", &converted)] {
        export(&folder.path().join(format!("{name}.pth")), &spec, network);
    }
    let test = "a_model_of_ours_evaluates_in_pytorch";
    let Some(_) = peers::python(test, NETWORK, &[folder.path()]) else { return };
    for (name, network) in [("masked", &mut masked), ("converted", &mut converted)] {
        let ours = tch::no_grad(|| network.forward(&images, Mode::Evaluate)).unwrap();
        let theirs = std::fs::read(folder.path().join(format!("{name}.logits"))).unwrap();
        let theirs = theirs.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
        let ours = to_host(&ours).unwrap();
        let scale = ours.iter().fold(0.0f64, |scale, x| scale.max(x.abs()));
        assert_eq!(theirs.len(), ours.len(), "{name}");
        for (a, b) in ours.iter().zip(theirs) {
            assert!((a - b).abs() <= 1e-12 * scale, "{name}: {a} here, {b} there");
        }
    }
}

fn export(path: &Path, spec: &Spec, network: &Network) {
    let bytes = tensor_file::encode(&spec.to_json(), &network.state().snapshot().unwrap()).unwrap();
    std::fs::write(path, pth::write(&safetensors::read(&bytes).unwrap()).unwrap()).unwrap();
}
