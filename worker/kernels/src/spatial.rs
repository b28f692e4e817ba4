//! Batch norm, ReLU and a 3×3 convolution with groups, padded by one pixel.
//!
//! Planes are laid out flat with one column of zeros after each row and one row of zeros before each image: then a tap of the
//! convolution is the same run of floats, moved. What falls on the zeros' places is computed and dropped.

mod backward;

use pulp::{Arch, Simd, WithSimd};

use crate::features::{Features, Shape};
use crate::norm::{Affine, Sums, Upstream, total};
use crate::threads::Threads;
use crate::tile::{load, room};
use backward::*;

/// Taps of a 3×3 kernel.
const TAPS: usize = 9;

/// Pixels that are convolved together, of several images where these are small.
const RUN: usize = 512;

/// A 3×3 convolution of [outputs, inputs / groups, 3, 3] weights.
#[derive(Debug, Clone, Copy)]
pub struct Spatial {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Groups.
    pub groups: usize,
}

/// A thread's own memory, kept from step to step.
#[derive(Debug, Default)]
pub struct Scratch {
    inputs: Vec<f32>,
    outputs: Vec<f32>,
    results: Vec<f32>,
    weights: Vec<f32>,
    weight_gradient: Vec<f32>,
    sums: Vec<Sums>,
}

/// How planes of some images lie in a flat buffer.
#[derive(Debug, Clone, Copy)]
struct Flat {
    height: usize,
    width: usize,
    images: usize,
    lanes: usize,
}

impl Flat {
    /// From one row to the next.
    fn stride(self) -> usize {
        self.width + 1
    }

    /// Results of a plane, those that are dropped included.
    fn run(self) -> usize {
        (self.images * (self.height + 1) - 1) * self.stride()
    }

    /// Floats of a plane of results: whole tiles, whatever their size.
    fn padded_run(self) -> usize {
        self.run().next_multiple_of(MOST_VECTORS * self.lanes)
    }

    /// Floats of a plane of inputs, as far as any tap of any tile reaches.
    fn plane(self) -> usize {
        self.padded_run() + 2 * self.stride() + 2
    }

    /// Where a row of results begins.
    fn row(self, image: usize, row: usize) -> usize {
        (image * (self.height + 1) + row) * self.stride()
    }

    /// Where it begins in a plane of inputs.
    fn input_row(self, image: usize, row: usize) -> usize {
        self.row(image, row) + self.stride() + 1
    }
}

/// Vectors of a tile, at most.
const MOST_VECTORS: usize = 8;

impl Spatial {
    fn group_inputs(self) -> usize {
        self.inputs / self.groups
    }

    fn group_outputs(self) -> usize {
        self.outputs / self.groups
    }

    /// Floats of the weights.
    pub fn weights(self) -> usize {
        self.outputs * self.group_inputs() * TAPS
    }

    /// Convolves relu(affine(input)) into the channels of `features` from `first` on, and notes their statistics.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        self,
        threads: &Threads,
        input: &[f32],
        affine: &Affine,
        weights: &[f32],
        features: &mut Features,
        first: usize,
        scratch: &mut [Scratch],
    ) {
        let shape = features.shape;
        let share = threads.share(shape.images);
        let inputs = input.chunks(share * self.inputs * shape.pixels());
        let images = features.values.chunks_mut(share * shape.image());
        let parts: Vec<_> = inputs
            .zip(images)
            .zip(scratch.iter_mut())
            .map(|((input, features), scratch)| Forward {
                conv: self,
                shape,
                input,
                affine,
                weights,
                features,
                first,
                scratch,
            })
            .collect();
        let used = parts.len();
        threads.run(parts, |part| Arch::new().dispatch(part));
        let sums = total(&scratch[..used].iter().map(|scratch| scratch.sums.clone()).collect::<Vec<_>>());
        features.note(first, &sums);
    }

    /// The gradient of `features`' channels from `first` on, sent back: sets dz [images, inputs, pixels] of the batch norm and
    /// the gradient of the weights; returns the sums of dz.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        self,
        threads: &Threads,
        input: &[f32],
        affine: &Affine,
        weights: &[f32],
        features: &Features,
        first: usize,
        gradient: &mut [f32],
        weight_gradient: &mut [f32],
        scratch: &mut [Scratch],
    ) -> Vec<Sums> {
        let shape = features.shape;
        let share = threads.share(shape.images);
        let floats = share * self.inputs * shape.pixels();
        let upstream = &features.upstream(first, first + self.outputs);
        let images = features.values.chunks(share * shape.image());
        let gradients = features.gradient.chunks(share * shape.image());
        let inputs = input.chunks(floats).zip(gradient.chunks_mut(floats));
        let parts: Vec<_> = images
            .zip(gradients)
            .zip(inputs)
            .zip(scratch.iter_mut())
            .map(|(((values, gradients), (input, gradient)), scratch)| Backward {
                conv: self,
                shape,
                input,
                affine,
                weights,
                from: From { values, gradients, first, upstream },
                gradient,
                scratch,
            })
            .collect();
        let used = parts.len();
        threads.run(parts, |part| Arch::new().dispatch(part));
        let scratch = &scratch[..used];
        for (i, to) in weight_gradient.iter_mut().enumerate() {
            *to = scratch.iter().map(|scratch| scratch.weight_gradient[i]).sum();
        }
        total(&scratch.iter().map(|scratch| scratch.sums.clone()).collect::<Vec<_>>())
    }
}

struct Forward<'a> {
    conv: Spatial,
    shape: Shape,
    input: &'a [f32],
    affine: &'a Affine,
    weights: &'a [f32],
    features: &'a mut [f32],
    first: usize,
    scratch: &'a mut Scratch,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { conv, shape, input, affine, weights, features, first, scratch } = self;
        let Scratch { inputs, results, weights: packed, sums, .. } = scratch;
        let (plane, group_inputs, group_outputs) =
            (shape.pixels(), conv.group_inputs(), conv.group_outputs());
        sums.clear();
        sums.resize(conv.outputs, Sums::default());
        let together = RUN.div_ceil(plane);
        let runs =
            input.chunks(together * conv.inputs * plane).zip(features.chunks_mut(together * shape.image()));
        for (input, features) in runs {
            let flat = Flat {
                height: shape.height,
                width: shape.width,
                images: features.len() / shape.image(),
                lanes: S::F32_LANES,
            };
            for group in 0..conv.groups {
                let inputs = room(inputs, group_inputs * flat.plane());
                let channels = group * group_inputs..(group + 1) * group_inputs;
                lay_out_activations(simd, inputs, flat, input, conv.inputs, channels, affine);
                let results = room(results, group_outputs * flat.padded_run());
                let outputs = group * group_outputs..(group + 1) * group_outputs;
                let weights =
                    &weights[outputs.start * group_inputs * TAPS..][..group_outputs * group_inputs * TAPS];
                let of = |output: usize, input: usize, tap: usize| {
                    weights[(output * group_inputs + input) * TAPS + tap]
                };
                convolve(simd, (group_inputs, group_outputs), of, packed, inputs, flat, results);
                for (results, output) in results.chunks_exact(flat.padded_run()).zip(outputs) {
                    let channel = Channel { number: first + output, of: shape.channels };
                    let (sum, square) = take_out(simd, results, flat, features, channel);
                    sums[output].add(sum, square);
                }
            }
        }
    }
}

/// A channel, and how many an image has.
#[derive(Clone, Copy)]
struct Channel {
    number: usize,
    of: usize,
}

/// Lays relu(affine) of some channels of [images, channels, height, width] out flat; zeros between.
#[inline(always)]
fn lay_out_activations<S: Simd>(
    simd: S,
    to: &mut [f32],
    flat: Flat,
    from: &[f32],
    channels: usize,
    which: std::ops::Range<usize>,
    affine: &Affine,
) {
    to.fill(0.0);
    let plane = flat.height * flat.width;
    let zero = simd.splat_f32s(0.0);
    for (channel, to) in which.zip(to.chunks_exact_mut(flat.plane())) {
        let scale = simd.splat_f32s(affine.scale[channel]);
        let shift = simd.splat_f32s(affine.shift[channel]);
        for (image, from) in from.chunks_exact(channels * plane).enumerate() {
            for (row, from) in from[channel * plane..][..plane].chunks_exact(flat.width).enumerate() {
                let to = &mut to[flat.input_row(image, row)..][..flat.width];
                each_vector(
                    simd,
                    to,
                    #[inline(always)]
                    |at| simd.max_f32s(simd.mul_add_e_f32s(scale, load(simd, from, at), shift), zero),
                );
            }
        }
    }
}

/// Fills a row, vector by vector.
#[inline(always)]
fn each_vector<S: Simd>(simd: S, to: &mut [f32], mut value: impl FnMut(usize) -> S::f32s) {
    let mut at = 0;
    let (whole, rest) = S::as_mut_simd_f32s(to);
    for vector in whole {
        *vector = value(at);
        at += S::F32_LANES;
    }
    if !rest.is_empty() {
        simd.partial_store_f32s(rest, value(at));
    }
}

/// The results of a plane, into a channel of [images, channels, height, width]; returns Σ and Σ of squares.
#[inline(always)]
fn take_out<S: Simd>(simd: S, results: &[f32], flat: Flat, to: &mut [f32], channel: Channel) -> (f32, f32) {
    let plane = flat.height * flat.width;
    let zero = simd.splat_f32s(0.0);
    let (mut sum, mut square) = (zero, zero);
    for (image, to) in to.chunks_exact_mut(channel.of * plane).enumerate() {
        for (row, to) in to[channel.number * plane..][..plane].chunks_exact_mut(flat.width).enumerate() {
            let from = &results[flat.row(image, row)..][..flat.width];
            each_vector(
                simd,
                to,
                #[inline(always)]
                |at| {
                    let x = load(simd, from, at);
                    sum = simd.add_f32s(sum, x);
                    square = simd.mul_add_e_f32s(x, x, square);
                    x
                },
            );
        }
    }
    (simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(square))
}

/// Flat planes convolved: `of` tells the weight of (output, input, tap).
#[inline(always)]
fn convolve<S: Simd>(
    simd: S,
    (inputs, outputs): (usize, usize),
    of: impl Fn(usize, usize, usize) -> f32,
    packed: &mut Vec<f32>,
    planes: &[f32],
    flat: Flat,
    results: &mut [f32],
) {
    let mut first = 0;
    while first < outputs {
        let left = outputs - first;
        let packed = room(packed, inputs * TAPS * 8);
        let tile = Tile { first, inputs, flat };
        first += if S::REGISTER_COUNT >= 32 {
            match left {
                8.. => taps::<S, 8, 2>(simd, &of, packed, planes, results, tile),
                6.. => taps::<S, 6, 4>(simd, &of, packed, planes, results, tile),
                4.. => taps::<S, 4, 4>(simd, &of, packed, planes, results, tile),
                3 => taps::<S, 3, 4>(simd, &of, packed, planes, results, tile),
                2 => taps::<S, 2, 8>(simd, &of, packed, planes, results, tile),
                _ => taps::<S, 1, 8>(simd, &of, packed, planes, results, tile),
            }
        } else {
            match left {
                4.. => taps::<S, 4, 2>(simd, &of, packed, planes, results, tile),
                3 => taps::<S, 3, 4>(simd, &of, packed, planes, results, tile),
                2 => taps::<S, 2, 4>(simd, &of, packed, planes, results, tile),
                _ => taps::<S, 1, 8>(simd, &of, packed, planes, results, tile),
            }
        };
    }
}

/// What a tile of outputs is computed from.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    inputs: usize,
    flat: Flat,
}

/// `O` outputs over a whole plane, `V` vectors at a time; returns `O`.
#[inline(always)]
fn taps<S: Simd, const O: usize, const V: usize>(
    simd: S,
    of: &impl Fn(usize, usize, usize) -> f32,
    packed: &mut [f32],
    planes: &[f32],
    results: &mut [f32],
    Tile { first, inputs, flat }: Tile,
) -> usize {
    let (weights, _) = packed.as_chunks_mut::<O>();
    for input in 0..inputs {
        for tap in 0..TAPS {
            weights[input * TAPS + tap] = std::array::from_fn(|o| of(first + o, input, tap));
        }
    }
    let (lanes, stride, run) = (S::F32_LANES, flat.stride(), flat.padded_run());
    for at in (0..flat.run()).step_by(V * lanes) {
        let mut sums = [[simd.splat_f32s(0.0); V]; O];
        for (plane, weights) in planes.chunks_exact(flat.plane()).zip(weights.chunks_exact(TAPS)) {
            for y in 0..3 {
                for x in 0..3 {
                    let from = &plane[at + y * stride + x..][..V * lanes];
                    let from = S::as_simd_f32s(from).0;
                    let weights = &weights[3 * y + x];
                    for o in 0..O {
                        let weight = simd.splat_f32s(weights[o]);
                        for v in 0..V {
                            sums[o][v] = simd.mul_add_e_f32s(weight, from[v], sums[o][v]);
                        }
                    }
                }
            }
        }
        for (o, sums) in sums.iter().enumerate() {
            let to = &mut results[(first + o) * run + at..][..V * lanes];
            S::as_mut_simd_f32s(to).0.copy_from_slice(sums);
        }
    }
    O
}
