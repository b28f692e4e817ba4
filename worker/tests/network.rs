//! The networks are those that the cost is computed for, and conversion keeps their function.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use cnx_proto::Spec;
use cnx_proto::cost::cost;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset, Precision};
use cnx_worker::convert::convert;
use cnx_worker::model::{Form, Mode, Network};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn spec(arch: Arch, dataset: Dataset, stages: &str, growth: &str) -> Spec {
    let mut spec = recipe(arch, dataset);
    spec.name = "network".to_owned();
    spec.model.stages = serde_json::from_value(stages.into()).unwrap();
    spec.model.growth = serde_json::from_value(growth.into()).unwrap();
    spec.train.precision = Precision::Float64;
    spec
}

/// Elements of the parameters; of a learned group convolution's weight, those that its mask keeps.
fn parameters(network: &Network) -> u64 {
    let tensors = network.state().snapshot().unwrap();
    let count = |name: &str, tensor: &Tensor| {
        let mask = name.strip_suffix("conv.weight").and_then(|start| tensors.get(&format!("{start}_mask")));
        mask.map_or(tensor.numel() as u64, |mask| mask.sum(Kind::Double).double_value(&[]) as u64)
    };
    network.state().parameters().map(|entry| count(&entry.name, &entry.tensor)).sum()
}

#[test]
fn built_networks_have_the_parameters_that_the_cost_says() {
    let cases = [
        spec(Arch::CondenseNet, Dataset::Cifar10, "14-14-14", "8-16-32"),
        spec(Arch::CondenseNet, Dataset::Cifar100, "8-8-8", "8-16-32"),
        spec(Arch::CondenseNet, Dataset::ImageNet, "4-6-8-10-8", "8-16-32-64-128"),
        spec(Arch::DenseNet, Dataset::Cifar10, "16-16-16", "12-12-12"),
        spec(Arch::DenseNetLgc, Dataset::Cifar10, "6-6-6", "8-16-32"),
    ];
    let fixed = [Arch::ResNet18, Arch::MobileNet, Arch::ShuffleNet];
    let fixed = fixed.map(|arch| Spec { name: arch.to_string(), ..recipe(arch, Dataset::ImageNet) });
    for spec in cases.into_iter().chain(fixed) {
        assert_eq!(cnx_proto::validate::problems(&spec), []);
        let cost = cost(&spec);
        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        network.condense_to(spec.model.condense_factor - 1).unwrap();
        assert_eq!(parameters(&network), cost.params, "{:?}", spec.model);
        if spec.model.arch.condenses() {
            network = convert(&network, &spec).unwrap();
            assert_eq!(parameters(&network), cost.converted_params, "{:?} converted", spec.model);
        }
    }
}

#[test]
fn a_half_condensed_network_is_refused_with_the_reason() {
    let spec = spec(Arch::CondenseNet, Dataset::Cifar10, "1-1", "4-4");
    let network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    for stage in 0..3 {
        network.condense_to(stage).unwrap();
        let failure = convert(&network, &spec).unwrap_err();
        for part in ["denseblock_1.denselayer_1.conv_1", "exactly 2 of its 8", &format!("stage {stage} of 3")]
        {
            assert!(failure.message.contains(part), "{failure}");
        }
    }
    network.condense_to(3).unwrap();
    let converted = convert(&network, &spec).unwrap();
    assert!(convert(&converted, &spec).unwrap_err().message.contains("converted already"));
}

#[test]
fn every_network_gives_logits_and_learns_from_them() {
    for &arch in Arch::ALL {
        // VGG-16 takes images of 224×224 only, and half a gigabyte: see its own test.
        if arch == Arch::Vgg16 {
            continue;
        }
        let mut spec = spec(arch, Dataset::Cifar100, "2-1", "8-16");
        if !arch.is_dense() {
            spec.model = recipe(arch, Dataset::Cifar100).model;
        }
        assert_eq!(cnx_proto::validate::problems(&spec), []);
        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        let images = Tensor::rand([2, 3, 32, 32], (Kind::Double, Device::Cpu));
        let logits = network.forward(&images, Mode::Train { seed: 0, step: 0 }).unwrap();
        assert_eq!(logits.size(), [2, 100], "{arch}");
        let parameters: Vec<Tensor> =
            network.state().parameters().map(|p| p.tensor.shallow_clone()).collect();
        let loss = logits.cross_entropy_for_logits(&Tensor::from_slice(&[3i64, 70]));
        let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
        let reached = |gradient: &Tensor| bool::try_from(gradient.isfinite().all()).unwrap();
        assert!(gradients.iter().all(reached), "{arch}");
    }
}

#[test]
fn vgg_sees_seven_by_seven() {
    let spec = Spec { name: "vgg".to_owned(), ..recipe(Arch::Vgg16, Dataset::ImageNet) };
    assert_eq!(cnx_proto::validate::problems(&spec), []);
    let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    let images = Tensor::rand([1, 3, 224, 224], (Kind::Float, Device::Cpu));
    let logits = tch::no_grad(|| network.forward(&images, Mode::Evaluate)).unwrap();
    assert_eq!(logits.size(), [1, 1000]);
    assert_eq!(network.state().parameters().map(|p| p.tensor.numel()).sum::<usize>(), 138_357_544);
    let names: Vec<&str> = network.state().entries.iter().map(|entry| entry.name.as_str()).collect();
    for name in ["features.0.weight", "features.28.bias", "classifier.0.weight", "classifier.6.bias"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
}

#[test]
fn masks_do_not_depend_on_the_way_to_them() {
    let mut spec = spec(Arch::CondenseNet, Dataset::Cifar10, "2-2", "8-16");
    spec.model.condense_factor = 8;
    let masks = |network: &Network| {
        let mut tensors = network.state().snapshot().unwrap();
        tensors.retain(|name, _| {
            name.ends_with("_mask") || name.ends_with("_count") || name.ends_with("_stage")
        });
        tensors
    };
    let by_single_stages = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    (1..8).for_each(|stage| by_single_stages.condense_to(stage).unwrap());
    assert_eq!(by_single_stages.density().unwrap(), 1.0 / 8.0);

    let by_a_jump = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    by_a_jump.condense_to(7).unwrap();
    assert_eq!(masks(&by_a_jump), masks(&by_single_stages));

    // Stopped at stage 3, saved, evaluated, and gone on with elsewhere.
    let mut first = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    first.condense_to(3).unwrap();
    let images = Tensor::rand([2, 3, 32, 32], (Kind::Double, Device::Cpu));
    let _ = tch::no_grad(|| first.forward(&images, Mode::Evaluate)).unwrap();
    let mut second = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    second.load(&first.state().snapshot().unwrap()).unwrap();
    second.condense_to(2).unwrap();
    assert_eq!(masks(&second), masks(&first), "going back changes nothing");
    second.condense_to(7).unwrap();
    assert_eq!(masks(&second), masks(&by_single_stages));
}

#[test]
fn a_mask_that_is_not_its_stage_s_is_refused() {
    let spec = spec(Arch::CondenseNet, Dataset::Cifar10, "1-1", "4-4");
    let network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    network.condense_to(3).unwrap();
    let whole = network.state().snapshot().unwrap();
    let conv = "features.denseblock_1.denselayer_1.conv_1";
    let refusal = |tensor: &str, change: &dyn Fn(&Tensor)| {
        let tensors: std::collections::BTreeMap<_, _> =
            whole.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        change(&tensors[&format!("{conv}.{tensor}")]);
        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        let failure = network.load(&tensors).unwrap_err().message;
        assert!(failure.contains(conv), "{failure}");
        failure
    };
    let said = refusal("_mask", &|mask| drop(mask.get(0).fill_(1.0)));
    assert!(
        said.contains("not that of condensing stage 3 (of 3), at which every group keeps 2 of 8"),
        "{said}"
    );
    let said = refusal("_stage", &|stage| drop(stage.shallow_clone().fill_(2.0)));
    assert!(said.contains("stage 2"), "{said}");
    let said = refusal("_stage", &|stage| drop(stage.shallow_clone().fill_(40.0)));
    assert!(said.contains("stage 40"), "{said}");
    let said = refusal("conv.weight", &|weight| drop(weight.get(1).fill_(f64::NAN)));
    assert!(said.contains("conv.weight holds NaN or infinity in 8 of its"), "{said}");
}

#[test]
fn a_densenet_has_nothing_to_convert() {
    let spec = spec(Arch::DenseNet, Dataset::Cifar10, "1-1", "4-4");
    let network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
    assert!(convert(&network, &spec).unwrap_err().message.contains("no learned group convolutions"));
}

/// Gives batch norms statistics and scales that are not all alike.
fn unsettle(network: &mut Network, seed: i64) {
    tch::manual_seed(seed);
    let mut tensors = network.state().snapshot().unwrap();
    for (name, tensor) in &mut tensors {
        if name.ends_with("norm.weight") || name.ends_with("running_var") {
            *tensor = tensor.rand_like() + 0.5;
        } else if name.ends_with("norm.bias") || name.ends_with("running_mean") {
            *tensor = tensor.rand_like() - 0.5;
        }
    }
    network.load(&tensors).unwrap();
}

/// What the classifier sees does not differ: sets all of its weights but those of the kept half to 0.
fn silence_dropped_features(network: &mut Network, converted: &Network) {
    let kept = converted.state().snapshot().unwrap()["classifier.index"].shallow_clone();
    let mut tensors = network.state().snapshot().unwrap();
    let weight = &tensors["classifier.weight"];
    let mut silenced = weight.zeros_like();
    let _ = silenced.index_copy_(1, &kept, &weight.index_select(1, &kept));
    tensors.insert("classifier.weight".to_owned(), silenced);
    network.load(&tensors).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_converted_network_computes_what_the_masked_one_does(
        lgc: bool, imagenet in prop::bool::weighted(0.2), stages in prop::collection::vec(1u32..3, 1..6),
        groups in prop::sample::select(vec![1u32, 2, 4]), group_3x3 in prop::sample::select(vec![1u32, 2, 4]),
        condense_factor in prop::sample::select(vec![1u32, 2, 4, 8]), bottleneck in prop::sample::select(vec![1u32, 2, 4]),
        steps in prop::collection::vec(1u32..8, 0..2), seed in 0i64..1000,
    ) {
        tch::set_num_threads(1);
        let arch = if lgc { Arch::DenseNetLgc } else { Arch::CondenseNet };
        let dataset = if imagenet { Dataset::ImageNet } else { Dataset::Cifar10 };
        let text = |values: Vec<String>| values.join("-");
        let growth = text((0..stages.len()).map(|i| (4u32 << i.min(2)).to_string()).collect());
        let stages = text(stages.iter().map(u32::to_string).collect());
        let mut spec = spec(arch, dataset, &stages, &growth);
        (spec.model.group_1x1, spec.model.group_3x3, spec.model.condense_factor) = (groups, group_3x3, condense_factor);
        (spec.model.bottleneck, spec.train.seed) = (bottleneck, seed as u64);
        prop_assume!(cnx_proto::validate::problems(&spec).is_empty());

        let mut network = Network::new(&spec, Form::Large, Device::Cpu).unwrap();
        unsettle(&mut network, seed);
        // By single stages or by jumps.
        steps.into_iter().chain([condense_factor - 1]).for_each(|stage| {
            network.condense_to(stage.min(condense_factor - 1)).unwrap();
        });
        prop_assert_eq!(network.density().unwrap(), 1.0 / f64::from(condense_factor));
        let mut converted = convert(&network, &spec).unwrap();
        silence_dropped_features(&mut network, &converted);

        let images = Tensor::rand([2, 3, if imagenet { 65 } else { 32 }, 32], (Kind::Double, Device::Cpu));
        let [masked, condensed] = [&mut network, &mut converted]
            .map(|network| tch::no_grad(|| network.forward(&images, Mode::Evaluate)).unwrap());
        let apart = (&masked - &condensed).abs().max().double_value(&[]);
        prop_assert!(apart <= 1e-10 * masked.abs().max().double_value(&[]), "{apart} apart");
    }
}
