//! What lies between blocks and behind the last one: the halving of maps, and batch norm, ReLU and global pooling.

use crate::features::Features;
use crate::norm::{Affine, Sums, total};
use crate::threads::Threads;

/// Puts the means of 2×2 squares of `from` in front of `to`, and notes their statistics. An odd last row or column is left out.
pub fn halve(threads: &Threads, from: &Features, to: &mut Features) {
    let (shape, halved) = (from.shape, to.shape);
    let share = threads.share(shape.images);
    let mut sums = vec![vec![Sums::default(); shape.channels]; threads.count()];
    let parts: Vec<_> = from
        .values
        .chunks(share * shape.image())
        .zip(to.values.chunks_mut(share * halved.image()))
        .zip(sums.iter_mut())
        .collect();
    threads.run(parts, |((from, to), sums)| {
        let images = from.chunks_exact(shape.image()).zip(to.chunks_exact_mut(halved.image()));
        for (from, to) in images {
            let planes = from.chunks_exact(shape.pixels()).zip(to.chunks_exact_mut(halved.pixels()));
            for ((from, to), sums) in planes.zip(sums.iter_mut()) {
                let (sum, square) = halve_plane(from, shape.width, to, halved.width);
                sums.add(sum, square);
            }
        }
    });
    to.note(0, &total(&sums));
}

fn halve_plane(from: &[f32], width: usize, to: &mut [f32], halved_width: usize) -> (f32, f32) {
    let (mut sum, mut square) = (0.0, 0.0);
    for (rows, to) in from.chunks_exact(2 * width).zip(to.chunks_exact_mut(halved_width)) {
        let (upper, lower) = rows.split_at(width);
        for ((to, upper), lower) in to.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
            *to = (upper[0] + upper[1] + lower[0] + lower[1]) * 0.25;
            sum += *to;
            square += *to * *to;
        }
    }
    (sum, square)
}

/// Sends what came back to the halved maps in front of `halved` back to `features`.
pub fn unhalve(threads: &Threads, halved: &Features, features: &mut Features) {
    let (shape, small) = (features.shape, halved.shape);
    let share = threads.share(shape.images);
    let upstream = &halved.upstream(0, shape.channels);
    // As told at `Features::gradient`.
    let deviations: Vec<f32> =
        features.moments.iter().map(|moments| (1.0 / moments.inverse_deviation()) as f32).collect();
    let images = features.gradient.chunks_mut(share * shape.image());
    let halved =
        halved.values.chunks(share * small.image()).zip(halved.gradient.chunks(share * small.image()));
    threads.run(images.zip(halved).collect(), |(to, (values, gradients))| {
        let halved = values.chunks_exact(small.image()).zip(gradients.chunks_exact(small.image()));
        for (to, (values, gradients)) in to.chunks_exact_mut(shape.image()).zip(halved) {
            let planes = values.chunks_exact(small.pixels()).zip(gradients.chunks_exact(small.pixels()));
            for (channel, (to, (values, gradients))) in
                to.chunks_exact_mut(shape.pixels()).zip(planes).enumerate()
            {
                let share = 0.25 * deviations[channel];
                let [direct, own, constant] =
                    [&upstream.direct, &upstream.own, &upstream.constant].map(|of| of[channel] * share);
                let mean = upstream.mean[channel];
                let rows = values.chunks_exact(small.width).zip(gradients.chunks_exact(small.width));
                for (to, (values, gradients)) in to.chunks_exact_mut(2 * shape.width).zip(rows) {
                    let (upper, lower) = to.split_at_mut(shape.width);
                    let squares = upper.chunks_exact_mut(2).zip(lower.chunks_exact_mut(2));
                    for ((upper, lower), (x, gradient)) in squares.zip(values.iter().zip(gradients)) {
                        let part = direct * gradient + own * (x - mean) + constant;
                        upper.iter_mut().chain(lower).for_each(|to| *to += part);
                    }
                }
            }
        }
    });
}

/// The mean over each plane of relu(affine(features)), into `pooled` [images, channels].
pub fn pool(threads: &Threads, features: &Features, affine: &Affine, pooled: &mut [f32]) {
    let shape = features.shape;
    let share = threads.share(shape.images);
    let pooled = pooled.chunks_mut(share * shape.channels);
    threads.run(features.values.chunks(share * shape.image()).zip(pooled).collect(), |(images, pooled)| {
        for (i, (plane, pooled)) in images.chunks_exact(shape.pixels()).zip(pooled).enumerate() {
            let channel = i % shape.channels;
            let (scale, shift) = (affine.scale[channel], affine.shift[channel]);
            let sum: f32 = plane.iter().map(|x| (scale * x + shift).max(0.0)).sum();
            *pooled = sum / shape.pixels() as f32;
        }
    });
}

/// Sends the gradient of `pooled` back to the features, through a batch norm whose γ are `norm_weights`; returns the sums of dz.
pub fn unpool(
    threads: &Threads,
    features: &mut Features,
    affine: &Affine,
    norm_weights: &[f32],
    pooled_gradient: &[f32],
) -> Vec<Sums> {
    let shape = features.shape;
    let share = threads.share(shape.images);
    let mut sums = vec![vec![Sums::default(); shape.channels]; threads.count()];
    let images = features.values.chunks(share * shape.image());
    let images = images.zip(features.gradient.chunks_mut(share * shape.image()));
    let parts = images.zip(pooled_gradient.chunks(share * shape.channels)).zip(sums.iter_mut()).collect();
    threads.run(parts, |(((values, gradients), pooled_gradient), sums)| {
        let planes = values.chunks_exact(shape.pixels()).zip(gradients.chunks_exact_mut(shape.pixels()));
        for (i, ((values, gradients), pooled_gradient)) in planes.zip(pooled_gradient).enumerate() {
            let channel = i % shape.channels;
            let (scale, shift, mean) = (affine.scale[channel], affine.shift[channel], affine.mean[channel]);
            let dz = pooled_gradient / shape.pixels() as f32;
            let (mut sum, mut product) = (0.0, 0.0);
            for (x, gradient) in values.iter().zip(gradients) {
                if scale * x + shift > 0.0 {
                    *gradient += norm_weights[channel] * dz;
                    sum += dz;
                    product += dz * (x - mean);
                }
            }
            sums[channel].add(sum, product);
        }
    });
    let sums = total(&sums);
    features.add_sums(norm_weights, &sums);
    sums
}
