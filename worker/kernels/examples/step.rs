//! How fast the trunk of CondenseNet-86 trains, by phase: images/s of forward and backward at each condensing stage.
//!
//!     cargo run --release -p cnx-kernels --example step -- 2 64

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use cnx_kernels::{Group, Layer, NormPlace, Pass, Shape, Spatial, Threads, Trunk};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse().unwrap());
    let threads = arguments.next().unwrap_or(2);
    let images = arguments.next().unwrap_or(64);
    for stage in 0..4 {
        run(threads, images, stage);
    }
}

fn run(threads: usize, images: usize, stage: usize) {
    let mut end = 0;
    let mut take = |floats: usize| {
        end += floats;
        end - floats
    };
    let norm = |take: &mut dyn FnMut(usize) -> usize, channels| NormPlace {
        weight: take(channels),
        bias: take(channels),
        channels,
    };
    let mut channels = 16;
    let mut blocks = Vec::new();
    for growth in [8, 16, 32] {
        let mut block = Vec::new();
        for _ in 0..14 {
            let outputs = 4 * growth;
            let groups = (0..4).map(|g| Group {
                outputs: (0..outputs as u32 / 4).map(|k| k * 4 + g).collect(),
                inputs: (0..channels as u32)
                    .filter(|i| stage == 0 || (i * 7 + g) % 4 >= stage as u32)
                    .collect(),
            });
            block.push(Layer {
                norm_1: norm(&mut take, channels),
                conv_1: take(channels * outputs),
                groups: groups.collect(),
                norm_2: norm(&mut take, outputs),
                conv_2: take(growth * outputs / 4 * 9),
                spatial: Spatial { inputs: outputs, outputs: growth, groups: 4 },
            });
            channels += growth;
        }
        blocks.push(block);
    }
    let last = norm(&mut take, channels);
    let mut trunk = Trunk::new(Threads::new(threads).unwrap(), blocks, last);
    let parameters: Vec<f32> = (0..end).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.45).collect();
    let shape = Shape { images, channels: 16, height: 32, width: 32 };
    let entering: Vec<f32> =
        (0..shape.floats()).map(|i| ((i * 104_729) % 997) as f32 / 500.0 - 1.0).collect();
    let mut gradient = vec![0.0; end];
    let (mut forward, mut backward) = (f64::MAX, f64::MAX);
    for _ in 0..5 {
        let start = Instant::now();
        let pooled = trunk.forward(&parameters, &entering, shape, Pass::Train(&[])).to_vec();
        forward = forward.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        trunk.backward(&parameters, &pooled, &[], &mut gradient);
        backward = backward.min(start.elapsed().as_secs_f64());
    }
    let n = images as f64;
    println!(
        "stage {stage}: forward {:.2} ms/image, backward {:.2} ms/image: {:.0} images/s",
        1e3 * forward / n,
        1e3 * backward / n,
        n / (forward + backward)
    );
}
