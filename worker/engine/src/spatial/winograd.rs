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

/// Lines of `BLOCK` floats of a tile: one for each product, and one more, so that those of some tiles do not compete for the same places of
/// a cache.
const LINES: usize = SQUARE + 1;

/// Floats from tile to tile.
pub(super) const TILE: usize = LINES * BLOCK;

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

/// Of each pixel of four rows of a map, `stride` pixels from row to row, with zeros around it, makes tiles: [tiles][products][channels].
/// `maps`: the blocks of `B` channels that make a vector, or one of which a vector is a part. Of the last pixel, and of the last tile, there
/// is room for all channels of a block.
#[inline(always)]
pub(super) fn transform<S: Simd, const B: usize, const M: usize>(
    simd: S,
    maps: [&[f32]; M],
    stride: usize,
    to: &mut [f32],
) {
    let tiles = to.as_chunks_mut::<BLOCK>().0.as_chunks_mut::<LINES>().0;
    let columns = stride / 2;
    let mut rows: [[&[[[f32; B]; 2]]; M]; PARTS] = [[&[]; M]; PARTS];
    for (i, rows) in rows.iter_mut().enumerate() {
        for (row, map) in rows.iter_mut().zip(maps) {
            let pixels = map[i * stride * B..][..stride * B].as_chunks::<B>().0;
            *row = &pixels.as_chunks::<2>().0[..columns];
        }
    }
    let (mut one, mut two) = pair(simd, &rows, 0);
    for (x, tile) in (1..columns).zip(tiles) {
        let (three, four) = pair(simd, &rows, x);
        for row in 0..PARTS {
            let made = inputs(simd, [one[row], two[row], three[row], four[row]]);
            for column in 0..PARTS {
                store::<S, 1>(&mut tile[row * PARTS + column], [made[column]]);
            }
        }
        (one, two) = (three, four);
    }
}

/// What two columns of a tile become, of a pair of pixels of each row.
#[inline(always)]
fn pair<S: Simd, const B: usize, const M: usize>(
    simd: S,
    rows: &[[&[[[f32; B]; 2]]; M]; PARTS],
    x: usize,
) -> ([S::f32s; PARTS], [S::f32s; PARTS]) {
    let (mut left, mut right) = ([simd.splat_f32s(0.0); PARTS], [simd.splat_f32s(0.0); PARTS]);
    for i in 0..PARTS {
        let (mut ones, mut twos) = ([&[0.0; B]; M], [&[0.0; B]; M]);
        for m in 0..M {
            [ones[m], twos[m]] = rows[i][m][x].each_ref();
        }
        left[i] = vector(simd, ones);
        right[i] = vector(simd, twos);
    }
    (inputs(simd, left), inputs(simd, right))
}

/// The channels of a pixel, out of `M` blocks, or the first ones of a block.
#[inline(always)]
fn vector<S: Simd, const B: usize, const M: usize>(simd: S, parts: [&[f32; B]; M]) -> S::f32s {
    if M == 1 {
        return load::<S, 1>(simd, parts[0])[0];
    }
    let mut floats = [[0.0; B]; M];
    for m in 0..M {
        floats[m] = *parts[m];
    }
    load::<S, 1>(simd, floats.as_flattened())[0]
}

/// Of sums [tiles][products][outputs] of some rows of a map that is `size` pixels wide, makes [pixels][outputs].
#[inline(always)]
pub(super) fn finish<S: Simd, const N: usize>(
    simd: S,
    size: usize,
    sums: &[[[S::f32s; N]; SQUARE]],
    to: &mut [[S::f32s; N]],
) {
    for (sums, rows) in sums.chunks(size.div_ceil(2)).zip(to.chunks_exact_mut(2 * size)) {
        let (above, below) = rows.split_at_mut(size);
        for ((sums, above), below) in sums.iter().zip(above.chunks_mut(2)).zip(below.chunks_mut(2)) {
            for n in 0..N {
                let (mut upper, mut lower) = ([simd.splat_f32s(0.0); PARTS], [simd.splat_f32s(0.0); PARTS]);
                for column in 0..PARTS {
                    let mut m = [simd.splat_f32s(0.0); PARTS];
                    for row in 0..PARTS {
                        m[row] = sums[row * PARTS + column][n];
                    }
                    [upper[column], lower[column]] = outputs(simd, m);
                }
                for (to, row) in [(&mut *above, upper), (&mut *below, lower)] {
                    let [left, right] = outputs(simd, row);
                    to[0][n] = left;
                    // The last column may be odd.
                    if let Some(to) = to.get_mut(1) {
                        to[n] = right;
                    }
                }
            }
        }
    }
}
