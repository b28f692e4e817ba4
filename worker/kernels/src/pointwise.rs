//! Batch norm, ReLU, dropout and a 1×1 convolution, in one pass over the features each way.

mod backward;

use pulp::{Arch, Simd, WithSimd};

use crate::features::{Features, Shape};
use crate::groups::{self, Group};
use crate::norm::{Affine, Sums, Upstream, total};
use crate::pack::{Kept, Source, Strip, activations, strips};
use crate::threads::Threads;
use crate::tile::{ROWS, VECTORS, load, pixels, room, rows, store, tiles, tiles_mut};
use backward::*;

/// A 1×1 convolution, its weights in the order in which they are read.
#[derive(Debug)]
pub struct Pointwise {
    inputs: usize,
    outputs: usize,
    groups: Vec<Group>,
    gradient_groups: Vec<Group>,
    used: Vec<u32>,
    /// Of each group.
    by_outputs: Vec<Vec<[f32; ROWS]>>,
    by_inputs: Vec<Vec<[f32; ROWS]>>,
}

/// The dropout of a step before the convolution.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// [images, inputs, pixels]: 1 where kept, 0 where dropped.
    pub mask: &'a [u8],
    /// 1 / (1 − probability)
    pub scale: f32,
}

/// What comes back through the batch norm after the convolution.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// What the convolution gave, [images, outputs, pixels].
    pub output: &'a [f32],
    /// dz of the batch norm after it, of the same shape.
    pub gradient: &'a [f32],
    /// How the gradient of `output` follows from them.
    pub upstream: &'a Upstream,
}

/// A thread's own memory, kept from step to step.
#[derive(Debug, Default)]
pub struct Scratch {
    panel: Vec<f32>,
    panel_gradient: Vec<f32>,
    output_gradient: Vec<f32>,
    transposed: Vec<f32>,
    weight_gradient: Vec<f32>,
    sums: Vec<Sums>,
}

impl Pointwise {
    /// Of these groups, over so many inputs and outputs.
    pub fn new(inputs: usize, outputs: usize, groups: Vec<Group>) -> Pointwise {
        let groups = groups::joined(groups);
        let gradient_groups = groups::for_gradient(&groups, Arch::new().dispatch(Lanes));
        let used = groups::used(&groups);
        let packed = vec![Vec::new(); groups.len()];
        let (by_outputs, by_inputs) = (packed.clone(), packed);
        Pointwise { inputs, outputs, groups, gradient_groups, used, by_outputs, by_inputs }
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Takes the weights [outputs, inputs] of a step.
    pub fn set_weights(&mut self, weights: &[f32]) {
        for (i, group) in self.groups.iter().enumerate() {
            group.by_outputs(weights, self.inputs, &mut self.by_outputs[i]);
            group.by_inputs(weights, self.inputs, &mut self.by_inputs[i]);
        }
    }

    /// Convolves relu(affine(features)) into `output` [images, outputs, pixels]; returns the sums of each output.
    pub fn forward(
        &self,
        threads: &Threads,
        features: &Features,
        affine: &Affine,
        dropout: Option<Dropout<'_>>,
        output: &mut [f32],
        scratch: &mut [Scratch],
    ) -> Vec<Sums> {
        let shape = features.shape;
        let share = threads.share(shape.images);
        let images = features.values.chunks(share * shape.image());
        let outputs = output.chunks_mut(share * self.outputs * shape.pixels());
        let parts: Vec<_> = images
            .zip(outputs)
            .zip(scratch.iter_mut())
            .enumerate()
            .map(|(i, ((images, output), scratch))| {
                let dropout =
                    dropout.map(|dropout| part_of(dropout, i * share, self.inputs * shape.pixels()));
                Forward { conv: self, shape, images, affine, dropout, output, scratch }
            })
            .collect();
        let used = parts.len();
        threads.run(parts, |part| Arch::new().dispatch(part));
        total(&scratch[..used].iter().map(|scratch| scratch.sums.clone()).collect::<Vec<_>>())
    }

    /// The gradient, from what came back: adds γ·dz to that of the features, sets `weight_gradient` [outputs, inputs], and
    /// returns the sums of dz of each input, whose γ are `norm_weights`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        threads: &Threads,
        features: &mut Features,
        affine: &Affine,
        norm_weights: &[f32],
        dropout: Option<Dropout<'_>>,
        incoming: Incoming<'_>,
        weight_gradient: &mut [f32],
        scratch: &mut [Scratch],
    ) -> Vec<Sums> {
        let shape = features.shape;
        let share = threads.share(shape.images);
        let floats = share * self.outputs * shape.pixels();
        let images = features.values.chunks(share * shape.image());
        let gradients = features.gradient.chunks_mut(share * shape.image());
        let comes = incoming.output.chunks(floats).zip(incoming.gradient.chunks(floats));
        let parts: Vec<_> = images
            .zip(gradients)
            .zip(comes)
            .zip(scratch.iter_mut())
            .enumerate()
            .map(|(i, (((images, gradient), (output, output_gradient)), scratch))| {
                let dropout =
                    dropout.map(|dropout| part_of(dropout, i * share, self.inputs * shape.pixels()));
                let incoming = Incoming { output, gradient: output_gradient, upstream: incoming.upstream };
                Backward {
                    conv: self,
                    shape,
                    images,
                    affine,
                    norm_weights,
                    dropout,
                    gradient,
                    incoming,
                    scratch,
                }
            })
            .collect();
        let used = parts.len();
        threads.run(parts, |part| Arch::new().dispatch(part));
        let scratch = &scratch[..used];
        self.gather_weight_gradient(scratch, weight_gradient);
        let sums = total(&scratch.iter().map(|scratch| scratch.sums.clone()).collect::<Vec<_>>());
        features.add_sums(norm_weights, &sums);
        sums
    }

    fn gather_weight_gradient(&self, scratch: &[Scratch], weight_gradient: &mut [f32]) {
        weight_gradient.fill(0.0);
        let lanes = Arch::new().dispatch(Lanes);
        let mut start = 0;
        for group in &self.gradient_groups {
            let row = group.outputs.len().next_multiple_of(lanes);
            for (i, &input) in group.inputs.iter().enumerate() {
                for (o, &output) in group.outputs.iter().enumerate() {
                    let at = start + i * row + o;
                    let sum: f32 = scratch.iter().map(|scratch| scratch.weight_gradient[at]).sum();
                    weight_gradient[output as usize * self.inputs + input as usize] = sum;
                }
            }
            start += group.inputs.len() * row;
        }
        if self.gradient_groups.len() < self.groups.len() {
            // Summed up for all together: what a group does not see is not its weight's.
            let mut seen = vec![false; self.outputs * self.inputs];
            for group in &self.groups {
                for &output in &group.outputs {
                    group
                        .inputs
                        .iter()
                        .for_each(|&i| seen[output as usize * self.inputs + i as usize] = true);
                }
            }
            weight_gradient.iter_mut().zip(seen).filter(|(_, seen)| !seen).for_each(|(w, _)| *w = 0.0);
        }
    }
}

/// The part of a mask from an image on.
fn part_of<'a>(dropout: Dropout<'a>, image: usize, floats: usize) -> Dropout<'a> {
    Dropout { mask: &dropout.mask[image * floats..], scale: dropout.scale }
}

/// Floats of a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

struct Forward<'a> {
    conv: &'a Pointwise,
    shape: Shape,
    images: &'a [f32],
    affine: &'a Affine,
    dropout: Option<Dropout<'a>>,
    output: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { conv, shape, images, affine, dropout, output, scratch } = self;
        let plane = shape.pixels();
        scratch.sums.clear();
        scratch.sums.resize(conv.outputs, Sums::default());
        let images = images.chunks_exact(shape.image()).zip(output.chunks_exact_mut(conv.outputs * plane));
        for (i, (image, output)) in images.enumerate() {
            let source = source(conv, image, plane, affine, dropout, i);
            for strip in strips::<S>(plane, conv.inputs) {
                let panel = room(&mut scratch.panel, strip.tiles * conv.inputs * pixels::<S>());
                activations(simd, panel, source, strip);
                for (group, weights) in conv.groups.iter().zip(&conv.by_outputs) {
                    convolve(
                        simd,
                        group,
                        weights,
                        conv.inputs,
                        panel,
                        strip,
                        plane,
                        output,
                        &mut scratch.sums,
                    );
                }
            }
        }
    }
}

#[inline(always)]
fn source<'a>(
    conv: &'a Pointwise,
    image: &'a [f32],
    plane: usize,
    affine: &'a Affine,
    dropout: Option<Dropout<'a>>,
    number: usize,
) -> Source<'a> {
    let floats = conv.inputs * plane;
    let kept =
        dropout.map(|Dropout { mask, scale }| Kept { mask: &mask[number * floats..][..floats], scale });
    Source { image, plane, channels: conv.inputs, affine, used: &conv.used, kept }
}

/// A group's outputs over a strip, and their sums.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn convolve<S: Simd>(
    simd: S,
    group: &Group,
    weights: &[[f32; ROWS]],
    channels: usize,
    panel: &[f32],
    strip: Strip,
    plane: usize,
    output: &mut [f32],
    sums: &mut [Sums],
) {
    let (panel, lanes) = (tiles::<S>(panel), S::F32_LANES);
    let zero = simd.splat_f32s(0.0);
    for (outputs, weights) in group.outputs.chunks(ROWS).zip(weights.chunks_exact(group.inputs.len())) {
        let mut sum = [zero; ROWS];
        let mut square = [zero; ROWS];
        for (t, panel) in panel.chunks_exact(channels).take(strip.tiles).enumerate() {
            rows(
                simd,
                weights,
                &group.inputs,
                panel,
                #[inline(always)]
                |first, results| {
                    for (r, result) in results.iter().enumerate() {
                        let Some(&channel) = outputs.get(first + r) else { return };
                        let to = &mut output[channel as usize * plane + strip.start..][..strip.length];
                        for v in 0..VECTORS {
                            store(simd, to, (t * VECTORS + v) * lanes, result[v]);
                            sum[first + r] = simd.add_f32s(sum[first + r], result[v]);
                            square[first + r] = simd.mul_add_e_f32s(result[v], result[v], square[first + r]);
                        }
                    }
                },
            );
        }
        for (r, &channel) in outputs.iter().enumerate() {
            sums[channel as usize].add(simd.reduce_sum_f32s(sum[r]), simd.reduce_sum_f32s(square[r]));
        }
    }
}
