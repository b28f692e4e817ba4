//! The first convolution: 3×3 over three colours, of stride 1 or 2.
//!
//! The image is laid out with zeros around it; for stride 2, its even and odd columns apart. Then what any tap sees of a row of
//! outputs is a row of floats.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::Layout;
use crate::network;
use crate::prefetch::ahead;
use crate::rows::Rows;
use crate::tile::{add, clip, store, stretches};

/// Outputs of a tile.
const HEIGHT: usize = 8;
/// Most vectors of a tile.
const MOST: usize = 3;
/// Colours by taps.
const TAPS: usize = 27;

/// The convolution as its inner loop reads it.
#[derive(Debug)]
pub(crate) struct Stem {
    pub outputs: usize,
    stride: usize,
    size: usize,
    /// For each tile: [taps][outputs]
    weights: Vec<Buffer>,
    /// Floats from row to row of the laid out image.
    row: usize,
    /// Rows from plane to plane.
    rows: usize,
}

impl Stem {
    pub fn new(stem: &network::Stem, size: usize, lanes: usize) -> Stem {
        let tile = |first: usize| {
            let mut weights = vec![0.0; TAPS * HEIGHT];
            for (o, row) in stem.weights.chunks(TAPS).skip(first).take(HEIGHT).enumerate() {
                row.iter().enumerate().for_each(|(tap, &weight)| weights[tap * HEIGHT + o] = weight);
            }
            Buffer::from(weights.as_slice())
        };
        let widest = (size.div_ceil(stem.stride) + 2).next_multiple_of(lanes) + 3 * lanes;
        Stem {
            outputs: stem.outputs,
            stride: stem.stride,
            size,
            weights: (0..stem.outputs).step_by(HEIGHT).map(tile).collect(),
            row: widest,
            rows: size + 3,
        }
    }

    /// Pieces of its work.
    pub fn units(&self) -> usize {
        self.weights.len()
    }

    /// Channels of a piece.
    pub fn channels(&self, units: Range<usize>) -> Range<usize> {
        let end = |unit: usize| (unit * HEIGHT).min(self.outputs);
        end(units.start)..end(units.end)
    }

    /// Floats of an image that is laid out.
    pub fn floats(&self) -> usize {
        3 * self.stride * self.rows * self.row
    }

    /// Where what a tap sees begins.
    fn tap(&self, tap: usize) -> usize {
        let (colour, y, x) = (tap / 9, tap / 3 % 3, tap % 3);
        let (parity, column) = if self.stride == 1 { (0, x) } else { (x % 2, x / 2) };
        ((colour * self.stride + parity) * self.rows + y) * self.row + column
    }
}

/// Lays an image [3, size, size] out.
pub(crate) struct LayOut<'a> {
    pub stem: &'a Stem,
    pub image: &'a [f32],
    pub to: &'a mut [f32],
}

impl WithSimd for LayOut<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let LayOut { stem, image, to } = self;
        let Stem { size, row, rows, stride, .. } = *stem;
        for (colour, image) in image.chunks_exact(size * size).enumerate() {
            for (y, image) in image.chunks_exact(size).enumerate() {
                let at = |plane: usize| (plane * rows + y + 1) * row;
                if stride == 1 {
                    to[at(colour) + 1..][..size].copy_from_slice(image);
                    continue;
                }
                // Column −1 is the first of what stands left and right of an output, so that odd columns lie one behind.
                let (even, odd) = (at(2 * colour + 1), at(2 * colour) + 1);
                let pairs = image.as_chunks::<2>().0;
                to[even..][..pairs.len()].iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
                to[odd..][..pairs.len()].iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[1]);
                if let [last] = image.as_chunks::<2>().1 {
                    to[even + pairs.len()] = *last;
                }
            }
        }
    }
}

/// What a thread does of the convolution.
pub(crate) struct Work<'a> {
    pub stem: &'a Stem,
    pub units: Range<usize>,
    /// Rows that are to be made.
    pub rows: Range<usize>,
    /// The image, laid out.
    pub image: &'a [f32],
    pub layout: &'a Layout,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Layout { size, stride, plane, .. } = *self.layout;
        let Stem { stride: step, row, .. } = *self.stem;
        let vectors = size.div_ceil(S::F32_LANES);
        let mut taps = Rows::new((size - 1) * step * row + vectors * S::F32_LANES);
        taps.extend((0..TAPS).map(|tap| &self.image[self.stem.tap(tap)..]));
        let planes = self.to.chunks_mut(HEIGHT * plane);
        for (weights, to) in self.stem.weights[self.units].iter().zip(planes) {
            let mut unit = Unit { taps: &taps, weights: weights.get(), to, plane };
            for (i, y) in self.rows.clone().enumerate() {
                for (at, vectors) in stretches(vectors, MOST) {
                    let at = at * S::F32_LANES;
                    let (from, to) = (y * step * row + at, i * stride + at);
                    match vectors {
                        1 => unit.convolve::<S, 1>(simd, from, to),
                        2 => unit.convolve::<S, 2>(simd, from, to),
                        _ => unit.convolve::<S, 3>(simd, from, to),
                    }
                }
            }
        }
    }
}

/// A tile's outputs.
struct Unit<'a> {
    /// What each tap sees.
    taps: &'a Rows<'a>,
    weights: &'a [f32],
    to: &'a mut [f32],
    plane: usize,
}

impl Unit<'_> {
    #[inline(always)]
    fn convolve<S: Simd, const V: usize>(&mut self, simd: S, at: usize, to: usize) {
        // What follows in each plane will be written soon.
        for plane in 0..self.to.len() / self.plane {
            for v in 0..V {
                ahead(self.to, plane * self.plane + to + (V + v) * S::F32_LANES);
            }
        }
        if S::REGISTER_COUNT >= 32 {
            self.outputs::<S, HEIGHT, 0, V>(simd, at, to);
        } else {
            self.outputs::<S, { HEIGHT / 2 }, 0, V>(simd, at, to);
            self.outputs::<S, { HEIGHT / 2 }, { HEIGHT / 2 }, V>(simd, at, to);
        }
    }

    /// `R` of them, from `FIRST` on.
    #[inline(always)]
    fn outputs<S: Simd, const R: usize, const FIRST: usize, const V: usize>(
        &mut self,
        simd: S,
        at: usize,
        to: usize,
    ) {
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        let (taps, weights) = (self.taps.window(at, V * S::F32_LANES), self.weights.as_chunks::<HEIGHT>().0);
        add::<S, R, HEIGHT, FIRST, V, { clip::NONE }>(simd, &mut sums, taps, &[], &mut [], weights);
        let count = (self.to.len() / self.plane).saturating_sub(FIRST);
        for o in 0..R {
            if o < count {
                store::<S, V>(&mut self.to[(FIRST + o) * self.plane + to..], sums[o]);
            }
        }
    }
}
