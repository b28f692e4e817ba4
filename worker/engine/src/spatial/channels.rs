//! The 3×3 convolution with vectors of outputs, for small maps: some pixels of a row at a time. Inputs are taken a few at a time, for the
//! whole map, while their weights are in the first-level cache; in between, the sums lie in memory.

use std::ops::Range;

use pulp::Simd;

#[cfg(target_arch = "x86_64")]
use crate::assembly;
use crate::buffer::Buffer;
use crate::layout::{Along, BLOCK, Layout};
use crate::prefetch::{Ahead, LINE};
use crate::rows::Rows;
use crate::spatial::blocks::{TAPS, Work};
use crate::transpose::transpose;

/// Bytes of the weights that are used at a time.
const CHUNK_BYTES: usize = 9 << 10;

/// Whether what lies beyond the ends of a row is skipped, on maps of such a size; then there need be no zeros.
pub(crate) fn skips_ends(size: usize) -> bool {
    matches!(size, 7 | 8)
}

/// Inputs of a chunk.
fn chunk(outputs: usize) -> usize {
    CHUNK_BYTES / (4 * TAPS * outputs)
}

/// Vectors of outputs of a unit at most.
pub(super) fn most(many_registers: bool) -> usize {
    // Where registers are few, three weights leave none for another.
    if many_registers { 2 } else { 1 }
}

/// Weights: for each chunk of inputs, [rows of taps][inputs][columns of taps][outputs].
pub(super) fn pack<'a>(
    inputs: &[usize],
    outputs: usize,
    taps: impl Fn(usize, usize) -> Option<&'a [f32]>,
) -> Vec<f32> {
    let mut weights = Vec::new();
    let mut push = |channel: usize, y: usize, x: usize| {
        weights.extend((0..outputs).map(|o| taps(channel, o).map_or(0.0, |taps| taps[3 * y + x])));
    };
    for own in inputs.chunks(chunk(outputs)) {
        (0..3).for_each(|y| own.iter().for_each(|&c| (0..3).for_each(|x| push(c, y, x))));
    }
    weights
}

/// A thread's share of a convolution.
#[inline(always)]
pub(super) fn convolve<S: Simd>(simd: S, work: Work<'_>) {
    match work.layout.along {
        Along::Channels(4) => blocks::<S, 4>(simd, work),
        Along::Channels(8) => blocks::<S, 8>(simd, work),
        _ => blocks::<S, BLOCK>(simd, work),
    }
}

/// From blocks of `B` channels.
#[inline(always)]
fn blocks<S: Simd, const B: usize>(simd: S, work: Work<'_>) {
    let Work { conv, units, middle, places, layout, to, scratch } = work;
    let mut to = to;
    let mut inputs = Rows::new(layout.middle_plane - B);
    for unit in &conv.units[units] {
        inputs.clear();
        inputs.extend(conv.seen(unit).iter().map(|&channel| places[channel].of(middle, 0)));
        let (own, rest) = to.split_at_mut(unit.outputs * layout.plane);
        to = rest;
        let weights = conv.own(unit);
        let map =
            Map { count: conv.inputs, inputs: &inputs, weights, layout, outputs: unit.outputs, to: own };
        match (layout.size, unit.vectors, S::REGISTER_COUNT >= 32) {
            (7, 1, _) => map.convolve::<S, B, 7, 9, 1, 2, true>(simd, scratch),
            (7, ..) => map.convolve::<S, B, 7, 9, 2, 1, true>(simd, scratch),
            (8, 1, true) => map.convolve::<S, B, 8, 10, 1, 2, true>(simd, scratch),
            (8, 1, false) => map.convolve::<S, B, 8, 10, 1, 1, true>(simd, scratch),
            (8, ..) => map.convolve::<S, B, 8, 10, 2, 1, true>(simd, scratch),
            (_, 1, _) => map.convolve::<S, B, 8, 10, 1, 1, false>(simd, scratch),
            _ => map.convolve::<S, B, 8, 10, 2, 1, false>(simd, scratch),
        }
    }
}

/// A map of the outputs of a unit, and what it is made of.
struct Map<'a> {
    /// Inputs.
    count: usize,
    inputs: &'a Rows<'a>,
    weights: &'a [f32],
    layout: &'a Layout,
    outputs: usize,
    to: &'a mut [f32],
}

impl Map<'_> {
    /// `X` pixels at a time, by `N` vectors of outputs, in `D` sums that are added at last; `X2`: pixels with their neighbours; `WHOLE`:
    /// they are a row, and what lies beyond its ends is skipped; else zeros are read there.
    #[inline(always)]
    fn convolve<
        S: Simd,
        const B: usize,
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
                self.ahead::<B>(&inputs, y + 3);
                for tile in 0..tiles {
                    ahead.step();
                    let x = tile * X;
                    let at = (y * tiles + tile) * X * outputs;
                    let mut sums = [[simd.splat_f32s(0.0); N]; X];
                    if first > 0 {
                        let from = S::as_simd_f32s(&sums_of_all[at..][..X * outputs]).0.as_chunks::<N>().0;
                        sums.copy_from_slice(&from[..X]);
                    }
                    self.rows::<S, B, X, X2, N, D, WHOLE>(simd, &mut sums, &inputs, own, y, x);
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

    /// Asks for a row of some inputs, counted from the zeros above: another thread may have made it.
    #[inline(always)]
    fn ahead<const B: usize>(&self, inputs: &Range<usize>, row: usize) {
        let Layout { size, middle_stride, .. } = *self.layout;
        for block in inputs.clone().step_by(B) {
            for float in (0..size * B).step_by(LINE) {
                self.inputs.window(0, 0).ahead(block, row * middle_stride * B + float);
            }
        }
    }

    /// Rows of taps that see any row of the map.
    #[inline(always)]
    fn seen(&self, y: usize) -> Range<usize> {
        usize::from(y == 0)..3 - usize::from(y + 1 == self.layout.size)
    }

    /// An input that is loaded serves the three outputs that see it.
    #[inline(always)]
    fn rows<
        S: Simd,
        const B: usize,
        const X: usize,
        const X2: usize,
        const N: usize,
        const D: usize,
        const WHOLE: bool,
    >(
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
        let reach = (X2 - 1) * B + 1;
        for tap in self.seen(y) {
            let at = ((y + tap) * self.layout.middle_stride + x) * B;
            let inputs = self.inputs.window(at, reach).range(inputs.clone());
            let weights = S::as_simd_f32s(&weights[tap * floats..][..floats]).0;
            let weights = weights.as_chunks::<N>().0.as_chunks::<3>().0;
            #[cfg(target_arch = "x86_64")]
            if WHOLE && assembly::whole::add::<S, B, X, N, D>(&mut sums, inputs, weights) {
                continue;
            }
            let (together, alone) = weights.as_chunks::<D>();
            for (k, weights) in together.iter().enumerate() {
                for d in 0..D {
                    add_row::<S, B, X, X2, N, D, WHOLE>(
                        simd,
                        &mut sums,
                        d,
                        inputs.row(k * D + d, reach),
                        &weights[d],
                    );
                }
            }
            for (k, weights) in alone.iter().enumerate() {
                let input = inputs.row(together.len() * D + k, reach);
                add_row::<S, B, X, X2, N, D, WHOLE>(simd, &mut sums, 0, input, weights);
            }
        }
        for d in 1..D {
            for i in usize::from(WHOLE)..X - usize::from(WHOLE) {
                for n in 0..N {
                    sums[0][i][n] = simd.add_f32s(sums[0][i][n], sums[d][i][n]);
                }
            }
        }
        *to = sums[0];
    }
}

/// Adds what a row of an input is worth to the sums `d`. Those of a pixel at an edge are always the first ones: to them one less is added, so
/// they need not wait for each other, and take no registers.
#[inline(always)]
fn add_row<
    S: Simd,
    const B: usize,
    const X: usize,
    const X2: usize,
    const N: usize,
    const D: usize,
    const WHOLE: bool,
>(
    simd: S,
    sums: &mut [[[S::f32s; N]; X]; D],
    d: usize,
    row: &[f32],
    weights: &[[S::f32s; N]; 3],
) {
    // Written out, so that every index is known and no sum leaves its register.
    macro_rules! pixel {
        ($($p:literal)*) => {$(
            if $p < X2 && !(WHOLE && ($p == 0 || $p + 1 == X2)) {
                let pixel = simd.splat_f32s(row[$p * B]);
                // It is tap i of output p − i.
                for i in 0..3 {
                    if $p >= i && $p - i < X {
                        let edge = WHOLE && ($p == i || $p - i + 1 == X);
                        let d = if edge { 0 } else { d };
                        for n in 0..N {
                            sums[d][$p - i][n] = simd.mul_add_e_f32s(pixel, weights[i][n], sums[d][$p - i][n]);
                        }
                    }
                }
            }
        )*};
    }
    pixel!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}
