//! The first convolution: 3×3 over three colours, of stride 1 or 2.
//!
//! The image is laid out with zeros around it; for stride 2, its even and odd columns apart. Then what any tap sees of a row of
//! outputs is a row of floats.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::Layout;
use crate::network;
use crate::tile::{load, store, stretches, sums};

/// Outputs of a tile.
const HEIGHT: usize = 8;
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
        let Layout { size, plane, .. } = *self.layout;
        let taps: [usize; TAPS] = std::array::from_fn(|tap| self.stem.tap(tap));
        let most = if S::REGISTER_COUNT >= 32 { 3 } else { 1 };
        let planes = self.to.chunks_mut(HEIGHT * plane);
        for (weights, to) in self.stem.weights[self.units].iter().zip(planes) {
            let weights = weights.get();
            for y in 0..size {
                let image = &self.image[y * self.stem.stride * self.stem.row..];
                for (at, vectors) in stretches(size.div_ceil(S::F32_LANES), most) {
                    let at = at * S::F32_LANES;
                    let row = Row {
                        taps: &taps,
                        weights,
                        image: &image[at..],
                        to: y * self.layout.stride + at,
                        plane,
                    };
                    match vectors {
                        1 => row.convolve::<S, 1>(simd, to),
                        2 => row.convolve::<S, 2>(simd, to),
                        _ => row.convolve::<S, 3>(simd, to),
                    }
                }
            }
        }
    }
}

struct Row<'a> {
    taps: &'a [usize; TAPS],
    weights: &'a [f32],
    image: &'a [f32],
    to: usize,
    plane: usize,
}

impl Row<'_> {
    #[inline(always)]
    fn convolve<S: Simd, const V: usize>(&self, simd: S, to: &mut [f32]) {
        let mut panel = [[simd.splat_f32s(0.0); V]; TAPS];
        for (panel, &tap) in panel.iter_mut().zip(self.taps) {
            *panel = load(simd, &self.image[tap..]);
        }
        let sums = sums::<S, HEIGHT, HEIGHT, 0, V>(simd, &[0.0; HEIGHT], self.weights, &panel);
        let count = to.len() / self.plane;
        for o in 0..HEIGHT {
            if o < count {
                store::<S, V>(&mut to[o * self.plane + self.to..], sums[o]);
            }
        }
    }
}
