//! Random networks against plain loops.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use cnx_engine::sample;
use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::spec::{Arch, Dataset};
use common::{hold, spec};
use proptest::prelude::*;

/// A small network of any groups, condense factor, bottleneck and number of stages.
fn networks(dataset: Dataset, stages: std::ops::Range<usize>) -> impl Strategy<Value = (Spec, Form, u64)> {
    let factor = || prop::sample::select(vec![1u32, 2, 3, 4]);
    let arch = prop::sample::select(vec![Arch::CondenseNet, Arch::DenseNetLgc, Arch::DenseNet]);
    let stages = prop::collection::vec((1u32..3, 1u32..4), stages);
    (arch, stages, factor(), factor(), factor(), 1u32..5, any::<bool>(), any::<u64>()).prop_map(
        move |(arch, stages, c, g, g_3x3, bottleneck, converted, seed)| {
            let unit = [c, g, g_3x3].into_iter().fold(1, |a, b| a / gcd(a, b) * b);
            let layers: Vec<u32> = stages.iter().map(|&(layers, _)| layers).collect();
            let growth: Vec<u32> = stages.iter().map(|&(_, times)| times * unit).collect();
            let mut spec = spec(arch, dataset, &layers, &growth);
            spec.model.bottleneck = bottleneck;
            spec.model.group_3x3 = g_3x3;
            if arch.condenses() {
                (spec.model.group_1x1, spec.model.condense_factor) = (g, c);
            }
            let form = if converted && arch.condenses() { Form::Converted } else { Form::Large };
            (spec, form, seed)
        },
    )
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_random_network_on_small_images_gives_the_logits_of_plain_loops(
        (spec, form, seed) in networks(Dataset::Cifar10, 1..7),
        threads in 1usize..5,
        images in 1usize..4,
    ) {
        prop_assume!(cnx_proto::validate::problems(&spec).is_empty());
        hold(&spec, &sample::state(&spec, form, seed), &[threads], images);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn a_random_network_on_large_images_gives_the_logits_of_plain_loops(
        (spec, form, seed) in networks(Dataset::ImageNet, 5..8),
        threads in 1usize..4,
    ) {
        prop_assume!(cnx_proto::validate::problems(&spec).is_empty());
        hold(&spec, &sample::state(&spec, form, seed), &[threads], 1);
    }
}
