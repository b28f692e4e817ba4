//! How fast this worker trains: images/s of whole steps (batches from prefetch, update included) on generated images.
//!
//!     cargo run --release -p cnx-worker --example train -- configs/condensenet-86.toml STEPS THREADS [KEY=VALUE…]
//!
//! Prints a line of JSON for each way of taking a step and each condensing stage: way, stage, images/s (the median over
//! steps). `bench/train.sh` sets it beside PyTorch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use cnx_proto::Spec;
use cnx_proto::file::{Override, parse};
use cnx_worker::cpu_step::CpuStep;
use cnx_worker::data::{self, batches, batches::Normalisation};
use cnx_worker::model::{Form, Network};
use cnx_worker::optimizer::Sgd;
use cnx_worker::step::{StepSettings, train_step};
use tch::Device;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().expect("a config");
    let steps: u32 = arguments.next().expect("steps").parse().expect("a number of steps");
    let threads: usize = arguments.next().expect("threads").parse().expect("a number of threads");
    let text = std::fs::read_to_string(&file).expect("the config can be read");
    let overrides: Vec<Override> = arguments.map(|a| a.parse().expect("KEY=VALUE")).collect();
    let mut spec = parse(&file, &text, &overrides).expect("a config");
    spec.data.dataset = cnx_proto::spec::Dataset::Synthetic;
    spec.data.train_images = Some(spec.train.batch_size * (steps + WARM_UP));
    spec.data.test_images = Some(1);
    tch::set_num_threads(threads as i32);

    let last = spec.model.condense_factor.saturating_sub(1);
    for stage in 0..=last {
        measure(&spec, "kernels", stage, steps, threads);
    }
    measure(&spec, "libtorch", 0, steps, threads);
}

/// Steps that are taken before the first that counts.
const WARM_UP: u32 = 2;

fn measure(spec: &Spec, way: &str, stage: u32, steps: u32, threads: usize) {
    let data = data::load(spec, None).unwrap();
    let mut network = Network::new(spec, Form::Large, Device::Cpu).unwrap();
    network.condense_to(stage).unwrap();
    let mut optimizer = Sgd::new(network.state(), &spec.train).unwrap();
    let normalisation = Normalisation::new(spec, network.state().kind(), Device::Cpu).unwrap();
    let mut kernels =
        if way == "kernels" { CpuStep::with_threads(spec, &network, threads).unwrap() } else { None };
    if way == "kernels" && kernels.is_none() {
        return;
    }
    let mut seconds = Vec::new();
    let mut started = Instant::now();
    for (step, batch) in
        batches::training(&data.train, spec, 0, Device::Cpu).enumerate().take((steps + WARM_UP) as usize)
    {
        let batch = batch.unwrap();
        let settings = StepSettings { step: step as u64, learning_rate: 0.1, train: &spec.train };
        match &mut kernels {
            Some(kernels) => kernels.step(&mut network, &mut optimizer, &normalisation, &batch, &settings),
            None => train_step(&mut network, &mut optimizer, &normalisation, &batch, &settings),
        }
        .unwrap();
        seconds.push(started.elapsed().as_secs_f64());
        started = Instant::now();
    }
    seconds.drain(..WARM_UP as usize);
    seconds.sort_by(f64::total_cmp);
    let images_per_s = f64::from(spec.train.batch_size) / seconds[seconds.len() / 2];
    println!(r#"{{"way": "{way}", "stage": {stage}, "images_per_s": {images_per_s}}}"#);
}
