//! Batch norm, ReLU, dropout and a 1×1 convolution, in one pass over the features each way.

use pulp::{Arch, Simd, WithSimd};

use crate::features::{Features, Shape};
use crate::groups::{self, Group};
use crate::norm::{Affine, Sums, Upstream, total};
use crate::pack::{Kept, Source, Strip, activations, strips};
use crate::threads::Threads;
use crate::tile::{ROWS, VECTORS, load, pixels, room, rows, store, tiles, tiles_mut};

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

struct Backward<'a> {
    conv: &'a Pointwise,
    shape: Shape,
    images: &'a [f32],
    affine: &'a Affine,
    norm_weights: &'a [f32],
    dropout: Option<Dropout<'a>>,
    gradient: &'a mut [f32],
    incoming: Incoming<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { conv, shape, images, affine, norm_weights, dropout, gradient, incoming, scratch } =
            self;
        let (plane, tile, lanes) = (shape.pixels(), pixels::<S>(), S::F32_LANES);
        let Scratch { panel, panel_gradient, output_gradient, transposed, weight_gradient, sums } = scratch;
        sums.clear();
        sums.resize(conv.inputs, Sums::default());
        let packed_outputs = |group: &Group| group.outputs.len().next_multiple_of(lanes);
        let floats = conv.gradient_groups.iter().map(|g| g.inputs.len() * packed_outputs(g)).sum();
        let weight_gradient = room(weight_gradient, floats);
        weight_gradient.fill(0.0);
        let row: usize = conv.gradient_groups.iter().map(packed_outputs).sum();

        let outputs = conv.outputs * plane;
        let comes = incoming.output.chunks_exact(outputs).zip(incoming.gradient.chunks_exact(outputs));
        let images = images.chunks_exact(shape.image()).zip(gradient.chunks_exact_mut(shape.image()));
        for (i, ((image, gradient), (output, dz))) in images.zip(comes).enumerate() {
            let source = source(conv, image, plane, affine, dropout, i);
            for strip in strips::<S>(plane, conv.inputs) {
                let panel = room(panel, strip.tiles * conv.inputs * tile);
                activations(simd, panel, source, strip);

                let dy = room(output_gradient, strip.tiles * conv.outputs * tile);
                output_gradients(simd, dy, Incoming { output, gradient: dz, ..incoming }, plane, strip);
                let transposed = room(transposed, strip.tiles * tile * row);
                transpose(transposed, dy, conv, (row, lanes, tile), strip);

                let da = room(panel_gradient, strip.tiles * conv.inputs * tile);
                da.fill(0.0);
                for (group, weights) in conv.groups.iter().zip(&conv.by_inputs) {
                    input_gradients(simd, group, weights, (conv.inputs, conv.outputs), dy, da);
                }
                let scale = dropout.map_or(1.0, |dropout| dropout.scale);
                let back = Back { source, norm_weights, scale, strip };
                add_gradients(simd, back, panel, da, gradient, sums);

                let (mut start, mut column) = (0, 0);
                for group in &conv.gradient_groups {
                    let width = packed_outputs(group);
                    let to = &mut weight_gradient[start..][..group.inputs.len() * width];
                    weight_gradients(
                        simd,
                        to,
                        group,
                        panel,
                        conv.inputs,
                        &transposed[column..],
                        row,
                        strip.tiles,
                    );
                    start += group.inputs.len() * width;
                    column += width;
                }
            }
        }
    }
}

/// The gradient of a strip of outputs, [tile][output][pixel]; 0 past the strip.
#[inline(always)]
fn output_gradients<S: Simd>(simd: S, to: &mut [f32], incoming: Incoming<'_>, plane: usize, strip: Strip) {
    let Incoming { output, gradient, upstream } = incoming;
    let (lanes, tile) = (S::F32_LANES, pixels::<S>());
    let channels = upstream.direct.len();
    let ragged = strip.length % tile;
    for channel in 0..channels {
        let y = &output[channel * plane + strip.start..][..strip.length];
        let dz = &gradient[channel * plane + strip.start..][..strip.length];
        let direct = simd.splat_f32s(upstream.direct[channel]);
        let own = simd.splat_f32s(upstream.own[channel]);
        let mean = simd.splat_f32s(upstream.mean[channel]);
        let constant = simd.splat_f32s(upstream.constant[channel]);
        let tiles = tiles_mut::<S>(to);
        for t in 0..strip.tiles {
            for v in 0..VECTORS {
                let at = t * tile + v * lanes;
                let rest = simd.mul_add_e_f32s(own, simd.sub_f32s(load(simd, y, at), mean), constant);
                tiles[t * channels + channel][v] = simd.mul_add_e_f32s(direct, load(simd, dz, at), rest);
            }
        }
        if ragged > 0 {
            to[((strip.tiles - 1) * channels + channel) * tile..][ragged..tile].fill(0.0);
        }
    }
}

/// From [tile][output][pixel] to [tile][pixel][output], outputs by the groups of the weights' gradient.
fn transpose(
    to: &mut [f32],
    from: &[f32],
    conv: &Pointwise,
    (row, lanes, tile): (usize, usize, usize),
    strip: Strip,
) {
    let from = from.chunks_exact(conv.outputs * tile);
    for (to, from) in to.chunks_exact_mut(tile * row).zip(from).take(strip.tiles) {
        let mut column = 0;
        for group in &conv.gradient_groups {
            for (o, &output) in group.outputs.iter().enumerate() {
                let from = &from[output as usize * tile..][..tile];
                for (p, &value) in from.iter().enumerate() {
                    to[p * row + column + o] = value;
                }
            }
            column += group.outputs.len().next_multiple_of(lanes);
        }
    }
}

/// Adds what a group sends back to its inputs, [tile][input][pixel].
#[inline(always)]
fn input_gradients<S: Simd>(
    simd: S,
    group: &Group,
    weights: &[[f32; ROWS]],
    (inputs, outputs): (usize, usize),
    dy: &[f32],
    da: &mut [f32],
) {
    let dy = tiles::<S>(dy).chunks_exact(outputs);
    for (dy, da) in dy.zip(tiles_mut::<S>(da).chunks_exact_mut(inputs)) {
        for (channels, weights) in group.inputs.chunks(ROWS).zip(weights.chunks_exact(group.outputs.len())) {
            rows(
                simd,
                weights,
                &group.outputs,
                dy,
                #[inline(always)]
                |first, results| {
                    for (result, &channel) in results.iter().zip(channels.get(first..).unwrap_or(&[])) {
                        let to = &mut da[channel as usize];
                        for v in 0..VECTORS {
                            to[v] = simd.add_f32s(to[v], result[v]);
                        }
                    }
                },
            );
        }
    }
}

/// What [`add_gradients`] needs besides the panels.
#[derive(Clone, Copy)]
struct Back<'a> {
    source: Source<'a>,
    norm_weights: &'a [f32],
    /// Of the dropout; 1 without.
    scale: f32,
    strip: Strip,
}

/// Through dropout and ReLU: dz = da·scale where the activation is above 0. Adds γ·dz to the features' gradient, and sums up
/// dz and dz·(x − mean).
#[inline(always)]
fn add_gradients<S: Simd>(
    simd: S,
    back: Back<'_>,
    panel: &[f32],
    da: &[f32],
    gradient: &mut [f32],
    sums: &mut [Sums],
) {
    let Back { source: Source { image, plane, channels, affine, used, .. }, norm_weights, scale, strip } =
        back;
    let (lanes, tile) = (S::F32_LANES, pixels::<S>());
    let zero = simd.splat_f32s(0.0);
    let scale = simd.splat_f32s(scale);
    let (panel, da) = (tiles::<S>(panel), tiles::<S>(da));
    for &channel in used {
        let channel = channel as usize;
        let x = &image[channel * plane + strip.start..][..strip.length];
        let to = &mut gradient[channel * plane + strip.start..][..strip.length];
        let weight = simd.splat_f32s(norm_weights[channel]);
        let mean = simd.splat_f32s(affine.mean[channel]);
        let (mut sum, mut product) = (zero, zero);
        for t in 0..strip.tiles {
            let (a, da) = (&panel[t * channels + channel], &da[t * channels + channel]);
            for v in 0..VECTORS {
                let at = t * tile + v * lanes;
                let active = simd.less_than_f32s(zero, a[v]);
                let dz = simd.select_f32s(active, simd.mul_f32s(da[v], scale), zero);
                sum = simd.add_f32s(sum, dz);
                product = simd.mul_add_e_f32s(dz, simd.sub_f32s(load(simd, x, at), mean), product);
                store(simd, to, at, simd.mul_add_e_f32s(weight, dz, load(simd, to, at)));
            }
        }
        sums[channel].add(simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(product));
    }
}

/// Adds Σ over pixels of activation·dy to the gradient of a group's weights, [input][output].
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn weight_gradients<S: Simd>(
    simd: S,
    to: &mut [f32],
    group: &Group,
    panel: &[f32],
    channels: usize,
    transposed: &[f32],
    row: usize,
    tile_count: usize,
) {
    let lanes = S::F32_LANES;
    let width = group.outputs.len().next_multiple_of(lanes);
    let mut column = 0;
    while column < width {
        let vectors = (width - column) / lanes;
        let at = Place { column, width, row, channels, tile_count };
        // Inputs and vectors of a tile, by how many registers there are for the sums.
        let wide = S::REGISTER_COUNT >= 32;
        let taken = match (vectors, wide) {
            (4.., true) => outer::<S, 6, 4>(simd, to, &group.inputs, panel, transposed, at),
            (2.., true) => outer::<S, 12, 2>(simd, to, &group.inputs, panel, transposed, at),
            (_, true) => outer::<S, 16, 1>(simd, to, &group.inputs, panel, transposed, at),
            (2.., false) => outer::<S, 4, 2>(simd, to, &group.inputs, panel, transposed, at),
            (_, false) => outer::<S, 8, 1>(simd, to, &group.inputs, panel, transposed, at),
        };
        column += taken * lanes;
    }
}

/// Where the columns of a tile of the weights' gradient lie.
#[derive(Clone, Copy)]
struct Place {
    /// The first output, within the group.
    column: usize,
    /// Outputs of the group, to whole vectors.
    width: usize,
    /// Outputs of all groups.
    row: usize,
    /// Channels of the panel.
    channels: usize,
    tile_count: usize,
}

/// All inputs by `V` vectors of outputs, `I` inputs at a time; returns `V`.
#[inline(always)]
fn outer<S: Simd, const I: usize, const V: usize>(
    simd: S,
    to: &mut [f32],
    inputs: &[u32],
    panel: &[f32],
    transposed: &[f32],
    at: Place,
) -> usize {
    let (lanes, tile) = (S::F32_LANES, pixels::<S>());
    for (number, inputs) in inputs.chunks(I).enumerate() {
        let mut sums = [[simd.splat_f32s(0.0); V]; I];
        for t in 0..at.tile_count {
            let panel = &panel[t * at.channels * tile..][..at.channels * tile];
            // Fewer inputs than a tile has: the last one again, for nothing.
            let mut activations: [&[f32]; I] = [&[]; I];
            for (i, activations) in activations.iter_mut().enumerate() {
                let input = inputs[i.min(inputs.len() - 1)] as usize;
                *activations = &panel[input * tile..][..tile];
            }
            let dy = &transposed[t * tile * at.row..];
            for p in 0..tile {
                let dy = S::as_simd_f32s(&dy[p * at.row + at.column..][..V * lanes]).0;
                for i in 0..I {
                    let activation = simd.splat_f32s(activations[i][p]);
                    for v in 0..V {
                        sums[i][v] = simd.mul_add_e_f32s(activation, dy[v], sums[i][v]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate().take(inputs.len()) {
            let to = &mut to[(number * I + i) * at.width + at.column..][..V * lanes];
            let to = S::as_mut_simd_f32s(to).0;
            for v in 0..V {
                to[v] = simd.add_f32s(to[v], sums[v]);
            }
        }
    }
    V
}
