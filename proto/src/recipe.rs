//! The paper's recipe: what every key of a spec is where a file leaves it unsaid (paper, section 4.1 and 4.2).

use crate::dashed::Dashed;
use crate::spec::{
    Arch, Data, Dataset, Engine, Kernels, Model, Precision, Published, Resources, Run, Schedule, Spec, Step,
    Train,
};

/// The complete defaults for an architecture on a dataset. Name, stages and growth are empty: those have none, and networks
/// of one shape take no others.
pub fn recipe(arch: Arch, dataset: Dataset) -> Spec {
    Spec {
        name: String::new(),
        model: model(arch),
        data: Data {
            dataset,
            root: None,
            workers: if dataset == Dataset::ImageNet { 8 } else { 2 },
            train_images: (dataset == Dataset::Synthetic).then_some(2000),
            test_images: (dataset == Dataset::Synthetic).then_some(500),
            augment: true,
        },
        train: train(dataset),
        run: Run { steps: default_steps(arch), from: None, from_sha256: None, engine: Engine::Libtorch },
        resources: Resources {
            gpus: 0,
            threads: 0,
            max_attempts: 10,
            memory_gib: 0,
            kernels: Kernels::Auto,
            labels: Vec::new(),
        },
        published: Published::default(),
    }
}

fn model(arch: Arch) -> Model {
    let groups = if arch.condenses() { 4 } else { 1 };
    Model {
        arch,
        stages: Dashed::default(),
        growth: Dashed::default(),
        bottleneck: 4,
        group_1x1: groups,
        group_3x3: groups,
        condense_factor: groups,
        // VGG-16's, between its fully connected layers.
        dropout: if arch == Arch::Vgg16 { 0.5 } else { 0.0 },
        reduction: 0.5,
    }
}

fn train(dataset: Dataset) -> Train {
    let imagenet = dataset == Dataset::ImageNet;
    Train {
        epochs: if imagenet { 120 } else { 300 },
        batch_size: if imagenet { 256 } else { 64 },
        lr: 0.1,
        schedule: Schedule::Cosine,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 1e-4,
        group_lasso: if imagenet { 1e-5 } else { 0.0 },
        seed: 0,
        precision: Precision::Float32,
        channels_last: false,
        deterministic: true,
    }
}

/// Everything for a network that condenses; without learned group convolutions there is nothing to convert.
pub(crate) fn default_steps(arch: Arch) -> Vec<Step> {
    let mut steps = vec![Step::Train, Step::Evaluate];
    if arch.condenses() {
        steps.extend([Step::Convert, Step::EvaluateConverted]);
    }
    steps
}
