//! The engine's logits against plain loops in double precision.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::num::NonZeroUsize;
use std::sync::Arc;

use cnx_engine::{Model, Runner, reference, sample};
use cnx_proto::architecture::Form;
use cnx_proto::spec::{Arch, Dataset};
use common::{difference, hold, spec};

#[test]
fn a_converted_model_s_file_gives_its_logits() {
    let spec = spec(Arch::CondenseNet, Dataset::Cifar10, &[1, 1, 1], &[8, 16, 32]);
    let state = sample::state(&spec, Form::Converted, 1);
    let model = Model::decode(&cnx_formats::safetensors::write(&state).unwrap()).unwrap();
    assert_eq!(model.spec(), &spec);
    let images = sample::images(&spec, 2, 1);
    let mut runner = Runner::new(Arc::new(model), NonZeroUsize::MIN);
    let logits = runner.logits(&images).unwrap();
    for (image, logits) in images.chunks(3 * 32 * 32).zip(logits.chunks(10)) {
        assert!(difference(logits, &reference::logits(&spec, &state, image)) < 1e-5);
    }
}

#[test]
fn the_paper_s_networks_on_cifar_give_the_logits_of_plain_loops() {
    for (stages, growth) in [([3, 3, 3], [8, 16, 32]), ([2, 2, 2], [12, 24, 48])] {
        let spec = spec(Arch::CondenseNet, Dataset::Cifar10, &stages, &growth);
        hold(&spec, &sample::state(&spec, Form::Converted, 2), &[1, 2, 3], 1);
    }
}

#[test]
fn the_paper_s_network_on_imagenet_gives_the_logits_of_plain_loops() {
    for groups in [4, 8] {
        let mut spec = spec(Arch::CondenseNet, Dataset::ImageNet, &[1, 2, 1, 2, 2], &[8, 16, 32, 64, 128]);
        spec.model.group_1x1 = groups;
        spec.model.group_3x3 = groups;
        spec.model.condense_factor = groups;
        // So many threads that they share rows of three blocks, of two, and of one.
        hold(&spec, &sample::state(&spec, Form::Converted, 3), &[1, 2, 3, 5], 1);
    }
}

#[test]
fn a_densenet_with_learned_groups_has_transitions_that_convolve() {
    let spec = spec(Arch::DenseNetLgc, Dataset::Cifar100, &[2, 3, 2], &[12, 12, 12]);
    hold(&spec, &sample::state(&spec, Form::Converted, 4), &[1, 2], 2);
}

#[test]
fn a_network_that_is_not_converted_runs_as_its_masks_leave_it() {
    for arch in [Arch::CondenseNet, Arch::DenseNetLgc, Arch::DenseNet] {
        let spec = spec(arch, Dataset::Cifar10, &[2, 2, 2], &[8, 8, 16]);
        hold(&spec, &sample::state(&spec, Form::Large, 5), &[1, 3], 1);
    }
}
