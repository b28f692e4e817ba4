//! Winograd's minimal filtering (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1): what the two
//! 3×3 kernels share, and F(2×2, 3×3) on blocks of channels.
//!
//! Two outputs that stand side by side see four inputs d through three taps g. Of the inputs, d₀ − d₂, d₁ + d₂, d₂ − d₁ and d₃ − d₁ are made;
//! of the taps g₀, ½(g₀ + g₁ + g₂), ½(g₀ − g₁ + g₂) and g₂. Their four products m, in place of six, make the outputs m₀ + m₁ + m₂ and
//! m₁ − m₂ + m₃. In both directions, a tile of 4×4 inputs makes a square of 2×2 outputs with 16 products in place of 36.

use pulp::Simd;

use crate::layout::BLOCK;
use crate::tile::{load, store};

/// Products along one direction.
pub(super) const PARTS: usize = 4;

/// Products of a square of outputs.
pub(super) const SQUARE: usize = PARTS * PARTS;

/// What three taps become.
pub(super) fn filter(taps: [f64; 3]) -> [f64; PARTS] {
    let (even, odd) = (0.5 * (taps[0] + taps[2]), 0.5 * taps[1]);
    [taps[0], even + odd, even - odd, taps[2]]
}

/// What 3×3 taps become.
pub(super) fn filter_square(taps: &[f32]) -> [f32; SQUARE] {
    let rows: [_; 3] = std::array::from_fn(|y| filter(std::array::from_fn(|x| f64::from(taps[3 * y + x]))));
    let columns: [_; PARTS] = std::array::from_fn(|x| filter(rows.map(|row| row[x])));
    std::array::from_fn(|i| columns[i % PARTS][i / PARTS] as f32)
}

/// What four inputs become.
#[inline(always)]
pub(super) fn inputs<S: Simd>(simd: S, d: [S::f32s; PARTS]) -> [S::f32s; PARTS] {
    [
        simd.sub_f32s(d[0], d[2]),
        simd.add_f32s(d[1], d[2]),
        simd.sub_f32s(d[2], d[1]),
        simd.sub_f32s(d[3], d[1]),
    ]
}

/// What the sums of products become.
#[inline(always)]
pub(super) fn outputs<S: Simd>(simd: S, m: [S::f32s; PARTS]) -> [S::f32s; 2] {
    [simd.add_f32s(m[0], simd.add_f32s(m[1], m[2])), simd.add_f32s(m[3], simd.sub_f32s(m[1], m[2]))]
}

/// Of a vector of the channels of each pixel of four rows of a map, `stride` pixels from row to row, with zeros around it, makes those of the
/// tiles from `first` on, of [products][tiles][channels]. Of the last pixel, and of the last tile, there is room for all channels of a block.
#[inline(always)]
pub(super) fn transform<S: Simd>(
    simd: S,
    map: &[f32],
    stride: usize,
    to: &mut [f32],
    (first, tiles): (usize, usize),
) {
    let to = &mut to.as_chunks_mut::<BLOCK>().0[..SQUARE * tiles];
    let row = |row: usize| {
        let row = &map[row * stride * BLOCK..][..stride * BLOCK];
        row.as_chunks::<{ 2 * BLOCK }>().0.iter()
    };
    let mut pixels = row(0).zip(row(1)).zip(row(2)).zip(row(3));
    let Some((((a, b), c), d)) = pixels.next() else { return };
    let (mut one, mut two) = pair(simd, [a, b, c, d]);
    for (x, (((a, b), c), d)) in pixels.enumerate() {
        let (three, four) = pair(simd, [a, b, c, d]);
        for row in 0..PARTS {
            let made = inputs(simd, [one[row], two[row], three[row], four[row]]);
            for column in 0..PARTS {
                let to = &mut to[(row * PARTS + column) * tiles + first + x];
                store::<S, 1>(to, [made[column]]);
            }
        }
        (one, two) = (three, four);
    }
}

/// What two columns of a tile become, of a pair of pixels of each row.
#[inline(always)]
fn pair<S: Simd>(simd: S, rows: [&[f32; 2 * BLOCK]; PARTS]) -> ([S::f32s; PARTS], [S::f32s; PARTS]) {
    let (mut left, mut right) = ([simd.splat_f32s(0.0); PARTS], [simd.splat_f32s(0.0); PARTS]);
    for i in 0..PARTS {
        [left[i]] = load::<S, 1>(simd, rows[i]);
        [right[i]] = load::<S, 1>(simd, &rows[i][BLOCK..]);
    }
    (inputs(simd, left), inputs(simd, right))
}

/// Of sums [products][tiles][outputs], makes [pixels][outputs] of some rows of a map that is `size` pixels wide.
#[inline(always)]
pub(super) fn finish<S: Simd>(
    simd: S,
    (rows, columns): (usize, usize),
    size: usize,
    outputs: usize,
    sums: &[f32],
    to: &mut [f32],
) {
    let step = rows * columns * outputs;
    for y in 0..rows {
        for x in 0..columns {
            for lane in (0..outputs).step_by(S::F32_LANES) {
                let sums = &sums[(y * columns + x) * outputs + lane..];
                let mut above = [simd.splat_f32s(0.0); PARTS];
                let mut below = above;
                for column in 0..PARTS {
                    let mut m = [simd.splat_f32s(0.0); PARTS];
                    for row in 0..PARTS {
                        [m[row]] = load::<S, 1>(simd, &sums[(row * PARTS + column) * step..]);
                    }
                    [above[column], below[column]] = self::outputs(simd, m);
                }
                let at = (2 * y * size + 2 * x) * outputs + lane;
                let [left, right] = self::outputs(simd, above);
                store::<S, 1>(&mut to[at..], [left]);
                if 2 * x + 1 < size {
                    store::<S, 1>(&mut to[at + outputs..], [right]);
                }
                let at = at + size * outputs;
                let [left, right] = self::outputs(simd, below);
                store::<S, 1>(&mut to[at..], [left]);
                if 2 * x + 1 < size {
                    store::<S, 1>(&mut to[at + outputs..], [right]);
                }
            }
        }
    }
}
