//! The 3×3 convolution with vectors of pixels, on the middle's planes: directly, or two rows at a time (`pairs.rs`).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::{Along, Layout};
use crate::network;
use crate::place::Place;
use crate::rows::Rows;
use crate::spatial::pairs::{self, Pairs};
use crate::tile::{add, clip, load, store, stretches};

/// Taps of a kernel.
const TAPS: usize = 9;

/// A 3×3 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Spatial {
    /// Inputs of a group.
    inputs: usize,
    /// The pieces of its work.
    pub units: Vec<Unit>,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    group: usize,
    /// How many: 1, 2, 4 or 8.
    pub outputs: usize,
    /// [inputs][taps][outputs]; or where rows are reused, [columns of taps][inputs][rows of taps][outputs]; or for pairs of rows,
    /// [inputs][columns of taps][parts][outputs].
    weights: Buffer,
}

impl Spatial {
    pub fn new(conv: &network::Spatial, along: Along, many_registers: bool) -> Spatial {
        let (inputs, outputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
        let mut units = Vec::new();
        for group in 0..conv.groups {
            let mut first = 0;
            while first < outputs {
                let height = match outputs - first {
                    8.. if many_registers && along == Along::Plane => 8,
                    4.. if along != Along::Rows => 4,
                    2.. => 2,
                    _ => 1,
                };
                let taps = |input: usize, o: usize| {
                    &conv.weights[((group * outputs + first + o) * inputs + input) * TAPS..][..TAPS]
                };
                let tap = |input: usize, tap: usize| (0..height).map(move |o| taps(input, o)[tap]);
                let weights: Vec<f32> = match along {
                    Along::Pairs => pairs::weights(inputs, height, taps),
                    Along::Rows => (0..3 * inputs * 3)
                        .flat_map(|i| tap(i / 3 % inputs, i % 3 * 3 + i / 3 / inputs))
                        .collect(),
                    _ => (0..inputs * TAPS).flat_map(|i| tap(i / TAPS, i % TAPS)).collect(),
                };
                units.push(Unit { group, outputs: height, weights: Buffer::from(weights.as_slice()) });
                first += height;
            }
        }
        Spatial { inputs, units }
    }
}

/// What a thread does of a convolution.
pub(crate) struct Work<'a> {
    pub conv: &'a Spatial,
    pub units: Range<usize>,
    /// Everybody's planes of the middle, and where each channel lies.
    pub middle: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub layout: &'a Layout,
    /// The rows that are to be made; the middle's first row is the one above.
    pub rows: Range<usize>,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Work { conv, units, middle, places, layout, rows, to } = self;
        let mut to = to;
        let mut planes = Vec::with_capacity(conv.inputs);
        let vectors = (rows.len() * layout.stride).div_ceil(S::F32_LANES);
        let mut seen = Rows::new(vectors * S::F32_LANES);
        for unit in &conv.units[units] {
            let channels = unit.group * conv.inputs..(unit.group + 1) * conv.inputs;
            planes.clear();
            planes.extend(places[channels].iter().map(|place| &place.of(middle, 0)[..layout.middle_plane]));
            let (own, rest) = to.split_at_mut(unit.outputs * layout.plane);
            to = rest;
            if layout.along == Along::Plane {
                layout.see(&planes, &mut seen);
            }
            let weights = unit.weights.get();
            let pairs = Pairs { planes: &planes, weights, layout, rows: &rows };
            let tile = Tile { planes: &planes, seen: &seen, weights, layout, rows: &rows };
            match (layout.along, unit.outputs, S::REGISTER_COUNT >= 32) {
                (Along::Pairs, 4, _) => pairs.convolve::<S, 4, 1>(simd, own),
                (Along::Pairs, 2, _) => pairs.convolve::<S, 2, 2>(simd, own),
                (Along::Pairs, ..) => pairs.convolve::<S, 1, 3>(simd, own),
                (Along::Rows, 1, true) => tile.rows::<S, 1, 14>(simd, own),
                (Along::Rows, 1, false) => tile.rows::<S, 1, 8>(simd, own),
                (Along::Rows, _, true) => tile.rows::<S, 2, 8>(simd, own),
                (Along::Rows, _, false) => tile.rows::<S, 2, 4>(simd, own),
                (_, 8, _) => tile.plane::<S, 8, 3>(simd, own),
                (_, 4, true) => tile.plane::<S, 4, 6>(simd, own),
                (_, 4, false) => tile.plane::<S, 4, 3>(simd, own),
                (_, 2, true) => tile.plane::<S, 2, 8>(simd, own),
                (_, 2, false) => tile.plane::<S, 2, 5>(simd, own),
                _ => tile.plane::<S, 1, 8>(simd, own),
            }
        }
    }
}

/// What the outputs of a unit are made of.
struct Tile<'a> {
    planes: &'a [&'a [f32]],
    /// What each tap sees of each of them, if vectors go along planes.
    seen: &'a Rows<'a>,
    weights: &'a [f32],
    layout: &'a Layout,
    rows: &'a Range<usize>,
}

impl Tile<'_> {
    /// All pixels, at most `V` vectors at a time.
    #[inline(always)]
    fn plane<S: Simd, const O: usize, const V: usize>(&self, simd: S, to: &mut [f32]) {
        let Layout { stride, lanes, .. } = *self.layout;
        let vectors = (self.rows.len() * stride).div_ceil(lanes);
        let start = self.rows.start * stride;
        for (at, vectors) in stretches(vectors, V) {
            let at = at * S::F32_LANES;
            match vectors {
                1 => self.taps::<S, O, 1>(simd, to, start, at),
                2 => self.taps::<S, O, 2>(simd, to, start, at),
                3 => self.taps::<S, O, 3>(simd, to, start, at),
                4 if V >= 4 => self.taps::<S, O, 4>(simd, to, start, at),
                5 if V >= 5 => self.taps::<S, O, 5>(simd, to, start, at),
                6 if V >= 6 => self.taps::<S, O, 6>(simd, to, start, at),
                7 if V >= 7 => self.taps::<S, O, 7>(simd, to, start, at),
                _ => self.taps::<S, O, V>(simd, to, start, at),
            }
        }
    }

    #[inline(always)]
    fn taps<S: Simd, const O: usize, const V: usize>(
        &self,
        simd: S,
        to: &mut [f32],
        start: usize,
        at: usize,
    ) {
        let mut sums = [[simd.splat_f32s(0.0); V]; O];
        let weights = self.weights.as_chunks::<O>().0;
        let seen = self.seen.window(at, V * S::F32_LANES);
        add::<S, O, O, 0, V, { clip::NONE }>(simd, &mut sums, seen, &[], weights);
        for o in 0..O {
            store::<S, V>(&mut to[o * self.layout.plane + start + at..], sums[o]);
        }
    }

    /// `R` rows at a time, a vector wide.
    #[inline(always)]
    fn rows<S: Simd, const O: usize, const R: usize>(&self, simd: S, to: &mut [f32]) {
        for (row, rows) in stretches(self.rows.len(), R) {
            macro_rules! columns {
                ($($rows:literal)*) => {
                    match rows {
                        $($rows if $rows < R => self.columns::<S, O, $rows>(simd, to, row),)*
                        _ => self.columns::<S, O, R>(simd, to, row),
                    }
                };
            }
            columns!(1 2 3 4 5 6 7 8 9 10 11 12 13);
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const O: usize, const R: usize>(&self, simd: S, to: &mut [f32], row: usize) {
        let Layout { size, stride, plane, .. } = *self.layout;
        for column in (0..size).step_by(S::F32_LANES) {
            // The last ones go as far as the row does.
            let column = column.min(size - S::F32_LANES);
            let sums = self.square::<S, O, R>(simd, row, column);
            let at = (self.rows.start + row) * stride + column;
            for o in 0..O {
                for r in 0..R {
                    store::<S, 1>(&mut to[o * plane + at + r * stride..], [sums[o][r]]);
                }
            }
        }
    }

    #[inline(always)]
    fn square<S: Simd, const O: usize, const R: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
    ) -> [[S::f32s; R]; O] {
        let Layout { middle_stride, lead, .. } = *self.layout;
        let at = lead + row * middle_stride + column;
        let mut sums = [[simd.splat_f32s(0.0); R]; O];
        let weights = self.weights.as_chunks::<O>().0.as_chunks::<3>().0;
        for (x, weights) in weights.chunks_exact(self.planes.len()).enumerate() {
            for (plane, weights) in self.planes.iter().zip(weights) {
                let window = &plane[at + x..][..(R + 1) * middle_stride + S::F32_LANES];
                // Written out, so that every index is known and no sum leaves its register.
                macro_rules! row {
                    ($($i:literal)*) => {$(
                        if $i < R + 2 {
                            let [pixels] = load::<S, 1>(simd, &window[$i * middle_stride..]);
                            for y in 0..3 {
                                if $i >= y && $i - y < R {
                                    for o in 0..O {
                                        let weight = simd.splat_f32s(weights[y][o]);
                                        sums[o][$i - y] = simd.mul_add_e_f32s(weight, pixels, sums[o][$i - y]);
                                    }
                                }
                            }
                        }
                    )*};
                }
                row!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            }
        }
        sums
    }
}
