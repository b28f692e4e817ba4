//! The 3×3 convolution with vectors of outputs, for small maps: some pixels of a row at a time. Inputs are taken a few at a time, for the
//! whole map, while their weights are in the first-level cache; in between, the sums lie in memory.

use std::ops::Range;

use pulp::Simd;

use crate::buffer::Buffer;
use crate::layout::{BLOCK, Layout};
use crate::prefetch::Ahead;
use crate::rows::Rows;
use crate::spatial::blocks::{TAPS, Work};
use crate::tile::outer;
use crate::transpose::transpose;

/// Bytes of the weights that are used at a time.
const CHUNK_BYTES: usize = 9 << 10;

/// Inputs of a chunk.
fn chunk(outputs: usize) -> usize {
    CHUNK_BYTES / (4 * TAPS * outputs)
}

/// Vectors of outputs of a unit at most, on maps of such a size.
pub(super) fn most(size: usize, many_registers: bool) -> usize {
    // Either many pixels of a row by one vector, or some by two.
    if !many_registers && size == 8 { 1 } else { 2 }
}

/// Weights: for each chunk of inputs, [rows of taps][inputs][columns of taps][outputs]; where registers are few, [columns of taps][rows of
/// taps][inputs][outputs].
pub(super) fn pack<'a>(
    inputs: &[usize],
    outputs: usize,
    many_registers: bool,
    taps: impl Fn(usize, usize) -> Option<&'a [f32]>,
) -> Vec<f32> {
    let mut weights = Vec::new();
    let mut push = |channel: usize, y: usize, x: usize| {
        weights.extend((0..outputs).map(|o| taps(channel, o).map_or(0.0, |taps| taps[3 * y + x])));
    };
    for own in inputs.chunks(chunk(outputs)) {
        if many_registers {
            (0..3).for_each(|y| own.iter().for_each(|&c| (0..3).for_each(|x| push(c, y, x))));
        } else {
            (0..3).for_each(|x| (0..3).for_each(|y| own.iter().for_each(|&c| push(c, y, x))));
        }
    }
    weights
}

/// A thread's share of a convolution.
#[inline(always)]
pub(super) fn convolve<S: Simd>(simd: S, work: Work<'_>) {
    let Work { conv, units, middle, places, layout, to, scratch } = work;
    let mut to = to;
    let many = S::REGISTER_COUNT >= 32;
    let window = 2 * (layout.middle_stride + 1) * BLOCK;
    let mut inputs = Rows::new(layout.middle_plane - BLOCK - if many { 0 } else { window });
    for unit in &conv.units[units] {
        let channels = conv.seen(unit);
        let input = |&channel: &usize| places[channel].of(middle, 0);
        inputs.clear();
        if many {
            channels.iter().for_each(|channel| inputs.push(input(channel)));
        } else {
            // What each tap sees, in the order of the weights.
            for channels in channels.chunks(chunk(unit.vectors * S::F32_LANES)) {
                for tap in 0..TAPS {
                    let at = (tap % 3 * layout.middle_stride + tap / 3) * BLOCK;
                    channels.iter().for_each(|channel| inputs.push(&input(channel)[at..]));
                }
            }
        }
        let (own, rest) = to.split_at_mut(unit.outputs * layout.plane);
        to = rest;
        let weights = conv.own(unit);
        let map =
            Map { count: conv.inputs, inputs: &inputs, weights, layout, outputs: unit.outputs, to: own };
        match (layout.size, unit.vectors, many) {
            (7, 1, true) => map.convolve::<S, 7, 9, 1, 2, true>(simd, scratch),
            (7, _, true) => map.convolve::<S, 7, 9, 2, 1, true>(simd, scratch),
            (8, 1, true) => map.convolve::<S, 8, 10, 1, 2, true>(simd, scratch),
            (_, 1, true) => map.convolve::<S, 8, 10, 1, 1, false>(simd, scratch),
            (_, _, true) => map.convolve::<S, 8, 10, 2, 1, false>(simd, scratch),
            (8, 1, false) => map.convolve::<S, 8, 7, 1, 1, true>(simd, scratch),
            (_, 1, false) => map.convolve::<S, 14, 13, 1, 1, false>(simd, scratch),
            (7, _, false) => map.convolve::<S, 7, 6, 2, 1, true>(simd, scratch),
            (_, _, false) => map.convolve::<S, 7, 6, 2, 1, false>(simd, scratch),
        }
    }
}

/// A map of the outputs of a unit, and what it is made of.
struct Map<'a> {
    /// Inputs.
    count: usize,
    /// They, or what each tap sees of them.
    inputs: &'a Rows<'a>,
    weights: &'a [f32],
    layout: &'a Layout,
    outputs: usize,
    to: &'a mut [f32],
}

impl Map<'_> {
    /// `X` pixels at a time, by `N` vectors of outputs, in `D` sums that are added at last; `WHOLE`: `X` pixels are a row. `X2`: pixels
    /// with their neighbours; or, where taps are taken one after another, without one.
    #[inline(always)]
    fn convolve<
        S: Simd,
        const X: usize,
        const X2: usize,
        const N: usize,
        const D: usize,
        const WHOLE: bool,
    >(
        self,
        simd: S,
        scratch: &mut Buffer,
    ) {
        let size = self.layout.size;
        let outputs = N * S::F32_LANES;
        let (tiles, chunk) = (size.div_ceil(X), chunk(outputs));
        // Squares of pixels run over the end.
        let sums_of_all = scratch.room((size * tiles * X + 8) * outputs);
        let count = self.count;
        let mut weights = self.weights;
        for first in (0..count).step_by(chunk) {
            let inputs = first..(first + chunk).min(count);
            let (own, rest) = weights.split_at(inputs.len() * TAPS * outputs);
            weights = rest;
            let mut ahead = Ahead::new(rest, own.len(), size * tiles);
            for y in 0..size {
                for tile in 0..tiles {
                    ahead.step();
                    let x = tile * X;
                    let at = (y * tiles + tile) * X * outputs;
                    let mut sums = [[simd.splat_f32s(0.0); N]; X];
                    if first > 0 {
                        let from = S::as_simd_f32s(&sums_of_all[at..][..X * outputs]).0.as_chunks::<N>().0;
                        sums.copy_from_slice(&from[..X]);
                    }
                    if X2 > X {
                        self.rows::<S, X, X2, N, D, WHOLE>(simd, &mut sums, &inputs, own, y, x);
                    } else {
                        self.taps::<S, X, X2, N, WHOLE>(simd, &mut sums, &inputs, own, y, x);
                    }
                    let to = S::as_mut_simd_f32s(&mut sums_of_all[at..][..X * outputs]).0;
                    to.as_chunks_mut::<N>().0[..X].copy_from_slice(&sums);
                }
            }
        }
        let Layout { stride, plane, .. } = *self.layout;
        // Rows without anything between them are one.
        let (rows, length) =
            if tiles * X == size && stride == size { (1, size * size) } else { (size, size) };
        for y in 0..rows {
            let from = &sums_of_all[y * tiles * X * outputs..];
            transpose::<S>(from, (length, outputs), &mut self.to[y * stride..], (self.outputs, plane));
        }
    }

    /// Rows of taps that see any row of the map.
    #[inline(always)]
    fn seen(&self, y: usize) -> Range<usize> {
        usize::from(y == 0)..3 - usize::from(y + 1 == self.layout.size)
    }

    /// An input that is loaded serves the three outputs that see it. What lies beyond the edge is skipped.
    #[inline(always)]
    fn rows<S: Simd, const X: usize, const X2: usize, const N: usize, const D: usize, const WHOLE: bool>(
        &self,
        simd: S,
        to: &mut [[S::f32s; N]; X],
        inputs: &Range<usize>,
        weights: &[f32],
        y: usize,
        x: usize,
    ) {
        let mut sums = [[[simd.splat_f32s(0.0); N]; X]; D];
        sums[0] = *to;
        let count = inputs.len();
        let floats = count * 3 * N * S::F32_LANES;
        let reach = (X2 - 1) * BLOCK + 1;
        for tap in self.seen(y) {
            let at = ((y + tap) * self.layout.middle_stride + x) * BLOCK;
            let inputs = self.inputs.window(at, reach).range(inputs.clone());
            let weights = S::as_simd_f32s(&weights[tap * floats..][..floats]).0;
            let weights = weights.as_chunks::<N>().0.as_chunks::<3>().0;
            let (together, alone) = weights.as_chunks::<D>();
            for (k, weights) in together.iter().enumerate() {
                for d in 0..D {
                    row::<S, X, X2, N, WHOLE>(simd, &mut sums[d], inputs.row(k * D + d, reach), &weights[d]);
                }
            }
            for (k, weights) in alone.iter().enumerate() {
                let input = inputs.row(together.len() * D + k, reach);
                row::<S, X, X2, N, WHOLE>(simd, &mut sums[0], input, weights);
            }
        }
        for d in 1..D {
            for i in 0..X {
                for n in 0..N {
                    sums[0][i][n] = simd.add_f32s(sums[0][i][n], sums[d][i][n]);
                }
            }
        }
        *to = sums[0];
    }

    /// Each tap of all inputs by itself: needs registers for little else than the sums. What lies beyond the edge is skipped: then the
    /// first or the last column of taps sees `EDGE` pixels.
    #[inline(always)]
    fn taps<S: Simd, const X: usize, const EDGE: usize, const N: usize, const WHOLE: bool>(
        &self,
        simd: S,
        sums: &mut [[S::f32s; N]; X],
        inputs: &Range<usize>,
        weights: &[f32],
        y: usize,
        x: usize,
    ) {
        let (rows, count) = (self.seen(y), inputs.len());
        let weights = S::as_simd_f32s(weights).0.as_chunks::<N>().0;
        let at = (y * self.layout.middle_stride + x) * BLOCK;
        for column in 0..3 {
            let taps = (column * 3 + rows.start) * count..(column * 3 + rows.end) * count;
            let seen = inputs.start * TAPS + taps.start..inputs.start * TAPS + taps.end;
            let weights = &weights[taps];
            if WHOLE && column != 1 {
                let first = usize::from(column == 0);
                let window = self.inputs.window(at + first * BLOCK, (EDGE - 1) * BLOCK + 1);
                if let Some(sums) = sums[first..].first_chunk_mut::<EDGE>() {
                    outer::<S, EDGE, N, BLOCK>(simd, sums, window.range(seen), weights);
                }
            } else {
                let window = self.inputs.window(at, (X - 1) * BLOCK + 1);
                outer::<S, X, N, BLOCK>(simd, sums, window.range(seen), weights);
            }
        }
    }
}

/// Adds what a row of an input is worth.
#[inline(always)]
fn row<S: Simd, const X: usize, const X2: usize, const N: usize, const WHOLE: bool>(
    simd: S,
    sums: &mut [[S::f32s; N]; X],
    row: &[f32],
    weights: &[[S::f32s; N]; 3],
) {
    // Written out, so that every index is known and no sum leaves its register.
    macro_rules! pixel {
        ($($p:literal)*) => {$(
            if $p < X2 && !(WHOLE && ($p == 0 || $p + 1 == X2)) {
                let pixel = simd.splat_f32s(row[$p * BLOCK]);
                // It is tap i of output p − i.
                for i in 0..3 {
                    if $p >= i && $p - i < X {
                        for n in 0..N {
                            sums[$p - i][n] = simd.mul_add_e_f32s(pixel, weights[i][n], sums[$p - i][n]);
                        }
                    }
                }
            }
        )*};
    }
    pixel!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}
