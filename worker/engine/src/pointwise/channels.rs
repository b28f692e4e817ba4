//! The 1×1 convolution with vectors of outputs, for small maps: a few pixels by two vectors of outputs at a time, each input broadcast
//! from a panel of clipped pixels; or by four vectors, each input clipped on its way from its plane. Weights are read in their order.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::{Buffer, Weights};
use crate::instructions::Core;
use crate::layout::{BLOCK, Layout};
use crate::network;
use crate::place::Place;
use crate::pointwise::clip::Clips;
use crate::prefetch::Ahead;
use crate::rows::{Rows, Window};
use crate::tile::{load, outer, outer_clipped, store, stretches};

/// Vectors of a wide tile of sums.
const WIDE: usize = 4;

/// Bytes of the weights that are used at a time: half of a first-level cache.
const CHUNK_BYTES: usize = 16 << 10;

/// A 1×1 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Pointwise {
    groups: Vec<Clips>,
    /// The pieces of its work, by groups.
    pub units: Vec<Unit>,
    /// Of all channels that it gives: the block of the middle, and the place in it.
    pub order: Vec<(usize, usize)>,
    weights: Weights,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    group: usize,
    /// Blocks of the middle that it makes.
    pub blocks: usize,
    /// Vectors of outputs.
    vectors: usize,
    /// How many of them go into a tile of sums: 1, 2 or, for all units of a group, `WIDE`.
    tile: usize,
    /// Where its bias and its weights begin: for each tile of vectors, [1 + inputs][outputs]
    weights: usize,
}

impl Pointwise {
    pub fn new(conv: &network::Pointwise, core: Core) -> Pointwise {
        let lanes = core.lanes;
        let (mut units, mut order, mut weights) = (Vec::new(), vec![(0, 0); conv.outputs], Vec::new());
        let (mut block, mut groups) = (0, Vec::new());
        for (g, group) in conv.groups.iter().enumerate() {
            let (clips, folded) = Clips::new(group);
            groups.push(clips);
            let all: Vec<usize> = (0..group.outputs.len()).collect();
            // Where clips cost nothing, many outputs, of long vectors, are worth clipping inputs for each tile of them.
            let wide = core.beside && lanes == 16 && all.len().is_multiple_of(WIDE * lanes);
            let most = if wide { WIDE } else { 2 };
            for rows in all.chunks((most * lanes).max(BLOCK)) {
                let blocks = rows.len().div_ceil(BLOCK);
                let width = blocks * BLOCK;
                for (i, &row) in rows.iter().enumerate() {
                    order[group.outputs[row]] = (block + i / BLOCK, i % BLOCK);
                }
                block += blocks;
                let inputs = group.inputs.len();
                let vectors = width / lanes;
                let tile = if vectors.is_multiple_of(most) { most } else { 1 };
                units.push(Unit { group: g, blocks, vectors, tile, weights: weights.len() });
                for first in (0..width).step_by(tile * lanes) {
                    let row = |f: &dyn Fn(usize) -> f32| {
                        let rows = (first..first + tile * lanes).map(|i| rows.get(i));
                        rows.map(|row| row.map_or(0.0, |&row| f(row))).collect::<Vec<f32>>()
                    };
                    weights.extend(row(&|row| folded.bias[row]));
                    (0..inputs)
                        .for_each(|input| weights.extend(row(&|row| folded.weights[row * inputs + input])));
                }
            }
        }
        Pointwise { groups, units, order, weights: Weights::from(weights.as_slice()) }
    }
}

impl Pointwise {
    /// All weights.
    pub fn weights(&mut self) -> &mut Weights {
        &mut self.weights
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
    pub panel: &'a mut Buffer,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.tiles::<S, 7, 14, 16>(simd),
            // As few as can be in the last tile.
            8 if self.pixels.len() < 64 => self.tiles::<S, 5, 5, 8>(simd),
            8 => self.tiles::<S, 6, 6, 8>(simd),
            _ => self.tiles::<S, 4, 4, 4>(simd),
        }
    }
}

impl Work<'_> {
    /// `X` pixels at a time, out of `P` of a row of the panel, of `ROW` floats.
    #[inline(always)]
    fn tiles<S: Simd, const X: usize, const P: usize, const ROW: usize>(self, simd: S) {
        let Work { conv, units, features, places, layout, pixels, to, panel } = self;
        let mut to = to;
        for units in conv.units[units].chunk_by(|a, b| a.group == b.group) {
            let clips = &conv.groups[units[0].group];
            let inputs = clips.inputs.len();
            if units[0].tile == WIDE {
                let tiles = pixels.len().div_ceil(X);
                let mut rows = Rows::new(tiles * X);
                clips.inputs.iter().for_each(|&input| rows.push(places[input].of(features, 0)));
                for unit in units {
                    let block = layout.middle_plane;
                    let (own, rest) = to.split_at_mut(unit.blocks * block);
                    to = rest;
                    let weights = &conv.weights.get()[unit.weights..];
                    let piece = Piece { rows: &rows, inputs, vectors: unit.vectors, pixels, to: own, block };
                    piece.clipped::<S, X>(simd, clips, weights);
                }
                continue;
            }
            let tiles = pixels.len().div_ceil(P);
            let panel = panel.room(tiles * inputs * ROW);
            for (k, (&input, &limit)) in clips.inputs.iter().zip(&clips.limits).enumerate() {
                let input = &places[input].of(features, 0)[..(tiles - 1) * P + S::F32_LANES];
                let (panel, step) = (&mut panel[k * ROW..], inputs * ROW);
                if k < clips.rising {
                    fill::<S, P, true>(simd, panel, step, input, limit);
                } else {
                    fill::<S, P, false>(simd, panel, step, input, limit);
                }
            }
            let mut rows = Rows::new((tiles - 1) * inputs * ROW + P);
            (0..inputs).for_each(|k| rows.push(&panel[k * ROW..]));
            for unit in units {
                let block = layout.middle_plane;
                let (own, rest) = to.split_at_mut(unit.blocks * block);
                to = rest;
                let weights = &conv.weights.get()[unit.weights..];
                let piece = Piece { rows: &rows, inputs, vectors: unit.vectors, pixels, to: own, block };
                match unit.tile {
                    1 => piece.sums::<S, X, P, ROW, 1>(simd, weights),
                    _ => piece.sums::<S, X, P, ROW, 2>(simd, weights),
                }
            }
        }
    }
}

/// A row of each tile of a panel: clipped pixels, `P` a tile.
#[inline(always)]
fn fill<S: Simd, const P: usize, const RISING: bool>(
    simd: S,
    panel: &mut [f32],
    step: usize,
    input: &[f32],
    limit: f32,
) {
    let limit = simd.splat_f32s(limit);
    let from = input.windows(S::F32_LANES).step_by(P);
    for (to, from) in panel.chunks_mut(step).zip(from) {
        let [x] = load::<S, 1>(simd, from);
        let x = if RISING { simd.max_f32s(x, limit) } else { simd.min_f32s(x, limit) };
        store::<S, 1>(to, [x]);
    }
}

/// The outputs of a unit.
struct Piece<'a> {
    /// The pixels of each input: in its plane, or in all tiles of the panel.
    rows: &'a Rows<'a>,
    inputs: usize,
    vectors: usize,
    pixels: &'a [u32],
    to: &'a mut [f32],
    block: usize,
}

impl Piece<'_> {
    /// All pixels, `X` at a time, by `WIDE` vectors of outputs.
    #[inline(always)]
    fn clipped<S: Simd, const X: usize>(self, simd: S, clips: &Clips, weights: &[f32]) {
        let weights = &S::as_simd_f32s(weights).0.as_chunks::<WIDE>().0[..1 + self.inputs];
        let Some((bias, weights)) = weights.split_first() else { return };
        for first in (0..self.pixels.len()).step_by(X) {
            let inputs = self.rows.window(first, X);
            let mut sums = [*bias; X];
            outer_clipped::<S, X, WIDE>(simd, &mut sums, inputs, clips.rising, &clips.limits, weights);
            let floor = simd.splat_f32s(0.0);
            for (n, block) in self.to.chunks_exact_mut(self.block).take(WIDE).enumerate() {
                for (sums, &pixel) in sums.iter().zip(&self.pixels[first..]) {
                    store::<S, 1>(&mut block[pixel as usize * BLOCK..], [simd.max_f32s(sums[n], floor)]);
                }
            }
        }
    }

    /// All pixels, `X` at a time, by `N` vectors of outputs. Inputs are taken as many at a time as
    /// leave their weights in the first-level cache.
    #[inline(always)]
    fn sums<S: Simd, const X: usize, const P: usize, const ROW: usize, const N: usize>(
        mut self,
        simd: S,
        weights: &[f32],
    ) {
        let width = N * S::F32_LANES;
        let (unit, after) = weights.split_at((1 + self.inputs) * self.vectors * S::F32_LANES);
        let panel = self.rows;
        let tiles = self.pixels.len().div_ceil(P);
        for (number, tile) in unit.chunks_exact((1 + self.inputs) * width).enumerate() {
            let rows = S::as_simd_f32s(tile).0.as_chunks::<N>().0;
            let Some((bias, weights)) = rows.split_first() else { return };
            let column = number * width;
            for (start, count) in stretches(self.inputs, CHUNK_BYTES / (4 * width)) {
                let last = start + count == self.inputs;
                let step = Step {
                    weights: &weights[start..][..count],
                    bias: (start == 0).then_some(bias),
                    floor: simd.splat_f32s(if last { 0.0 } else { f32::NEG_INFINITY }),
                    column,
                };
                let mut ahead = Ahead::new(
                    if last { after } else { &tile[(1 + start + count) * width..] },
                    count * width,
                    tiles,
                );
                for tile in 0..tiles {
                    ahead.step();
                    for from in (0..P).step_by(X) {
                        let first = tile * P + from;
                        if first < self.pixels.len() {
                            let panel = panel.window(tile * self.inputs * ROW + from, X);
                            self.tile::<S, X, N>(simd, &step, panel.range(start..start + count), first);
                        }
                    }
                }
            }
        }
    }

    /// `X` pixels, `first` of all.
    #[inline(always)]
    fn tile<S: Simd, const X: usize, const N: usize>(
        &mut self,
        simd: S,
        step: &Step<'_, S, N>,
        panel: Window<'_>,
        first: usize,
    ) {
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
        outer::<S, X, N, 1>(simd, &mut sums, panel, step.weights);
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
