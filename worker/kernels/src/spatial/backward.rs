//! The way back through a 3×3 convolution.

use super::*;

/// Where the gradient of the outputs comes from.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) values: &'a [f32],
    pub(super) gradients: &'a [f32],
    pub(super) first: usize,
    pub(super) upstream: &'a Upstream,
}

pub(super) struct Backward<'a> {
    pub(super) conv: Spatial,
    pub(super) shape: Shape,
    pub(super) input: &'a [f32],
    pub(super) affine: &'a Affine,
    pub(super) weights: &'a [f32],
    pub(super) from: From<'a>,
    pub(super) gradient: &'a mut [f32],
    pub(super) scratch: &'a mut Scratch,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { conv, shape, input, affine, weights, from, gradient, scratch } = self;
        let Scratch { inputs, outputs, results, weights: packed, weight_gradient, sums } = scratch;
        let (plane, group_inputs, group_outputs) =
            (shape.pixels(), conv.group_inputs(), conv.group_outputs());
        sums.clear();
        sums.resize(conv.inputs, Sums::default());
        let weight_gradient = room(weight_gradient, conv.weights());
        weight_gradient.fill(0.0);
        let together = RUN.div_ceil(plane);
        let image = together * shape.image();
        let runs = input
            .chunks(together * conv.inputs * plane)
            .zip(gradient.chunks_mut(together * conv.inputs * plane));
        let runs = runs.zip(from.values.chunks(image).zip(from.gradients.chunks(image)));
        for ((input, gradient), (values, gradients)) in runs {
            let from = From { values, gradients, ..from };
            let flat = Flat {
                height: shape.height,
                width: shape.width,
                images: values.len() / shape.image(),
                lanes: S::F32_LANES,
            };
            for group in 0..conv.groups {
                let activations = room(inputs, group_inputs * flat.plane());
                let channels = group * group_inputs..(group + 1) * group_inputs;
                lay_out_activations(simd, activations, flat, input, conv.inputs, channels.clone(), affine);
                let coming = room(outputs, group_outputs * flat.plane());
                let which = group * group_outputs..(group + 1) * group_outputs;
                let start = which.start * group_inputs * TAPS;
                lay_out_gradients(simd, coming, flat, from, shape.channels, which);

                let floats = group_outputs * group_inputs * TAPS;
                let to = &mut weight_gradient[start..][..floats];
                weight_gradients(simd, (group_inputs, group_outputs), activations, coming, flat, to);

                let weights = &weights[start..][..floats];
                // Back through a convolution: inputs and outputs change places, and the kernel is turned around.
                let of = |input: usize, output: usize, tap: usize| {
                    weights[(output * group_inputs + input) * TAPS + (TAPS - 1 - tap)]
                };
                let results = room(results, group_inputs * flat.padded_run());
                convolve(simd, (group_outputs, group_inputs), of, packed, coming, flat, results);
                let planes =
                    results.chunks_exact(flat.padded_run()).zip(activations.chunks_exact(flat.plane()));
                for ((results, activations), channel) in planes.zip(channels) {
                    let through = Through { results, activations, input, mean: affine.mean[channel] };
                    let of = Channel { number: channel, of: conv.inputs };
                    let (sum, product) = through_relu(simd, through, flat, gradient, of);
                    sums[channel].add(sum, product);
                }
            }
        }
    }
}

/// Lays the gradient of some outputs out flat; zeros between.
#[inline(always)]
pub(super) fn lay_out_gradients<S: Simd>(
    simd: S,
    to: &mut [f32],
    flat: Flat,
    from: From<'_>,
    channels: usize,
    which: std::ops::Range<usize>,
) {
    to.fill(0.0);
    let plane = flat.height * flat.width;
    let images =
        || from.values.chunks_exact(channels * plane).zip(from.gradients.chunks_exact(channels * plane));
    for (output, to) in which.zip(to.chunks_exact_mut(flat.plane())) {
        let direct = simd.splat_f32s(from.upstream.direct[output]);
        let own = simd.splat_f32s(from.upstream.own[output]);
        let mean = simd.splat_f32s(from.upstream.mean[output]);
        let constant = simd.splat_f32s(from.upstream.constant[output]);
        let start = (from.first + output) * plane;
        for (image, (values, gradients)) in images().enumerate() {
            let rows = values[start..][..plane].chunks_exact(flat.width);
            let rows = rows.zip(gradients[start..][..plane].chunks_exact(flat.width));
            for (row, (values, gradients)) in rows.enumerate() {
                let to = &mut to[flat.input_row(image, row)..][..flat.width];
                each_vector(
                    simd,
                    to,
                    #[inline(always)]
                    |at| {
                        let rest =
                            simd.mul_add_e_f32s(own, simd.sub_f32s(load(simd, values, at), mean), constant);
                        simd.mul_add_e_f32s(direct, load(simd, gradients, at), rest)
                    },
                );
            }
        }
    }
}

/// What comes back to a channel, its activations, and what its batch norm saw.
pub(super) struct Through<'a> {
    pub(super) results: &'a [f32],
    pub(super) activations: &'a [f32],
    pub(super) input: &'a [f32],
    pub(super) mean: f32,
}

/// Through ReLU: dz where the activation is above 0, into `to`; returns Σ dz and Σ dz·(x − mean).
#[inline(always)]
pub(super) fn through_relu<S: Simd>(
    simd: S,
    from: Through<'_>,
    flat: Flat,
    to: &mut [f32],
    channel: Channel,
) -> (f32, f32) {
    let plane = flat.height * flat.width;
    let zero = simd.splat_f32s(0.0);
    let mean = simd.splat_f32s(from.mean);
    let (mut sum, mut product) = (zero, zero);
    let images = to.chunks_exact_mut(channel.of * plane).zip(from.input.chunks_exact(channel.of * plane));
    for (image, (to, input)) in images.enumerate() {
        let rows = to[channel.number * plane..][..plane].chunks_exact_mut(flat.width);
        let rows = rows.zip(input[channel.number * plane..][..plane].chunks_exact(flat.width));
        for (row, (to, x)) in rows.enumerate() {
            let results = &from.results[flat.row(image, row)..][..flat.width];
            let activations = &from.activations[flat.input_row(image, row)..][..flat.width];
            each_vector(
                simd,
                to,
                #[inline(always)]
                |at| {
                    let active = simd.less_than_f32s(zero, load(simd, activations, at));
                    let dz = simd.select_f32s(active, load(simd, results, at), zero);
                    sum = simd.add_f32s(sum, dz);
                    product = simd.mul_add_e_f32s(dz, simd.sub_f32s(load(simd, x, at), mean), product);
                    dz
                },
            );
        }
    }
    (simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(product))
}

/// Adds Σ over pixels of gradient · activation, moved by each tap, to the gradient of the weights [output, input, tap].
#[inline(always)]
pub(super) fn weight_gradients<S: Simd>(
    simd: S,
    (inputs, outputs): (usize, usize),
    activations: &[f32],
    coming: &[f32],
    flat: Flat,
    to: &mut [f32],
) {
    let wide = S::REGISTER_COUNT >= 32;
    for input in 0..inputs {
        let activations = &activations[input * flat.plane()..][..flat.plane()];
        let mut first = 0;
        while first < outputs {
            let at = Place { input, inputs, first, flat };
            first += match (outputs - first, wide) {
                (8.., true) => products::<S, 8, 1>(simd, activations, coming, to, at),
                (6.., true) => products::<S, 6, 1>(simd, activations, coming, to, at),
                (4.., _) => products::<S, 4, 1>(simd, activations, coming, to, at),
                (3, true) => products::<S, 3, 3>(simd, activations, coming, to, at),
                (2.., true) => products::<S, 2, 3>(simd, activations, coming, to, at),
                _ => products::<S, 1, 3>(simd, activations, coming, to, at),
            };
        }
    }
}

/// Which weights a tile of products is of.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) input: usize,
    pub(super) inputs: usize,
    pub(super) first: usize,
    pub(super) flat: Flat,
}

/// The weights from one input to `O` outputs, `R` rows of the kernel at a time; returns `O`.
#[inline(always)]
pub(super) fn products<S: Simd, const O: usize, const R: usize>(
    simd: S,
    activations: &[f32],
    coming: &[f32],
    to: &mut [f32],
    Place { input, inputs, first, flat }: Place,
) -> usize {
    let (lanes, stride) = (S::F32_LANES, flat.stride());
    let length = flat.padded_run();
    // A gradient's own place, which the middle tap sees, is a row and a pixel further on.
    let coming: [&[f32]; O] =
        std::array::from_fn(|o| &coming[(first + o) * flat.plane() + stride + 1..][..length]);
    for y in (0..3).step_by(R) {
        let mut sums = [[[simd.splat_f32s(0.0); 3]; R]; O];
        for at in (0..flat.run()).step_by(lanes) {
            let mut moved = [[simd.splat_f32s(0.0); 3]; R];
            for (r, moved) in moved.iter_mut().enumerate() {
                for (x, moved) in moved.iter_mut().enumerate() {
                    *moved = S::as_simd_f32s(&activations[at + (y + r) * stride + x..][..lanes]).0[0];
                }
            }
            for o in 0..O {
                let gradient = S::as_simd_f32s(&coming[o][at..][..lanes]).0[0];
                for r in 0..R {
                    for x in 0..3 {
                        sums[o][r][x] = simd.mul_add_e_f32s(gradient, moved[r][x], sums[o][r][x]);
                    }
                }
            }
        }
        for (o, sums) in sums.iter().enumerate() {
            let to = &mut to[((first + o) * inputs + input) * TAPS + 3 * y..][..3 * R];
            for (to, &sum) in to.iter_mut().zip(sums.iter().flatten()) {
                *to += simd.reduce_sum_f32s(sum);
            }
        }
    }
    O
}
