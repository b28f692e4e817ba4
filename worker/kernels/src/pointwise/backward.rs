//! The way back through batch norm, ReLU, dropout and a 1×1 convolution.

use super::*;

pub(super) struct Backward<'a> {
    pub(super) conv: &'a Pointwise,
    pub(super) shape: Shape,
    pub(super) images: &'a [f32],
    pub(super) affine: &'a Affine,
    pub(super) norm_weights: &'a [f32],
    pub(super) dropout: Option<Dropout<'a>>,
    pub(super) gradient: &'a mut [f32],
    pub(super) incoming: Incoming<'a>,
    pub(super) scratch: &'a mut Scratch,
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
pub(super) fn output_gradients<S: Simd>(
    simd: S,
    to: &mut [f32],
    incoming: Incoming<'_>,
    plane: usize,
    strip: Strip,
) {
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
pub(super) fn transpose(
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
pub(super) fn input_gradients<S: Simd>(
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
pub(super) struct Back<'a> {
    pub(super) source: Source<'a>,
    pub(super) norm_weights: &'a [f32],
    /// Of the dropout; 1 without.
    pub(super) scale: f32,
    pub(super) strip: Strip,
}

/// Through dropout and ReLU: dz = da·scale where the activation is above 0. Adds γ·dz to the features' gradient, and sums up
/// dz and dz·(x − mean).
#[inline(always)]
pub(super) fn add_gradients<S: Simd>(
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
pub(super) fn weight_gradients<S: Simd>(
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
pub(super) struct Place {
    /// The first output, within the group.
    pub(super) column: usize,
    /// Outputs of the group, to whole vectors.
    pub(super) width: usize,
    /// Outputs of all groups.
    pub(super) row: usize,
    /// Channels of the panel.
    pub(super) channels: usize,
    pub(super) tile_count: usize,
}

/// All inputs by `V` vectors of outputs, `I` inputs at a time; returns `V`.
#[inline(always)]
pub(super) fn outer<S: Simd, const I: usize, const V: usize>(
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
