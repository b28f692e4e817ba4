//! Tiles of sums that stay in registers, and how many vectors go into one.

use pulp::Simd;

#[cfg(target_arch = "x86_64")]
use crate::assembly;
use crate::rows::Window;

/// Cuts `vectors` into stretches of at most `most`, as even as can be: (first, how many).
#[inline(always)]
pub(crate) fn stretches(vectors: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = vectors.div_ceil(most);
    (0..count).map(move |i| {
        let (start, end) = (vectors * i / count, vectors * (i + 1) / count);
        (start, end - start)
    })
}

/// Those stretches, but those of the same length as one: (first, length, how many).
#[inline(always)]
pub(crate) fn runs(vectors: usize, most: usize) -> [(usize, usize, usize); 2] {
    let count = vectors.div_ceil(most);
    let (length, longer) = (vectors / count.max(1), vectors % count.max(1));
    [(0, length + 1, longer), (longer * (length + 1), length, count - longer)]
}

/// What is done to an input before it is multiplied.
pub(crate) mod clip {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// Its maximum with a limit is taken.
    pub const RISING: u8 = 1;
    /// Its minimum with a limit is taken.
    pub const FALLING: u8 = 2;
    /// Besides, what follows the vectors is brought closer.
    pub const AHEAD: u8 = 4;
    /// Besides, the clipped vectors are kept, for [`super::add_kept`].
    pub const KEEP: u8 = 8;
}

/// Adds Σ over inputs of weights[input][row] · clipped input[vector], for `R` rows from `FIRST` on of a tile of `HEIGHT`. `limits`: one for
/// each input, unless `CLIP` is NONE. `kept`: where to KEEP the vectors of each.
#[inline(always)]
pub(crate) fn add<
    S: Simd,
    const R: usize,
    const HEIGHT: usize,
    const FIRST: usize,
    const V: usize,
    const CLIP: u8,
>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    inputs: Window<'_>,
    limits: &[f32],
    kept: &mut [[S::f32s; V]],
    weights: &[[f32; HEIGHT]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::planes::add::<S, R, HEIGHT, FIRST, V, CLIP>(sums, inputs, limits, kept, weights) {
        return;
    }
    let kind = CLIP & !(clip::AHEAD | clip::KEEP);
    let limits = if kind == clip::NONE { limits } else { &limits[..inputs.count()] };
    let weights = &weights[..inputs.count()];
    let kept = if CLIP & clip::KEEP == 0 { kept } else { &mut kept[..inputs.count()] };
    for (k, mut pixels) in inputs.vectors::<S, V>(simd).enumerate() {
        if CLIP & clip::AHEAD != 0 {
            for v in 0..V {
                inputs.ahead(k, (V + v) * S::F32_LANES);
            }
        }
        if kind != clip::NONE {
            let limit = simd.splat_f32s(limits[k]);
            for v in 0..V {
                pixels[v] = if kind == clip::RISING {
                    simd.max_f32s(pixels[v], limit)
                } else {
                    simd.min_f32s(pixels[v], limit)
                };
            }
        }
        if CLIP & clip::KEEP != 0 {
            kept[k] = pixels;
        }
        for r in 0..R {
            let weight = simd.splat_f32s(weights[k][FIRST + r]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[r][v]);
            }
        }
    }
}

/// Adds Σ over inputs of weights[input][row] · kept[input][vector], for `R` rows from `FIRST` on of a tile of `HEIGHT`.
#[inline(always)]
pub(crate) fn add_kept<S: Simd, const R: usize, const HEIGHT: usize, const FIRST: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    kept: &[[S::f32s; V]],
    weights: &[[f32; HEIGHT]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::planes::add_kept::<S, R, HEIGHT, FIRST, V>(sums, kept, weights) {
        return;
    }
    for (pixels, weights) in kept.iter().zip(weights) {
        for r in 0..R {
            let weight = simd.splat_f32s(weights[FIRST + r]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[r][v]);
            }
        }
    }
}

/// Adds Σ over planes and taps of weights[plane][tap][output] · plane[vector + tap], for `V` vectors of `O` outputs; `stride`: floats from
/// row to row of a plane, without an end between them.
#[inline(always)]
pub(crate) fn add_taps<S: Simd, const O: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; O],
    planes: Window<'_>,
    stride: usize,
    weights: &[[[f32; O]; 9]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::taps::add::<S, O, V>(sums, planes, stride, weights) {
        return;
    }
    // Their own, so that no sum is written before all is added.
    let mut own = *sums;
    for (k, weights) in weights[..planes.count()].iter().enumerate() {
        let plane = planes.row(k, 2 * stride + 2 + V * S::F32_LANES);
        for (tap, weights) in weights.iter().enumerate() {
            let pixels = load::<S, V>(simd, &plane[tap / 3 * stride + tap % 3..]);
            for o in 0..O {
                let weight = simd.splat_f32s(weights[o]);
                for v in 0..V {
                    own[o][v] = simd.mul_add_e_f32s(weight, pixels[v], own[o][v]);
                }
            }
        }
    }
    *sums = own;
}

/// Adds Σ over planes and taps of weights[plane][column][row][output] · plane[row + tap], for a vector of each of `R` rows of `O` outputs;
/// `stride`: floats from row to row of a plane. `masks`: with `MASKED`, of what each column of taps
/// sees; the middle one sees all.
#[inline(always)]
pub(crate) fn add_rows<S: Simd, const O: usize, const R: usize, const MASKED: bool>(
    simd: S,
    sums: &mut [[S::f32s; R]; O],
    planes: Window<'_>,
    stride: usize,
    masks: &[S::f32s; 3],
    weights: &[[[[f32; O]; 3]; 3]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::rows::add::<S, O, R, MASKED>(sums, planes, stride, masks, weights) {
        return;
    }
    // A loop over planes and columns: the weights of three columns would not stay in registers.
    let (mut k, mut x) = (0, 0);
    for weights in weights[..planes.count()].as_flattened() {
        let plane = &planes.row(k, (R + 1) * stride + 2 + S::F32_LANES)[x..];
        let mask = masks[x];
        // Written out, so that every index is known and no sum leaves its register.
        macro_rules! row {
            ($($i:literal)*) => {$(
                if $i < R + 2 {
                    let [pixels] = load::<S, 1>(simd, &plane[$i * stride..]);
                    let pixels = if MASKED { simd.and_f32s(mask, pixels) } else { pixels };
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
        row!(0 1 2 3 4 5 6 7 8 9);
        (k, x) = if x == 2 { (k + 1, 0) } else { (k, x + 1) };
    }
}

/// Adds Σ over inputs of weights[input][vector] · input[pixel], for `X` pixels, `STRIDE` floats from each to the next, by `N` vectors.
#[inline(always)]
pub(crate) fn outer<S: Simd, const X: usize, const N: usize, const STRIDE: usize>(
    simd: S,
    sums: &mut [[S::f32s; N]; X],
    inputs: Window<'_>,
    weights: &[[S::f32s; N]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::channels::outer::<S, X, N, STRIDE>(sums, inputs, weights) {
        return;
    }
    // Its own, so that no sum is written before all is added.
    let mut own = *sums;
    for (k, weights) in weights[..inputs.count()].iter().enumerate() {
        let pixels = inputs.row(k, (X - 1) * STRIDE + 1);
        for x in 0..X {
            let pixel = simd.splat_f32s(pixels[x * STRIDE]);
            for n in 0..N {
                own[x][n] = simd.mul_add_e_f32s(pixel, weights[n], own[x][n]);
            }
        }
    }
    *sums = own;
}

/// Adds Σ over inputs of weights[input][vector] · input[pixel], for `X` pixels from `first` on of a panel, by `N` vectors.
#[inline(always)]
pub(crate) fn outer_panel<S: Simd, const X: usize, const N: usize, const ROW: usize>(
    simd: S,
    sums: &mut [[S::f32s; N]; X],
    panel: &[[f32; ROW]],
    first: usize,
    weights: &[[S::f32s; N]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::panel::outer::<S, X, N, ROW>(sums, panel, first, weights) {
        return;
    }
    assert!(first + X <= ROW);
    let mut own = *sums;
    for (pixels, weights) in panel.iter().zip(weights) {
        let pixels = &pixels[first..first + X];
        for x in 0..X {
            let pixel = simd.splat_f32s(pixels[x]);
            for n in 0..N {
                own[x][n] = simd.mul_add_e_f32s(pixel, weights[n], own[x][n]);
            }
        }
    }
    *sums = own;
}

/// Adds Σ over inputs of weights[input][vector] · clipped input[pixel], for `X` pixels by `N` vectors; `limits`: one for each input, of
/// which the first `rising` are held from below, the others from above.
#[inline(always)]
pub(crate) fn outer_clipped<S: Simd, const X: usize, const N: usize>(
    simd: S,
    sums: &mut [[S::f32s; N]; X],
    inputs: Window<'_>,
    rising: usize,
    limits: &[f32],
    weights: &[[S::f32s; N]],
) {
    #[cfg(target_arch = "x86_64")]
    if assembly::clipped::outer::<S, X, N>(sums, inputs, rising, limits, weights) {
        return;
    }
    for (k, (weights, &limit)) in weights[..inputs.count()].iter().zip(limits).enumerate() {
        let pixels = inputs.row(k, X);
        for x in 0..X {
            let pixel = if k < rising { pixels[x].max(limit) } else { pixels[x].min(limit) };
            let pixel = simd.splat_f32s(pixel);
            for n in 0..N {
                sums[x][n] = simd.mul_add_e_f32s(pixel, weights[n], sums[x][n]);
            }
        }
    }
}

/// `V` vectors from the beginning of a slice.
#[inline(always)]
pub(crate) fn load<S: Simd, const V: usize>(simd: S, from: &[f32]) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    let (whole, _) = S::as_simd_f32s(&from[..V * S::F32_LANES]);
    vectors.copy_from_slice(&whole[..V]);
    vectors
}

/// Puts `V` vectors to the beginning of a slice.
#[inline(always)]
pub(crate) fn store<S: Simd, const V: usize>(to: &mut [f32], vectors: [S::f32s; V]) {
    let (whole, _) = S::as_mut_simd_f32s(&mut to[..V * S::F32_LANES]);
    whole[..V].copy_from_slice(&vectors);
}
