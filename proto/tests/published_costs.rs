//! Every shipped config costs exactly what its published row says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use cnx_proto::cost::{Cost, cost};
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::sweep::{Loaded, load};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn read(path: &Path) -> Loaded {
    load(path, &[], &|p| std::fs::read_to_string(p)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn cost_of(config: &str) -> Cost {
    let loaded = read(&configs().join(config));
    assert_eq!(loaded.experiments.len(), 1);
    cost(&loaded.experiments[0])
}

#[test]
fn every_row_of_the_published_tables_has_its_integers() {
    // (config, FLOPs, parameters) before conversion.
    let rows = [
        ("condensenet-50.toml", 28641834, 216506),
        ("condensenet-74.toml", 51897066, 405466),
        ("condensenet-86.toml", 65816394, 520202),
        ("condensenet-98.toml", 81263530, 648442),
        ("condensenet-110.toml", 98238474, 790186),
        ("condensenet-122.toml", 116741226, 945434),
        ("condensenet-182.toml", 512671594, 4221946),
        ("cifar100/condensenet-86.toml", 65888484, 592292),
        ("cifar100/condensenet-182.toml", 512900644, 4450996),
        ("imagenet/condensenet-74-g4.toml", 530360264, 5805944),
        ("imagenet/condensenet-74-g8.toml", 275265480, 3967416),
        ("densenet-100.toml", 292377190, 769162),
    ];
    for (config, flops, params) in rows {
        let found = cost_of(config);
        assert_eq!((found.flops, found.params), (flops, params), "{config}");
    }
}

#[test]
fn the_converted_imagenet_networks_cost_what_is_published() {
    let g4 = cost_of("imagenet/condensenet-74-g4.toml");
    assert_eq!((g4.converted_flops, g4.converted_params), (529328264, 4773944));
    let g8 = cost_of("imagenet/condensenet-74-g8.toml");
    assert_eq!((g8.converted_flops, g8.converted_params), (274233480, 2935416));
}

fn cost_of_fixed(arch: Arch) -> Cost {
    let mut spec = recipe(arch, Dataset::ImageNet);
    spec.name = arch.to_string();
    assert_eq!(cnx_proto::validate::problems(&spec), []);
    cost(&spec)
}

/// The published figures are not all counts of the same: VGG-16's is of convolutions alone, ResNet-18's is the table's own
/// count (with ReLUs and poolings), MobileNet's and ShuffleNet's are of convolutions and the classifier.
#[test]
fn the_networks_of_the_comparison_cost_what_is_published() {
    let vgg = cost_of_fixed(Arch::Vgg16);
    assert_eq!(
        (vgg.conv_multiply_adds, vgg.multiply_adds, vgg.params),
        (15_346_630_656, 15_470_264_320, 138_357_544)
    );
    let resnet = cost_of_fixed(Arch::ResNet18);
    assert_eq!(
        (resnet.flops, resnet.multiply_adds, resnet.params),
        (1_818_213_864, 1_814_073_344, 11_689_512)
    );
    let mobilenet = cost_of_fixed(Arch::MobileNet);
    assert_eq!((mobilenet.multiply_adds, mobilenet.params), (568_740_352, 4_231_976));
    let shufflenet = cost_of_fixed(Arch::ShuffleNet);
    assert_eq!((shufflenet.multiply_adds, shufflenet.params), (137_460_672, 1_865_728));

    let millions = |published: u64, counted: u64| (counted + 500_000) / 1_000_000 == published;
    assert!(millions(15_347, vgg.conv_multiply_adds), "published as 15300M, of three digits");
    assert!(millions(1_818, resnet.flops));
    assert!(millions(569, mobilenet.multiply_adds));
}

#[test]
fn a_network_without_learned_groups_costs_the_same_converted() {
    let found = cost_of("densenet-100.toml");
    assert_eq!((found.flops, found.params), (found.converted_flops, found.converted_params));
}

#[test]
fn every_shipped_config_and_sweep_loads() {
    let mut seen = 0;
    for folder in ["", "cifar100", "imagenet", "sweeps"] {
        for entry in std::fs::read_dir(configs().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                seen += read(&path).experiments.len();
            }
        }
    }
    assert!(seen >= 12 + 21 + 6 + 2, "{seen}");
}

#[test]
fn the_cifar10_sweep_is_the_table_three_times() {
    let loaded = read(&configs().join("sweeps/cifar10.toml"));
    assert_eq!(loaded.sweep.as_deref(), Some("cifar10"));
    let names: Vec<(&str, u64)> =
        loaded.experiments.iter().map(|s| (s.name.as_str(), s.train.seed)).collect();
    assert_eq!(names.len(), 21);
    assert_eq!(
        names[..4],
        [("condensenet-50", 0), ("condensenet-50", 1), ("condensenet-50", 2), ("condensenet-74", 0)]
    );
}
