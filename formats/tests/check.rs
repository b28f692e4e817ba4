//! A state dict is held against a spec: all that does not fit is told, and nothing that fits is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod craft;

use cnx_formats::check::{Condensing, Fault, Listed, Report, add_missing_counts, check};
use cnx_formats::{Array, StateDict, checkpoint};
use cnx_proto::Spec;
use cnx_proto::architecture::{Form, state_dict};
use cnx_proto::spec::{Arch, Dataset};
use craft::{fixture, spec_of_the_fixtures};

const LAYER: &str = "features.denseblock_2.denselayer_1.conv_1";

fn large() -> StateDict {
    checkpoint::read(&fixture("condensenet-c4.zip.pth.tar")).unwrap().state
}

fn converted() -> StateDict {
    checkpoint::read(&fixture("condensenet-c4.converted.legacy.pth.tar")).unwrap().state
}

/// What is wrong, as `name fault`.
fn problems(state: &StateDict, spec: &Spec) -> Vec<String> {
    check(state, spec).problems.iter().map(|problem| format!("{} {}", problem.name, problem.fault)).collect()
}

fn hints(report: &Report) -> Vec<(&str, &str)> {
    report.hints.iter().map(|hint| (hint.key, hint.file.as_str())).collect()
}

/// Changes the numbers of a tensor.
fn change(state: &mut StateDict, name: &str, f: impl Fn(usize, f32) -> f32) {
    let array = &state.tensors[name];
    let values: Vec<f32> = array.to_f64().iter().enumerate().map(|(i, &x)| f(i, x as f32)).collect();
    let array = Array::from_f32(array.shape().to_vec(), &values).unwrap();
    state.tensors.insert(name.to_owned(), array);
}

#[test]
fn the_reference_s_models_fit_their_spec_in_both_forms() {
    let spec = spec_of_the_fixtures();
    let report = check(&large(), &spec);
    assert!(report.problems.is_empty(), "{}", Listed(&report));
    assert_eq!((report.form, report.tensors), (Form::Large, 98));
    assert_eq!(report.condensing, Some(Condensing { stage: 3, last: 3 }));
    let report = check(&converted(), &spec);
    assert!(report.problems.is_empty(), "{}", Listed(&report));
    assert_eq!((report.form, report.condensing), (Form::Converted, None));
}

/// A state dict as a network's layers ask for it, not condensed.
fn made_for(spec: &Spec, form: Form) -> StateDict {
    let mut state = StateDict::default();
    for info in state_dict(&spec.model, spec.data.dataset, form) {
        let shape: Vec<usize> = info.shape.iter().map(|&n| n as usize).collect();
        let count = shape.iter().product();
        let books = info.name.ends_with("._count") || info.name.ends_with("._stage");
        let array = match info.real {
            true => Array::from_f32(shape, &vec![if books { 0.0 } else { 1.0 }; count]),
            false => Array::from_i64(shape, &(0..count as i64).collect::<Vec<_>>()),
        };
        state.tensors.insert(info.name, array.unwrap());
    }
    state
}

#[test]
fn what_a_network_s_layers_ask_for_fits_whatever_the_network() {
    let of = |arch, dataset| cnx_proto::recipe::recipe(arch, dataset);
    let specs = [
        spec_of_the_fixtures(),
        of(Arch::DenseNet, Dataset::Cifar100),
        of(Arch::DenseNetLgc, Dataset::Cifar10),
        of(Arch::ResNet18, Dataset::ImageNet),
        of(Arch::MobileNet, Dataset::ImageNet),
        of(Arch::ShuffleNet, Dataset::ImageNet),
    ];
    for mut spec in specs {
        if spec.model.arch == Arch::DenseNetLgc {
            spec.model.stages = serde_json::from_value("2-2-2".into()).unwrap();
            spec.model.growth = serde_json::from_value("8-8-8".into()).unwrap();
        }
        let mut state = made_for(&spec, Form::Large);
        let report = check(&state, &spec);
        assert!(report.problems.is_empty(), "{}: {}", spec.model.arch, Listed(&report));
        // As torchvision released its models in 2017.
        state.tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
        assert!(!check(&state, &spec).problems.is_empty(), "{}", spec.model.arch);
        assert!(add_missing_counts(&mut state, &spec) > 0, "{}", spec.model.arch);
        assert!(check(&state, &spec).problems.is_empty(), "{}", spec.model.arch);
    }
}

#[test]
fn every_missing_extra_and_misshapen_tensor_is_named() {
    let (spec, mut state) = (spec_of_the_fixtures(), large());
    state.tensors.remove("classifier.bias");
    state.tensors.remove("features.norm_last.weight");
    state.tensors.insert("extra.weight".to_owned(), Array::from_f32(vec![2], &[1.0, 2.0]).unwrap());
    let weight = Array::from_f32(vec![1, 3], &[1.0, 2.0, 3.0]).unwrap();
    state.tensors.insert("features.init_conv.weight".to_owned(), weight);
    let count = "features.norm_last.num_batches_tracked";
    state.tensors.insert(count.to_owned(), Array::from_f32(vec![], &[3.0]).unwrap());
    assert_eq!(
        problems(&state, &spec),
        [
            "features.init_conv.weight has shape [1, 3], expected [8, 3, 3, 3]",
            "features.norm_last.num_batches_tracked has real numbers (float32), expected whole ones",
            "features.norm_last.weight is missing; expected of shape [64]",
            "classifier.bias is missing; expected of shape [10]",
            "extra.weight is not in this network; of shape [2]",
        ]
    );
}

#[test]
fn a_wrong_spec_is_told_with_the_keys_that_seem_wrong() {
    let mut spec = spec_of_the_fixtures();
    spec.model.stages = serde_json::from_value("2-3-2".into()).unwrap();
    spec.model.growth = serde_json::from_value("4-8-8".into()).unwrap();
    spec.model.condense_factor = 2;
    spec.model.group_1x1 = 2;
    spec.model.group_3x3 = 2;
    spec.model.bottleneck = 2;
    spec.data.dataset = Dataset::Cifar100;
    let expected = [
        ("data.dataset", "cifar10"),
        ("model.stages", "2-2-2"),
        ("model.growth", "4-8-16"),
        ("model.bottleneck", "4"),
        ("model.group_3x3", "4"),
        ("model.group_1x1", "4"),
        ("model.condense_factor", "4"),
    ];
    for state in [large(), converted()] {
        let report = check(&state, &spec);
        assert_eq!(hints(&report), expected);
        let told = Listed(&report).to_string();
        assert!(told.contains("features.denseblock_2.denselayer_3.* ("), "{told}");
        assert!(
            told.contains("hint: model.stages is 2-3-2 in the spec, but the file looks like 2-2-2"),
            "{told}"
        );
        assert!(told.lines().count() < 60, "{told}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_counted_by_tensor() {
    let (spec, mut state) = (spec_of_the_fixtures(), large());
    change(&mut state, "classifier.weight", |i, x| if i < 3 { f32::NAN } else { x });
    change(&mut state, "features.norm_last.bias", |i, x| if i == 5 { f32::INFINITY } else { x });
    change(&mut state, "features.norm_last.running_var", |i, x| if i == 0 { -x } else { x });
    assert_eq!(
        problems(&state, &spec),
        [
            "features.norm_last.bias has 1 of 64 elements that are NaN or infinite",
            "features.norm_last.running_var a variance is negative",
            "classifier.weight has 3 of 640 elements that are NaN or infinite",
        ]
    );
}

#[test]
fn a_mask_that_is_half_condensed_is_refused_with_the_reason() {
    let spec = spec_of_the_fixtures();
    let mask = format!("{LAYER}._mask");
    let fault = |f: &dyn Fn(usize, f32) -> f32| {
        let mut state = large();
        change(&mut state, &mask, f);
        let found = problems(&state, &spec);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        one.strip_prefix(&format!("{LAYER} ")).unwrap().to_owned()
    };
    // 32 rows of 16 inputs; group 0 has the rows 0, 4, 8, …
    let group_0 = |i: usize| (i / 16).is_multiple_of(4);
    assert!(
        fault(&|i, x| if i == 0 { 0.5 } else { x })
            .starts_with("1 elements of its _mask are neither 0 nor 1")
    );
    assert!(fault(&|i, x| if i < 16 { 1.0 - x } else { x }).contains("rows 0 and 4 of its _mask differ"));
    let uneven = fault(&|i, x| if group_0(i) { 0.0 } else { x });
    assert_eq!(uneven, "half condensed: its groups have dropped from 12 to 16 inputs each");
    let all = fault(&|i, _| if i % 16 < 6 { 0.0 } else { 1.0 });
    assert!(all.starts_with("half condensed: each group has dropped 6 of 16 inputs"), "{all}");
    let books = fault(&|i, _| if i % 16 < 8 { 0.0 } else { 1.0 });
    assert_eq!(books, "its _mask has dropped 8 inputs per group (stage 2), but _count is 12 and _stage is 3");
}

#[test]
fn a_checkpoint_within_training_tells_its_stage_and_layers_must_agree() {
    let (spec, mut state) = (spec_of_the_fixtures(), large());
    let layers: Vec<String> =
        state.tensors.keys().filter_map(|name| name.strip_suffix("._mask")).map(str::to_owned).collect();
    for layer in &layers {
        let inputs = state.tensors[&format!("{layer}._mask")].shape()[1];
        change(&mut state, &format!("{layer}._mask"), |i, _| if i % inputs < inputs / 2 { 0.0 } else { 1.0 });
        change(&mut state, &format!("{layer}._count"), |_, _| (inputs / 2) as f32);
        change(&mut state, &format!("{layer}._stage"), |_, _| 2.0);
    }
    let report = check(&state, &spec);
    assert!(report.problems.is_empty(), "{}", Listed(&report));
    assert_eq!(report.condensing, Some(Condensing { stage: 2, last: 3 }));

    for (name, value) in [("_mask", 1.0), ("_count", 0.0), ("_stage", 0.0)] {
        change(&mut state, &format!("{LAYER}.{name}"), |_, _| value);
    }
    assert_eq!(
        problems(&state, &spec),
        [format!(
            "{LAYER} it is at condensing stage 0, 5 others at 2: a model condenses all of its layers at once"
        )]
    );
}

#[test]
fn an_index_out_of_range_or_order_is_refused() {
    let spec = spec_of_the_fixtures();
    let fault = |layer: &str, f: &dyn Fn(&mut Vec<i64>)| {
        let mut state = converted();
        let name = format!("{layer}.index");
        let mut index = state.tensors[&name].to_i64().unwrap();
        f(&mut index);
        state.tensors.insert(name, Array::from_i64(vec![index.len()], &index).unwrap());
        problems(&state, &spec)
    };
    assert_eq!(fault(LAYER, &|index| index[3] = 16), [format!("{LAYER} its index names input 16, of 16")]);
    assert_eq!(fault(LAYER, &|index| index[0] = -1), [format!("{LAYER} its index names input -1, of 16")]);
    let disordered = fault(LAYER, &|index| index[4..8].reverse());
    assert_eq!(disordered, [format!("{LAYER} its index does not ascend within group 1 of 4")]);
    assert!(
        fault("classifier", &|index| index.reverse()).is_empty(),
        "a classifier's features may come in any order"
    );
    assert_eq!(
        fault("classifier", &|index| index[1] = index[0]),
        ["classifier its index names an input twice"]
    );
}

/// torch before 0.4.1 did not count.
#[test]
fn missing_counts_of_batch_norms_are_added_and_nothing_else_is() {
    let (spec, mut state) = (spec_of_the_fixtures(), large());
    let before = state.tensors.len();
    state.tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
    state.tensors.remove("classifier.bias");
    let gone = before - 1 - state.tensors.len();
    assert_eq!((add_missing_counts(&mut state, &spec), gone), (13, 13));
    assert_eq!(state.tensors["features.norm_last.num_batches_tracked"].to_i64(), Some(vec![0]));
    let report = check(&state, &spec);
    assert!(matches!(&report.problems[..], [only] if matches!(only.fault, Fault::Missing { .. })));
}
