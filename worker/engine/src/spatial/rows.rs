//! The 3×3 convolution with vectors of pixels, some rows of outputs at a time: each row of inputs that is loaded serves the three that see it.

use std::ops::Range;

use pulp::Simd;

use crate::layout::Layout;
use crate::prefetch::ahead;
use crate::rows::Rows;
use crate::tile::{add_rows, load, store, stretches};

/// Rows of a tile at most.
pub(crate) const MOST: usize = 8;

/// All bits: the pixel is there.
const THERE: f32 = f32::from_bits(u32::MAX);

/// Floats of the longest vector.
const LONGEST: usize = 16;

/// Masks of what the left column of taps sees of a row's first vector, from the beginning on.
const LEFT: [f32; LONGEST] = mask_all_but(0);

/// Masks of what the right column sees of a row's last vector, up to the end.
const RIGHT: [f32; LONGEST] = mask_all_but(LONGEST - 1);

const fn mask_all_but(one: usize) -> [f32; LONGEST] {
    let mut masks = [THERE; LONGEST];
    masks[one] = 0.0;
    masks
}

/// Weights [inputs][columns of taps][rows of taps][outputs], of the 3×3 taps of an input for an output.
pub(super) fn weights<'a>(
    inputs: usize,
    outputs: usize,
    taps: impl Fn(usize, usize) -> &'a [f32] + Copy,
) -> Vec<f32> {
    let rows =
        (0..inputs).flat_map(|input| (0..3).flat_map(move |x| (0..3).map(move |y| (input, 3 * y + x))));
    rows.flat_map(|(input, tap)| (0..outputs).map(move |o| taps(input, o)[tap])).collect()
}

/// What the left column of taps sees of planes of the middle; left of a row, that is a pixel of another.
pub(super) fn see<'a>(layout: &Layout, planes: &[&'a [f32]], seen: &mut Rows<'a>) {
    seen.extend(planes.iter().map(|plane| &plane[layout.lead - 1..]));
}

/// Floats of what is seen of a plane.
pub(super) fn length(layout: &Layout) -> usize {
    layout.middle_plane + 1 - layout.lead
}

/// What the outputs of a unit are made of.
pub(super) struct ByRows<'a> {
    /// What [`see`] sees.
    pub seen: &'a Rows<'a>,
    /// As [`weights`] makes them.
    pub weights: &'a [f32],
    pub layout: &'a Layout,
    pub rows: &'a Range<usize>,
}

impl ByRows<'_> {
    /// At most `R` rows at a time, a vector wide.
    #[inline(always)]
    pub fn convolve<S: Simd, const O: usize, const R: usize>(&self, simd: S, to: &mut [f32]) {
        for (row, rows) in stretches(self.rows.len(), R) {
            macro_rules! columns {
                ($($rows:literal)*) => {
                    match rows {
                        $($rows if $rows < R => self.columns::<S, O, $rows>(simd, to, row),)*
                        _ => self.columns::<S, O, R>(simd, to, row),
                    }
                };
            }
            columns!(1 2 3 4 5 6 7);
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const O: usize, const R: usize>(&self, simd: S, to: &mut [f32], row: usize) {
        let Layout { size, stride, plane, .. } = *self.layout;
        for column in (0..size).step_by(S::F32_LANES) {
            // The last ones go as far as the row does.
            let column = column.min(size - S::F32_LANES);
            let at = (self.rows.start + row) * stride + column;
            // Features come from far even to be written: the next are asked for while these are made.
            for o in 0..O {
                for r in 0..R {
                    ahead(to, o * plane + at + r * stride + 2 * S::F32_LANES);
                }
            }
            let sums = self.sums::<S, O, R>(simd, row, column);
            for o in 0..O {
                for r in 0..R {
                    store::<S, 1>(&mut to[o * plane + at + r * stride..], [sums[o][r]]);
                }
            }
        }
    }

    #[inline(always)]
    fn sums<S: Simd, const O: usize, const R: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
    ) -> [[S::f32s; R]; O] {
        let Layout { size, middle_stride: stride, .. } = *self.layout;
        let there = simd.splat_f32s(THERE);
        let seen = self.seen.window(row * stride + column, (R + 1) * stride + 2 + S::F32_LANES);
        let weights = self.weights.as_chunks::<O>().0.as_chunks::<3>().0.as_chunks::<3>().0;
        let mut sums = [[simd.splat_f32s(0.0); R]; O];
        let (first, last) = (column == 0, column + S::F32_LANES == size);
        if first || last {
            let ([left], [right]) =
                (load::<S, 1>(simd, &LEFT), load::<S, 1>(simd, &RIGHT[LONGEST - S::F32_LANES..]));
            let masks = [if first { left } else { there }, there, if last { right } else { there }];
            add_rows::<S, O, R, true>(simd, &mut sums, seen, stride, &masks, weights);
        } else {
            add_rows::<S, O, R, false>(simd, &mut sums, seen, stride, &[there; 3], weights);
        }
        sums
    }
}
