//! The 3×3 convolution with vectors of outputs, in squares of 2×2 pixels: Winograd's F(2×2, 3×3) (`winograd.rs`). Of the blocks of channels
//! that a group sees, [tiles][products][channels] are made, some rows of tiles at a time; then each product of all tiles is a product of
//! matrices.

use pulp::Simd;

use crate::layout::{BLOCK, Layout};
use crate::place::Place;
use crate::prefetch::Ahead;
use crate::rows::Rows;
use crate::spatial::blocks::Work;
use crate::spatial::winograd::{self, SQUARE, TILE};
use crate::tile::{outer, stretches};
use crate::transpose::transpose;

/// Vectors of outputs of a unit at most.
pub(super) const MOST: usize = 2;

/// Tiles of a product that are read at once, at most.
const TILES: usize = 28;

/// Bytes of what is made of a group's inputs at a time: a share of the second-level cache.
const CHUNK_BYTES: usize = 256 << 10;

/// Weights [products][inputs][outputs].
pub(super) fn pack<'a>(
    inputs: &[usize],
    outputs: usize,
    taps: impl Fn(usize, usize) -> Option<&'a [f32]>,
) -> Vec<f32> {
    let mut weights = vec![0.0; SQUARE * inputs.len() * outputs];
    for (i, &channel) in inputs.iter().enumerate() {
        for (o, taps) in (0..outputs).filter_map(|o| Some((o, taps(channel, o)?))) {
            for (product, weight) in winograd::filter_square(taps).into_iter().enumerate() {
                weights[(product * inputs.len() + i) * outputs + o] = weight;
            }
        }
    }
    weights
}

/// A thread's share of a convolution.
#[inline(always)]
pub(super) fn convolve<S: Simd>(simd: S, work: Work<'_>) {
    match (work.layout.along.side(), S::F32_LANES) {
        (4, 16) => blocks::<S, 4, 4>(simd, work),
        (4, 8) => blocks::<S, 4, 2>(simd, work),
        (4, _) => blocks::<S, 4, 1>(simd, work),
        (8, 16) => blocks::<S, 8, 2>(simd, work),
        (8, _) => blocks::<S, 8, 1>(simd, work),
        _ => blocks::<S, BLOCK, 1>(simd, work),
    }
}

/// From blocks of `B` channels, of which `M` are as wide as a vector, or one is wider.
#[inline(always)]
fn blocks<S: Simd, const B: usize, const M: usize>(simd: S, work: Work<'_>) {
    let Work { conv, units, middle, places, layout, to, scratch } = work;
    let Layout { size, plane, .. } = *layout;
    let mut to = to;
    let edge = size.div_ceil(2);
    let width = S::F32_LANES / M;
    let mut slices = Vec::new();
    let mut starts = Vec::new();
    for units in conv.units[units].chunk_by(|a, b| a.group == b.group) {
        let channels = conv.seen(&units[0]);
        // Each slice of a block that a group sees, at most as wide as a vector; and of each input, where it lies in those.
        slices.clear();
        starts.clear();
        for place in channels.iter().map(|&channel| places[channel]) {
            let lane = place.offset as usize % width;
            let slice = Place { offset: place.offset - lane as u32, ..place };
            if slices.last() != Some(&slice) {
                slices.push(slice);
            }
            starts.push((slices.len() - 1) * width + lane);
        }
        // Vectors are whole: the last slice may be taken more than once.
        slices.resize(slices.len().next_multiple_of(M), slices[slices.len() - 1]);
        let blocks = (slices.len() * width).div_ceil(BLOCK);
        let row = 4 * TILE * edge * blocks;
        let rows = (CHUNK_BYTES / row).clamp(1, edge);
        let outputs: usize = units.iter().map(|unit| unit.outputs).sum();
        let widest = units.iter().map(|unit| unit.vectors * S::F32_LANES).max().unwrap_or(0);
        // What is done to tiles, some at once, runs over the end.
        let block = TILE * (rows * edge + TILES);
        let sums = SQUARE * (rows * edge + TILES) * widest;
        // Squares of pixels, when they are turned, run over the end.
        let map = (2 * rows * size + 8) * widest;
        let room = scratch.room(blocks * block + sums + map);
        let (tiles, room) = room.split_at_mut(blocks * block);
        let (sums, map) = room.split_at_mut(sums);
        let (own, rest) = to.split_at_mut(outputs * plane);
        to = rest;
        for (first, rows) in stretches(edge, edge.div_ceil(edge.div_ceil(rows))) {
            // Row by row: the slices of a block meet in the first-level cache.
            for row in 0..rows {
                for (i, slices) in slices.as_chunks::<M>().0.iter().enumerate() {
                    let at = i * S::F32_LANES;
                    let maps = slices.map(|s| s.of(middle, 2 * (first + row) * layout.middle_stride * B));
                    let to = &mut tiles[at / BLOCK * block + at % BLOCK + TILE * row * edge..];
                    winograd::transform::<S, B, M>(simd, maps, layout.middle_stride, to);
                }
            }
            let mut inputs = Rows::new(block - (BLOCK - 1));
            inputs.extend(starts.iter().map(|at| &tiles[at / BLOCK * block + at % BLOCK..]));
            let mut own = &mut *own;
            for unit in units {
                let product = Product {
                    tiles: rows * edge,
                    inputs: &inputs,
                    weights: conv.own(unit),
                    count: conv.inputs,
                };
                match unit.vectors {
                    1 => product.map::<S, 1>(simd, size, sums, map),
                    _ => product.map::<S, 2>(simd, size, sums, map),
                }
                let width = unit.vectors * S::F32_LANES;
                let (to, rest) = own.split_at_mut(unit.outputs * plane);
                own = rest;
                let pixels = (size - 2 * first).min(2 * rows) * size;
                transpose::<S>(map, (pixels, width), &mut to[2 * first * size..], (unit.outputs, plane));
            }
        }
    }
}

/// The products of some tiles.
struct Product<'a> {
    tiles: usize,
    inputs: &'a Rows<'a>,
    weights: &'a [f32],
    /// Inputs.
    count: usize,
}

impl Product<'_> {
    /// Of `N` vectors of outputs, [pixels][outputs] of a map that is `size` pixels wide.
    #[inline(always)]
    fn map<S: Simd, const N: usize>(self, simd: S, size: usize, sums: &mut [f32], to: &mut [f32]) {
        let sums = S::as_mut_simd_f32s(sums).0.as_chunks_mut::<N>().0;
        self.sums::<S, N>(simd, sums);
        let sums = &sums.as_chunks::<SQUARE>().0[..self.tiles];
        winograd::finish(simd, size, sums, S::as_mut_simd_f32s(to).0.as_chunks_mut::<N>().0);
    }

    /// By `N` vectors of outputs: [tiles][products][outputs].
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(&self, simd: S, to: &mut [[S::f32s; N]]) {
        let floats = self.count * N * S::F32_LANES;
        let most = match (N, S::REGISTER_COUNT >= 32) {
            (1, true) => TILES,
            (_, true) => 12,
            (1, false) => 13,
            (_, false) => 7,
        };
        for product in 0..SQUARE {
            let (weights, after) = self.weights[product * floats..].split_at(floats);
            let mut ahead = Ahead::new(after, floats, self.tiles.div_ceil(most));
            let weights = S::as_simd_f32s(weights).0.as_chunks::<N>().0;
            for (first, count) in stretches(self.tiles, most) {
                ahead.step();
                let at = first * TILE + product * BLOCK;
                let to = &mut to[first * SQUARE + product..];
                // As few as there are kernels for, and perhaps some that come next, which overwrite them.
                macro_rules! tiles {
                    ($($x:literal)*) => {
                        match count {
                            $(..=$x if $x * N < TILES => self.tile::<S, $x, N>(simd, at, weights, to),)*
                            _ => self.tile::<S, TILES, N>(simd, at, weights, to),
                        }
                    };
                }
                tiles!(1 4 5 6 7 8 10 12 13 16 21 25);
            }
        }
    }

    /// A product of `X` tiles.
    #[inline(always)]
    fn tile<S: Simd, const X: usize, const N: usize>(
        &self,
        simd: S,
        at: usize,
        weights: &[[S::f32s; N]],
        to: &mut [[S::f32s; N]],
    ) {
        let mut sums = [[simd.splat_f32s(0.0); N]; X];
        let inputs = self.inputs.window(at, (X - 1) * TILE + 1);
        outer::<S, X, N, TILE>(simd, &mut sums, inputs, weights);
        let to = &mut to[..(X - 1) * SQUARE + 1];
        for x in 0..X {
            to[x * SQUARE] = sums[x];
        }
    }
}
