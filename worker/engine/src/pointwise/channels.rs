//! The 1×1 convolution with vectors of outputs, for small maps: a few pixels by two vectors of outputs at a time, each input broadcast
//! from a panel of normalised and rectified pixels. Weights are read once, in their order.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::{BLOCK, Layout};
use crate::network;
use crate::place::Place;
use crate::tile::{load, store, stretches};

/// Vectors of outputs of a tile.
const VECTORS: usize = 2;

/// Inputs that are summed up over at a time: their weights are 16 KiB.
const DEPTH: usize = 128;

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
                let floats = (1 + inputs) * unit.vectors * S::F32_LANES;
                let weights = &conv.weights.get()[unit.weights..][..floats];
                let piece = Piece { panel, inputs, pixels, to: own, block };
                if unit.vectors == 1 {
                    piece.sums::<S, X, P, 1>(simd, weights);
                } else {
                    piece.sums::<S, X, P, VECTORS>(simd, weights);
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

/// The outputs of a unit.
struct Piece<'a> {
    panel: &'a [f32],
    inputs: usize,
    pixels: &'a [u32],
    to: &'a mut [f32],
    block: usize,
}

impl Piece<'_> {
    /// All pixels, `X` of the `P` of a tile of the panel at a time, by `N` vectors of outputs. Inputs are taken as many at a time as
    /// leave their weights in the first-level cache.
    #[inline(always)]
    fn sums<S: Simd, const X: usize, const P: usize, const N: usize>(mut self, simd: S, weights: &[f32]) {
        let (rows, _) = S::as_simd_f32s(weights).0.as_chunks::<N>();
        let panel = self.panel;
        for (tile, rows) in rows.chunks_exact(1 + self.inputs).enumerate() {
            let Some((bias, weights)) = rows.split_first() else { return };
            let column = tile * N * S::F32_LANES;
            for (start, count) in stretches(self.inputs, DEPTH) {
                let last = start + count == self.inputs;
                let step = Step {
                    weights: &weights[start..][..count],
                    bias: (start == 0).then_some(bias),
                    floor: simd.splat_f32s(if last { 0.0 } else { f32::NEG_INFINITY }),
                    column,
                };
                for first in (0..self.pixels.len()).step_by(P) {
                    let panel = panel[first * self.inputs..][..self.inputs * P].as_chunks::<P>().0;
                    let panel = &panel[start..][..count];
                    self.tile::<S, X, P, N, false>(simd, &step, panel, first);
                    if P > X && first + X < self.pixels.len() {
                        self.tile::<S, X, P, N, true>(simd, &step, panel, first);
                    }
                }
            }
        }
    }

    /// The first `X` pixels of a tile of the panel, or the last.
    #[inline(always)]
    fn tile<S: Simd, const X: usize, const P: usize, const N: usize, const LAST: bool>(
        &mut self,
        simd: S,
        step: &Step<'_, S, N>,
        panel: &[[f32; P]],
        first: usize,
    ) {
        let first = if LAST { first + P - X } else { first };
        let pixels = &self.pixels[first..];
        let block = self.block;
        let (start, within) = (step.column / BLOCK * block, step.column % BLOCK);
        let at = |x: usize, n: usize| {
            let column = within + n * S::F32_LANES;
            start + column / BLOCK * block + pixels[x] as usize * BLOCK + column % BLOCK
        };
        let mut sums = [[simd.splat_f32s(0.0); N]; X];
        for x in 0..X {
            match step.bias {
                Some(bias) => sums[x] = *bias,
                None if x < pixels.len() => {
                    for n in 0..N {
                        [sums[x][n]] = load::<S, 1>(simd, &self.to[at(x, n)..]);
                    }
                }
                None => {}
            }
        }
        for (weights, pixels) in step.weights.iter().zip(panel) {
            let pixels = if LAST { pixels.last_chunk::<X>() } else { pixels.first_chunk::<X>() };
            let Some(pixels) = pixels else { return };
            for x in 0..X {
                let pixel = simd.splat_f32s(pixels[x]);
                for n in 0..N {
                    sums[x][n] = simd.mul_add_e_f32s(pixel, weights[n], sums[x][n]);
                }
            }
        }
        for x in 0..X {
            if x < pixels.len() {
                for n in 0..N {
                    store::<S, 1>(&mut self.to[at(x, n)..], [simd.max_f32s(sums[x][n], step.floor)]);
                }
            }
        }
    }
}

/// What is added to the sums of every pixel.
struct Step<'a, S: Simd, const N: usize> {
    weights: &'a [[S::f32s; N]],
    /// What the sums begin with; none: what they have come to.
    bias: Option<&'a [S::f32s; N]>,
    /// The smallest that they may be.
    floor: S::f32s,
    /// The first output.
    column: usize,
}
