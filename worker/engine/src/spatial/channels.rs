//! The 3×3 convolution with vectors of outputs, for small maps: a row of pixels at a time; an input that is loaded serves the three
//! outputs that see it. What lies beyond the edge is skipped.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::{BLOCK, Layout};
use crate::network;
use crate::place::Place;
use crate::tile::store;

/// A 3×3 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Spatial {
    /// Inputs of a group.
    inputs: usize,
    /// Of each group, its inputs in the order in which they lie in the middle.
    channels: Vec<usize>,
    /// The pieces of its work.
    pub units: Vec<Unit>,
    weights: Buffer,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    group: usize,
    /// How many there are.
    pub outputs: usize,
    /// Vectors that hold them.
    vectors: usize,
    /// Where its weights begin: [rows of taps][inputs][columns of taps][outputs]
    weights: usize,
}

impl Spatial {
    /// `order`: where the channels of the middle lie.
    pub fn new(conv: &network::Spatial, order: &[(usize, usize)], lanes: usize, most: usize) -> Spatial {
        let (inputs, outputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
        let (mut channels, mut units, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for group in 0..conv.groups {
            let mut own: Vec<usize> = (group * inputs..(group + 1) * inputs).collect();
            own.sort_unstable_by_key(|&channel| order[channel]);
            let mut first = 0;
            while first < outputs {
                let vectors = ((outputs - first) / lanes).clamp(1, most);
                let count = (vectors * lanes).min(outputs - first);
                units.push(Unit { group, outputs: count, vectors, weights: weights.len() });
                for y in 0..3 {
                    for channel in &own {
                        for x in 0..3 {
                            let column = (channel % inputs) * 9 + y * 3 + x;
                            let row = |o: usize| (group * outputs + first + o) * inputs * 9 + column;
                            let weight = |o: usize| if o < count { conv.weights[row(o)] } else { 0.0 };
                            weights.extend((0..vectors * lanes).map(weight));
                        }
                    }
                }
                first += count;
            }
            channels.extend(own);
        }
        Spatial { inputs, channels, units, weights: Buffer::from(weights.as_slice()) }
    }
}

/// What a thread does of a convolution.
pub(crate) struct Work<'a> {
    pub conv: &'a Spatial,
    pub units: Range<usize>,
    /// Everybody's blocks of the middle, and where each channel lies.
    pub middle: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub layout: &'a Layout,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Work { conv, units, middle, places, layout, to } = self;
        let mut to = to;
        let mut inputs = Vec::with_capacity(conv.inputs);
        for unit in &conv.units[units] {
            let channels = &conv.channels[unit.group * conv.inputs..][..conv.inputs];
            inputs.clear();
            inputs.extend(channels.iter().map(|&channel| places[channel].of(middle, 0)));
            let (own, rest) = to.split_at_mut(unit.outputs * layout.plane);
            to = rest;
            let floats = 9 * conv.inputs * unit.vectors * S::F32_LANES;
            let weights = &conv.weights.get()[unit.weights..][..floats];
            let tile = Tile { inputs: &inputs, weights, layout, outputs: unit.outputs };
            match (layout.size, unit.vectors, S::REGISTER_COUNT >= 32) {
                (7, 1, true) => tile.map::<S, 7, 9, 1, 2, true>(simd, own),
                (7, 1, false) => tile.map::<S, 7, 9, 1, 1, true>(simd, own),
                (7, ..) => tile.map::<S, 7, 9, 2, 1, true>(simd, own),
                (8, 1, true) => tile.map::<S, 8, 10, 1, 2, true>(simd, own),
                (8, 1, false) => tile.map::<S, 8, 10, 1, 1, true>(simd, own),
                (14, 1, true) => tile.map::<S, 14, 16, 1, 1, true>(simd, own),
                (14, 1, false) => tile.map::<S, 7, 9, 1, 1, false>(simd, own),
                (_, 1, _) => tile.map::<S, 8, 10, 1, 1, false>(simd, own),
                _ => tile.map::<S, 8, 10, 2, 1, false>(simd, own),
            }
        }
    }
}

/// What the outputs of a unit are made of.
struct Tile<'a> {
    inputs: &'a [&'a [f32]],
    weights: &'a [f32],
    layout: &'a Layout,
    outputs: usize,
}

impl Tile<'_> {
    /// All rows, `X` pixels (`X2` with their neighbours) at a time, by `N` vectors of outputs, in `D` sums that are added at last;
    /// `WHOLE`: `X` pixels are a row.
    #[inline(always)]
    fn map<S: Simd, const X: usize, const X2: usize, const N: usize, const D: usize, const WHOLE: bool>(
        &self,
        simd: S,
        to: &mut [f32],
    ) {
        let Layout { size, stride, plane, .. } = *self.layout;
        for y in 0..size {
            for x in (0..size).step_by(X) {
                let sums = self.row::<S, X, X2, N, D, WHOLE>(simd, y, x);
                let mut columns = [[0.0; X]; 32];
                for n in 0..N {
                    for i in 0..X {
                        let mut lanes = [0.0; 16];
                        store::<S, 1>(&mut lanes, [sums[i][n]]);
                        for l in 0..S::F32_LANES {
                            columns[n * S::F32_LANES + l][i] = lanes[l];
                        }
                    }
                }
                let count = X.min(size - x);
                for (column, to) in columns.iter().zip(to.chunks_exact_mut(plane)).take(self.outputs) {
                    if WHOLE {
                        to[y * stride..][..X].copy_from_slice(column);
                    } else {
                        to[y * stride + x..][..count].copy_from_slice(&column[..count]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn row<S: Simd, const X: usize, const X2: usize, const N: usize, const D: usize, const WHOLE: bool>(
        &self,
        simd: S,
        y: usize,
        x: usize,
    ) -> [[S::f32s; N]; X] {
        let Layout { size, middle_stride, .. } = *self.layout;
        let mut sums = [[[simd.splat_f32s(0.0); N]; X]; D];
        let floats = self.inputs.len() * 3 * N * S::F32_LANES;
        let (together, alone) = self.inputs.as_chunks::<D>();
        // Rows of taps that see any row of the map.
        for tap in usize::from(y == 0)..3 - usize::from(y + 1 == size) {
            let at = ((y + tap) * middle_stride + x) * BLOCK;
            let weights = S::as_simd_f32s(&self.weights[tap * floats..][..floats]).0;
            let weights = weights.as_chunks::<N>().0.as_chunks::<3>().0;
            let (before, after) = weights.split_at(together.len() * D);
            for (inputs, weights) in together.iter().zip(before.as_chunks::<D>().0) {
                for d in 0..D {
                    taps::<S, X, X2, N, WHOLE>(simd, &mut sums[d], &inputs[d][at..], &weights[d]);
                }
            }
            for (input, weights) in alone.iter().zip(after) {
                taps::<S, X, X2, N, WHOLE>(simd, &mut sums[0], &input[at..], weights);
            }
        }
        for d in 1..D {
            for i in 0..X {
                for n in 0..N {
                    sums[0][i][n] = simd.add_f32s(sums[0][i][n], sums[d][i][n]);
                }
            }
        }
        sums[0]
    }
}

/// Adds what a row of an input is worth.
#[inline(always)]
fn taps<S: Simd, const X: usize, const X2: usize, const N: usize, const WHOLE: bool>(
    simd: S,
    sums: &mut [[S::f32s; N]; X],
    row: &[f32],
    weights: &[[S::f32s; N]; 3],
) {
    let row = &row[..(X2 - 1) * BLOCK + 1];
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
