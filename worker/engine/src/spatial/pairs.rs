//! The 3×3 convolution with vectors of pixels, two rows of outputs at a time: Winograd's F(2, 3) down the columns (`winograd.rs`). What is
//! made of the inputs stays in registers.

use std::ops::Range;

use pulp::Simd;

use crate::layout::Layout;
use crate::spatial::winograd::{self, PARTS};
use crate::tile::{load, store, stretches};

/// Weights [inputs][columns of taps][parts][outputs], of the 3×3 taps of an input for an output.
pub(super) fn weights<'a>(
    inputs: usize,
    outputs: usize,
    taps: impl Fn(usize, usize) -> &'a [f32] + Copy,
) -> Vec<f32> {
    let column = |input: usize, x: usize, o: usize| {
        winograd::filter([0, 3, 6].map(|y| f64::from(taps(input, o)[y + x])))
    };
    let mut weights = Vec::new();
    for (input, x) in (0..inputs).flat_map(|input| (0..3).map(move |x| (input, x))) {
        for part in 0..PARTS {
            weights.extend((0..outputs).map(|o| column(input, x, o)[part] as f32));
        }
    }
    weights
}

/// What the outputs of a unit are made of.
pub(super) struct Pairs<'a> {
    pub planes: &'a [&'a [f32]],
    /// As [`weights`] makes them.
    pub weights: &'a [f32],
    pub layout: &'a Layout,
    pub rows: &'a Range<usize>,
}

impl Pairs<'_> {
    /// `R` pairs of rows at a time, at most 3, a vector wide.
    #[inline(always)]
    pub fn convolve<S: Simd, const O: usize, const R: usize>(&self, simd: S, to: &mut [f32]) {
        for (pair, pairs) in stretches(self.rows.len().div_ceil(2), R) {
            match pairs {
                1 if R > 1 => self.columns::<S, O, 1>(simd, to, pair),
                2 if R > 2 => self.columns::<S, O, 2>(simd, to, pair),
                _ => self.columns::<S, O, R>(simd, to, pair),
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const O: usize, const R: usize>(&self, simd: S, to: &mut [f32], pair: usize) {
        let size = self.layout.size;
        for column in (0..size).step_by(S::F32_LANES) {
            #[cfg(target_arch = "x86_64")]
            if let (true, Some(simd)) = (fit_half(S::F32_LANES, size - column), pulp::x86::V3::try_new()) {
                self.column::<_, O, R>(simd, to, pair, column);
                continue;
            }
            self.column::<S, O, R>(simd, to, pair, column);
        }
    }

    /// A vector of each row.
    #[inline(always)]
    fn column<S: Simd, const O: usize, const R: usize>(
        &self,
        simd: S,
        to: &mut [f32],
        pair: usize,
        column: usize,
    ) {
        let Layout { size, stride, plane, .. } = *self.layout;
        // The last ones go as far as the row does; those of a shorter row are put right by the next.
        let column = column.min(size.saturating_sub(S::F32_LANES));
        let sums = self.sums::<S, O, R>(simd, pair, column);
        for o in 0..O {
            for r in 0..R {
                let [upper, lower] = winograd::outputs(simd, sums[o][r]);
                let row = 2 * (pair + r);
                let at = o * plane + (self.rows.start + row) * stride + column;
                store::<S, 1>(&mut to[at..], [upper]);
                if row + 1 < self.rows.len() {
                    store::<S, 1>(&mut to[at + stride..], [lower]);
                }
            }
        }
    }

    #[inline(always)]
    fn sums<S: Simd, const O: usize, const R: usize>(
        &self,
        simd: S,
        pair: usize,
        column: usize,
    ) -> [[[S::f32s; PARTS]; R]; O] {
        let Layout { size, middle_stride: stride, lead, .. } = *self.layout;
        // From the pixel left of the first one on.
        let at = lead + 2 * pair * stride + column - 1;
        // Lanes that have a pixel left of them, and right of them.
        let lanes = S::F32_LANES;
        let inside = [
            simd.mask_between_m32s((column == 0).into(), lanes as u32).mask(),
            simd.mask_between_m32s(0, (size - 1 - column).min(lanes) as u32).mask(),
        ];
        let mut sums = [[[simd.splat_f32s(0.0); PARTS]; R]; O];
        let weights = self.weights.as_chunks::<O>().0.as_chunks::<PARTS>().0.as_chunks::<3>().0;
        let (planes, rest) = self.planes.as_chunks::<4>();
        let (weights4, weights_rest) = weights.as_chunks::<4>();
        for (planes, weights) in planes.iter().zip(weights4) {
            for k in 0..4 {
                self.plane(simd, planes[k], &weights[k], at, inside, &mut sums);
            }
        }
        for (plane, weights) in rest.iter().zip(weights_rest) {
            self.plane(simd, plane, weights, at, inside, &mut sums);
        }
        sums
    }

    /// Adds what a plane is worth.
    #[inline(always)]
    fn plane<S: Simd, const O: usize, const R: usize>(
        &self,
        simd: S,
        plane: &[f32],
        weights: &[[[f32; O]; PARTS]; 3],
        at: usize,
        inside: [S::m32s; 2],
        sums: &mut [[[S::f32s; PARTS]; R]; O],
    ) {
        let stride = self.layout.middle_stride;
        let window = &plane[at..][..(2 * R + 1) * stride + 2 + S::F32_LANES];
        // Written out, so that every index is known and no sum leaves its register.
        macro_rules! column {
            ($($x:literal)*) => {$(
                let mut first = pixels::<S, $x>(simd, window, inside);
                let mut second = pixels::<S, $x>(simd, &window[stride..], inside);
                pair!($x, first, second, 0 1 2);
                let _ = (first, second);
            )*};
        }
        macro_rules! pair {
            ($x:literal, $first:ident, $second:ident, $($r:literal)*) => {$(
                if $r < R {
                    let third = pixels::<S, $x>(simd, &window[(2 * $r + 2) * stride..], inside);
                    let fourth = pixels::<S, $x>(simd, &window[(2 * $r + 3) * stride..], inside);
                    let parts = winograd::inputs(simd, [$first, $second, third, fourth]);
                    for part in 0..PARTS {
                        for o in 0..O {
                            let weight = simd.splat_f32s(weights[$x][part][o]);
                            sums[o][$r][part] = simd.mul_add_e_f32s(weight, parts[part], sums[o][$r][part]);
                        }
                    }
                    ($first, $second) = (third, fourth);
                }
            )*};
        }
        column!(0 1 2);
    }
}

/// Whether the last pixels of a row fit into a vector of AVX2, of half the width: on some CPUs that is half the work.
pub(crate) fn fit_half(lanes: usize, pixels: usize) -> bool {
    lanes == 16 && pixels <= 8
}

/// The pixels that tap `X` of a row sees, or zeros where there are none.
#[inline(always)]
fn pixels<S: Simd, const X: usize>(simd: S, row: &[f32], inside: [S::m32s; 2]) -> S::f32s {
    let [pixels] = load::<S, 1>(simd, &row[X..]);
    match X {
        0 => simd.select_f32s(inside[0], pixels, simd.splat_f32s(0.0)),
        2 => simd.select_f32s(inside[1], pixels, simd.splat_f32s(0.0)),
        _ => pixels,
    }
}
