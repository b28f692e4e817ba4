//! The 1×1 convolution with vectors of outputs, for small maps: a few pixels by two vectors of outputs at a time, each input broadcast
//! from a panel of normalised and rectified pixels. Weights are read once, in their order.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::{BLOCK, Layout};
use crate::network;
use crate::place::Place;
use crate::tile::{load, store};

/// Vectors of outputs of a tile.
const VECTORS: usize = 2;

/// A 1×1 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Pointwise {
    groups: Vec<Group>,
    /// The pieces of its work, by groups.
    pub units: Vec<Unit>,
    /// Of all channels that it gives: the block of the middle, and the place in it.
    pub order: Vec<(usize, usize)>,
    weights: Buffer,
}

#[derive(Debug)]
struct Group {
    inputs: Vec<usize>,
    /// Scale and shift of each.
    norm: Vec<[f32; 2]>,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    group: usize,
    /// Blocks of the middle that it makes.
    pub blocks: usize,
    /// Vectors of outputs.
    vectors: usize,
    /// Where its bias and its weights begin: for each tile of vectors, [1 + inputs][outputs]
    weights: usize,
}

impl Pointwise {
    pub fn new(conv: &network::Pointwise, lanes: usize) -> Pointwise {
        let (mut units, mut order, mut weights) = (Vec::new(), vec![(0, 0); conv.outputs], Vec::new());
        let mut block = 0;
        for (g, group) in conv.groups.iter().enumerate() {
            let all: Vec<usize> = (0..group.outputs.len()).collect();
            for rows in all.chunks((VECTORS * lanes).max(BLOCK)) {
                let blocks = rows.len().div_ceil(BLOCK);
                let width = blocks * BLOCK;
                units.push(Unit { group: g, blocks, vectors: width / lanes, weights: weights.len() });
                for (i, &row) in rows.iter().enumerate() {
                    order[group.outputs[row]] = (block + i / BLOCK, i % BLOCK);
                }
                block += blocks;
                let inputs = group.inputs.len();
                for tile in (0..width).step_by(VECTORS.min(width / lanes) * lanes) {
                    let row = |f: &dyn Fn(usize) -> f32| {
                        let rows = (tile..tile + VECTORS.min(width / lanes) * lanes).map(|i| rows.get(i));
                        rows.map(|row| row.map_or(0.0, |&row| f(row))).collect::<Vec<f32>>()
                    };
                    weights.extend(row(&|row| group.bias[row]));
                    (0..inputs)
                        .for_each(|input| weights.extend(row(&|row| group.weights[row * inputs + input])));
                }
            }
        }
        let groups = conv.groups.iter().map(|group| Group {
            inputs: group.inputs.clone(),
            norm: group.norm.scale.iter().zip(&group.norm.shift).map(|(&a, &b)| [a, b]).collect(),
        });
        Pointwise { groups: groups.collect(), units, order, weights: Buffer::from(weights.as_slice()) }
    }
}

/// What a thread does of a convolution.
pub(crate) struct Work<'a> {
    pub conv: &'a Pointwise,
    pub units: Range<usize>,
    /// Everybody's features, and where each channel lies.
    pub features: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub layout: &'a Layout,
    /// Where each pixel lies in a block of the middle.
    pub pixels: &'a [u32],
    /// Blocks of its outputs, one after another.
    pub to: &'a mut [f32],
    pub panel: &'a mut Vec<f32>,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let pixels = self.layout.size * self.layout.size;
        match (S::F32_LANES, pixels.is_multiple_of(7)) {
            (16, true) => self.tiles::<S, 7, 14>(simd),
            (16, false) => self.tiles::<S, 8, 16>(simd),
            (_, true) => self.tiles::<S, 5, 5>(simd),
            _ => self.tiles::<S, 4, 4>(simd),
        }
    }
}

impl Work<'_> {
    /// `X` pixels at a time, out of `P` that the panel holds side by side.
    #[inline(always)]
    fn tiles<S: Simd, const X: usize, const P: usize>(self, simd: S) {
        let Work { conv, units, features, places, layout, pixels, to, panel } = self;
        let mut to = to;
        for units in conv.units[units].chunk_by(|a, b| a.group == b.group) {
            let group = &conv.groups[units[0].group];
            let inputs = group.inputs.len();
            let tiles = pixels.len().div_ceil(P);
            // The last row is written a whole vector wide.
            panel.resize(tiles * inputs * P + S::F32_LANES, 0.0);
            fill::<S, P>(simd, panel, group, features, places, tiles);
            for unit in units {
                let block = layout.middle_plane;
                let (own, rest) = to.split_at_mut(unit.blocks * block);
                to = rest;
                let weights =
                    &conv.weights.get()[unit.weights..][..(1 + inputs) * unit.vectors * S::F32_LANES];
                for (tile, panel) in panel.chunks_exact(inputs * P).enumerate().take(tiles) {
                    let panel = panel.as_chunks::<P>().0;
                    let pixels = &pixels[tile * P..];
                    let out = Out { block, pixels, to: &mut *own };
                    if unit.vectors == 1 {
                        unit_sums::<S, X, P, 1>(simd, weights, panel, out);
                    } else {
                        unit_sums::<S, X, P, VECTORS>(simd, weights, panel, out);
                    }
                }
            }
        }
    }
}

/// relu(scale·x + shift) of the inputs of a group: [tile][input][pixel]
#[inline(always)]
fn fill<S: Simd, const P: usize>(
    simd: S,
    panel: &mut [f32],
    group: &Group,
    features: &[&[f32]],
    places: &[Place],
    tiles: usize,
) {
    let zero = simd.splat_f32s(0.0);
    let inputs: Vec<&[f32]> = group.inputs.iter().map(|&input| places[input].of(features, 0)).collect();
    // In the order of the panel: a vector runs over into the next row, which is written after it.
    for tile in 0..tiles {
        let rows = &mut panel[tile * inputs.len() * P..];
        for (k, (input, &[scale, shift])) in inputs.iter().zip(&group.norm).enumerate() {
            let (scale, shift) = (simd.splat_f32s(scale), simd.splat_f32s(shift));
            let [x] = load::<S, 1>(simd, &input[tile * P..]);
            let x = simd.max_f32s(simd.mul_add_e_f32s(scale, x, shift), zero);
            store::<S, 1>(&mut rows[k * P..], [x]);
        }
    }
}

/// Where results go.
struct Out<'a> {
    to: &'a mut [f32],
    block: usize,
    pixels: &'a [u32],
}

/// All outputs of a unit, `N` vectors at a time, of the pixels of a tile of the panel.
#[inline(always)]
fn unit_sums<S: Simd, const X: usize, const P: usize, const N: usize>(
    simd: S,
    weights: &[f32],
    panel: &[[f32; P]],
    mut out: Out<'_>,
) {
    let (rows, _) = S::as_simd_f32s(weights).0.as_chunks::<N>();
    for (tile, rows) in rows.chunks_exact(1 + panel.len()).enumerate() {
        let column = tile * N * S::F32_LANES;
        sums::<S, X, P, N, false>(simd, rows, panel, column, &mut out);
        if P > X && out.pixels.len() > X {
            sums::<S, X, P, N, true>(simd, rows, panel, column, &mut out);
        }
    }
}

/// `N` vectors of outputs of `X` pixels: the first of the tile, or the last.
#[inline(always)]
fn sums<S: Simd, const X: usize, const P: usize, const N: usize, const LAST: bool>(
    simd: S,
    rows: &[[S::f32s; N]],
    panel: &[[f32; P]],
    column: usize,
    out: &mut Out<'_>,
) {
    let zero = simd.splat_f32s(0.0);
    let Some((bias, weights)) = rows.split_first() else { return };
    let mut sums = [*bias; X];
    for (weights, pixels) in weights.iter().zip(panel) {
        let pixels = if LAST { pixels.last_chunk::<X>() } else { pixels.first_chunk::<X>() };
        let Some(pixels) = pixels else { return };
        for x in 0..X {
            let pixel = simd.splat_f32s(pixels[x]);
            for n in 0..N {
                sums[x][n] = simd.mul_add_e_f32s(pixel, weights[n], sums[x][n]);
            }
        }
    }
    let first = if LAST { P - X } else { 0 };
    for x in 0..X {
        if let Some(&pixel) = out.pixels.get(first + x) {
            for n in 0..N {
                let column = column + n * S::F32_LANES;
                let at = column / BLOCK * out.block + pixel as usize * BLOCK + column % BLOCK;
                store::<S, 1>(&mut out.to[at..], [simd.max_f32s(sums[x][n], zero)]);
            }
        }
    }
}
