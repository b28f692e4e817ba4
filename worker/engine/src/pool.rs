//! Between blocks: the mean of each square of 2×2 pixels.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::layout::Layout;

/// Means that are made at once.
#[cfg(target_arch = "x86_64")]
const WIDTH: usize = 8;

/// What a thread does of it.
pub(crate) struct Work<'a> {
    /// Planes, one after another.
    pub planes: &'a [f32],
    pub from: &'a Layout,
    pub into: &'a Layout,
    /// What their rows become, from the first one on.
    pub rows: Range<usize>,
    /// As many planes of the block that is entered.
    pub to: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Work { planes, from, into, rows, to } = self;
        let planes = planes.chunks_exact(from.plane).zip(to.chunks_exact_mut(into.plane));
        #[cfg(target_arch = "x86_64")]
        if let (true, Some(simd)) = (S::F32_LANES >= WIDTH, pulp::x86::V3::try_new()) {
            let strides = (from.stride, into.stride);
            for (plane, to) in planes {
                let to = &mut to[rows.start * into.stride..];
                match into.size {
                    56 => plane_of::<56>(simd, plane, to, strides, rows.len()),
                    28 => plane_of::<28>(simd, plane, to, strides, rows.len()),
                    16 => plane_of::<16>(simd, plane, to, strides, rows.len()),
                    14 => plane_of::<14>(simd, plane, to, strides, rows.len()),
                    8 => plane_of::<8>(simd, plane, to, strides, rows.len()),
                    7 => plane_of::<7>(simd, plane, to, strides, rows.len()),
                    size => (0..rows.len()).for_each(|y| {
                        let above = &plane[2 * y * from.stride..];
                        row(simd, [above, &above[from.stride..]], &mut to[y * into.stride..], size);
                    }),
                }
            }
            return;
        }
        for (plane, to) in planes {
            for (i, y) in rows.clone().enumerate() {
                let row = |i: usize| &plane[i * from.stride..][..2 * into.size];
                let pairs = row(2 * i).as_chunks::<2>().0.iter().zip(row(2 * i + 1).as_chunks::<2>().0);
                let to = &mut to[y * into.stride..][..into.size];
                for (to, (above, below)) in to.iter_mut().zip(pairs) {
                    *to = 0.25 * ((above[0] + below[0]) + (above[1] + below[1]));
                }
            }
        }
    }
}

/// Some rows of a plane of a usual size: rows whose length is known need few checks.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn plane_of<const COUNT: usize>(
    simd: pulp::x86::V3,
    plane: &[f32],
    to: &mut [f32],
    (stride, to_stride): (usize, usize),
    rows: usize,
) {
    let width = COUNT.max(WIDTH);
    let above = plane.windows(2 * width).step_by(2 * stride);
    let below = plane[stride..].windows(2 * width).step_by(2 * stride);
    for (y, (above, below)) in above.zip(below).take(rows).enumerate() {
        row(simd, [above, below], &mut to[y * to_stride..][..width], COUNT);
    }
}

/// `count` means of squares of two rows of pixels. Those of a row of fewer than `WIDTH` run over its end, where there is room or the next
/// row, which comes later.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn row(simd: pulp::x86::V3, [above, below]: [&[f32]; 2], to: &mut [f32], count: usize) {
    let whole = above[..2 * count].as_chunks().0.iter().zip(below[..2 * count].as_chunks().0);
    for ((above, below), to) in whole.zip(to.as_chunks_mut().0) {
        means(simd, above, below, to);
    }
    if !count.is_multiple_of(WIDTH) {
        // The last ones go as far as the row does.
        let x = count.saturating_sub(WIDTH);
        if let ([above, ..], [below, ..], [to, ..]) =
            (above[2 * x..].as_chunks().0, below[2 * x..].as_chunks().0, to[x..].as_chunks_mut().0)
        {
            means(simd, above, below, to);
        }
    }
}

/// `WIDTH` means of squares of two rows of pixels.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn means(simd: pulp::x86::V3, above: &[f32; 2 * WIDTH], below: &[f32; 2 * WIDTH], to: &mut [f32; WIDTH]) {
    use std::arch::x86_64::__m256;

    use crate::tile::{load, store};

    let above: [__m256; 2] = load::<_, 2>(simd, above).map(pulp::cast);
    let below: [__m256; 2] = load::<_, 2>(simd, below).map(pulp::cast);
    let (avx, avx2) = (simd.avx, simd.avx2);
    let sums = [avx._mm256_add_ps(above[0], below[0]), avx._mm256_add_ps(above[1], below[1])];
    // Two sums of the first, two of the second, and again.
    let mixed = avx._mm256_castps_pd(avx._mm256_hadd_ps(sums[0], sums[1]));
    let sums = avx._mm256_castpd_ps(avx2._mm256_permute4x64_pd::<0b11_01_10_00>(mixed));
    let means = avx._mm256_mul_ps(sums, avx._mm256_set1_ps(0.25));
    store::<pulp::x86::V3, 1>(to, [pulp::cast(means)]);
}
