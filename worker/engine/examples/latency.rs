//! How long a network takes on this CPU, with random weights, beside what its multiply-adds would take if nothing but they were
//! done (a loop in registers, in the same run).
//!
//!     cargo run --release -p cnx-engine --example latency -- imagenet-74 8 1 1 auto 100
//!
//! network (imagenet-74, or cifar-50 … cifar-182), C = G, threads, images a call, instructions, calls.

#![allow(clippy::unwrap_used, missing_docs)]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use cnx_engine::{Instructions, Model, Runner, sample};
use cnx_proto::Spec;
use cnx_proto::architecture::{Form, Op, layers};
use cnx_proto::dashed::Dashed;
use cnx_proto::spec::{Arch, Dataset};
use pulp::{Arch as Cpu, Simd, WithSimd};

/// Sums at once: enough to keep every unit busy.
const SUMS: usize = 16;
const TURNS: usize = 200_000;

struct Turns;

impl WithSimd for Turns {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (a, b) =
            (simd.splat_f32s(std::hint::black_box(0.999)), simd.splat_f32s(std::hint::black_box(0.5)));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        let start = Instant::now();
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(a, *sum, b);
            }
        }
        std::hint::black_box(sums);
        (TURNS * SUMS * S::F32_LANES) as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}

fn spec(network: &str, factor: u32) -> Spec {
    let (dataset, stages, growth) = match network {
        "imagenet-74" => (Dataset::ImageNet, vec![4, 6, 8, 10, 8], vec![8, 16, 32, 64, 128]),
        "cifar-182" => (Dataset::Cifar10, vec![30; 3], vec![12, 24, 48]),
        other => {
            let depth: u32 = other.strip_prefix("cifar-").unwrap().parse().unwrap();
            (Dataset::Cifar10, vec![(depth - 2) / 6; 3], vec![8, 16, 32])
        }
    };
    let mut spec = cnx_proto::recipe::recipe(Arch::CondenseNet, dataset);
    spec.name = network.to_owned();
    spec.model.stages = Dashed(stages);
    spec.model.growth = Dashed(growth);
    spec.model.group_1x1 = factor;
    spec.model.group_3x3 = factor;
    spec.model.condense_factor = factor;
    spec
}

/// Multiply-adds of an image.
fn multiply_adds(spec: &Spec) -> f64 {
    let layers = layers(&spec.model, spec.data.dataset, Form::Converted);
    let of = |layer: &cnx_proto::architecture::Layer| {
        let dense = layer.in_channels * layer.out_channels * layer.out_size * layer.out_size;
        match layer.op {
            Op::Conv { kernel, groups, .. } => dense * u64::from(kernel * kernel) / u64::from(groups),
            Op::Linear => dense,
            _ => 0,
        }
    };
    layers.iter().map(of).sum::<u64>() as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |i: usize, otherwise: &str| arguments.get(i).cloned().unwrap_or_else(|| otherwise.to_owned());
    let network = argument(0, "imagenet-74");
    let factor: u32 = argument(1, "8").parse().unwrap();
    let threads: NonZeroUsize = argument(2, "1").parse().unwrap();
    let batch: usize = argument(3, "1").parse().unwrap();
    let instructions = argument(4, "auto");
    let calls: usize = argument(5, "100").parse().unwrap();
    let instructions = Instructions::ALL.into_iter().find(|i| i.as_str() == instructions).unwrap();

    let spec = spec(&network, factor);
    let model = Model::new(&spec, &sample::state(&spec, Form::Converted, 1)).unwrap();
    let model = Arc::new(model.with_instructions(instructions).unwrap());
    let mut runner = Runner::new(model, threads);
    let images = sample::images(&spec, batch, 1);
    let mut peak = 0.0f64;
    let mut times = Vec::new();
    for call in 0..calls + calls / 10 + 1 {
        let start = Instant::now();
        runner.logits(&images).unwrap();
        if call > calls / 10 {
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
        if call % 10 == 0 {
            peak = peak.max(Cpu::new().dispatch(Turns));
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let rate = multiply_adds(&spec) * batch as f64 / at(0.5) / 1e6;
    println!(
        r#"{{"network": "{network}", "factor": {factor}, "threads": {threads}, "batch": {batch}, "instructions": "{instructions}", "calls": {calls}, "median_ms": {:.3}, "least_ms": {:.3}, "p10_ms": {:.3}, "p90_ms": {:.3}, "gmac_per_s": {rate:.1}, "peak_gmac_per_s": {peak:.1}, "share_of_peak": {:.3}}}"#,
        at(0.5),
        at(0.0),
        at(0.1),
        at(0.9),
        rate / peak / threads.get() as f64
    );
}
