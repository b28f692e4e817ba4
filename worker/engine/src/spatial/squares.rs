//! The 3×3 convolution with vectors of outputs, in squares of 2×2 pixels: Winograd's F(2×2, 3×3) (`winograd.rs`). Of the blocks of channels
//! that a group sees, [products][tiles][channels] are made, some rows of tiles at a time; then each product of all tiles is a product of
//! matrices.

use pulp::Simd;

use crate::layout::{BLOCK, Layout};
use crate::place::Place;
use crate::prefetch::Ahead;
use crate::rows::Rows;
use crate::spatial::blocks::Work;
use crate::spatial::winograd::{self, SQUARE};
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
    let Work { conv, units, middle, places, layout, to, scratch } = work;
    let Layout { size, plane, .. } = *layout;
    let mut to = to;
    let edge = size.div_ceil(2);
    let mut slices = Vec::new();
    let mut starts = Vec::new();
    for units in conv.units[units].chunk_by(|a, b| a.group == b.group) {
        let channels = conv.seen(&units[0]);
        // Each slice of a block that a group sees, as wide as a vector; and of each input, where it lies in those.
        slices.clear();
        starts.clear();
        for place in channels.iter().map(|&channel| places[channel]) {
            let lane = place.offset as usize % S::F32_LANES;
            let slice = Place { offset: place.offset - lane as u32, ..place };
            if slices.last() != Some(&slice) {
                slices.push(slice);
            }
            starts.push((slices.len() - 1) * S::F32_LANES + lane);
        }
        let blocks = (slices.len() * S::F32_LANES).div_ceil(BLOCK);
        let row = 4 * SQUARE * edge * BLOCK * blocks;
        let rows = (CHUNK_BYTES / row).clamp(1, edge);
        let outputs: usize = units.iter().map(|unit| unit.outputs).sum();
        let widest = units.iter().map(|unit| unit.vectors * S::F32_LANES).max().unwrap_or(0);
        let block = (SQUARE * rows * edge + TILES) * BLOCK;
        let sums = (SQUARE * rows * edge + TILES) * widest;
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
                for (i, slice) in slices.iter().enumerate() {
                    let at = i * S::F32_LANES;
                    let map = slice.of(middle, 2 * (first + row) * layout.middle_stride * BLOCK);
                    let to = &mut tiles[at / BLOCK * block + at % BLOCK..];
                    let place = (row * edge, rows * edge);
                    winograd::transform(simd, map, layout.middle_stride, to, place);
                }
            }
            let mut inputs = Rows::new(block - (BLOCK - 1));
            starts.iter().for_each(|at| inputs.push(&tiles[at / BLOCK * block + at % BLOCK..]));
            let mut own = &mut *own;
            for unit in units {
                let product = Product {
                    tiles: rows * edge,
                    inputs: &inputs,
                    weights: conv.own(unit),
                    count: conv.inputs,
                };
                match unit.vectors {
                    1 => product.sums::<S, 1>(simd, sums),
                    _ => product.sums::<S, 2>(simd, sums),
                }
                let width = unit.vectors * S::F32_LANES;
                winograd::finish(simd, (rows, edge), size, width, sums, map);
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
    /// By `N` vectors of outputs: [products][tiles][outputs].
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(self, simd: S, to: &mut [f32]) {
        let width = N * S::F32_LANES;
        let floats = self.count * width;
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
                let at = product * self.tiles + first;
                let to = &mut to[at * width..];
                // As few as there are kernels for, and perhaps some of the next product, which overwrites them.
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
        to: &mut [f32],
    ) {
        let mut sums = [[simd.splat_f32s(0.0); N]; X];
        let inputs = self.inputs.window(at * BLOCK, (X - 1) * BLOCK + 1);
        outer::<S, X, N, BLOCK>(simd, &mut sums, inputs, weights);
        let to = S::as_mut_simd_f32s(&mut to[..X * N * S::F32_LANES]).0;
        to.as_chunks_mut::<N>().0.copy_from_slice(&sums);
    }
}
