//! The 3×3 convolution with vectors of pixels, on the middle's planes: of all pixels as one row, or along rows (`rows.rs`), or two
//! rows at a time (`pairs.rs`).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::{Along, Layout};
use crate::network;
use crate::place::Place;
use crate::rows::Rows;
use crate::spatial::pairs::{self, Pairs};
use crate::spatial::rows::{self, ByRows};
use crate::tile::{add_taps, store, stretches};

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
    /// [inputs][taps][outputs]; or in the order of its way.
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
                    Along::Rows => rows::weights(inputs, height, taps),
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
        let mut seen = Rows::new(match layout.along {
            Along::Rows => rows::length(layout),
            _ => layout.middle_plane - layout.lead,
        });
        for units in conv.units[units].chunk_by(|a, b| a.group == b.group) {
            let channels = units[0].group * conv.inputs..(units[0].group + 1) * conv.inputs;
            planes.clear();
            planes.extend(places[channels].iter().map(|place| &place.of(middle, 0)[..layout.middle_plane]));
            seen.clear();
            match layout.along {
                Along::Plane => seen.extend(planes.iter().map(|plane| &plane[layout.lead..])),
                Along::Rows => rows::see(layout, &planes, &mut seen),
                _ => {}
            }
            for unit in units {
                let (own, rest) = to.split_at_mut(unit.outputs * layout.plane);
                to = rest;
                let weights = unit.weights.get();
                let pairs = Pairs { planes: &planes, weights, layout, rows: &rows };
                let by_rows = ByRows { seen: &seen, weights, layout, rows: &rows };
                let tile = Tile { seen: &seen, weights, layout, rows: &rows };
                match (layout.along, unit.outputs, S::REGISTER_COUNT >= 32) {
                    (Along::Pairs, 4, _) => pairs.convolve::<S, 4, 1>(simd, own),
                    (Along::Pairs, 2, _) => pairs.convolve::<S, 2, 2>(simd, own),
                    (Along::Pairs, ..) => pairs.convolve::<S, 1, 3>(simd, own),
                    (Along::Rows, 1, _) => by_rows.convolve::<S, 1, { rows::MOST }>(simd, own),
                    (Along::Rows, _, true) => by_rows.convolve::<S, 2, { rows::MOST }>(simd, own),
                    (Along::Rows, _, false) => by_rows.convolve::<S, 2, { rows::MOST / 2 }>(simd, own),
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
}

/// What the outputs of a unit are made of.
struct Tile<'a> {
    /// What each tap sees of each plane.
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
        let weights = self.weights.as_chunks::<O>().0.as_chunks::<TAPS>().0;
        let stride = self.layout.middle_stride;
        let seen = self.seen.window(at, 2 * stride + 2 + V * S::F32_LANES);
        add_taps::<S, O, V>(simd, &mut sums, seen, stride, weights);
        for o in 0..O {
            store::<S, V>(&mut to[o * self.layout.plane + start + at..], sums[o]);
        }
    }
}
