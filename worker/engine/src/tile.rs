//! Tiles of sums that stay in registers, and how many vectors go into one.

use pulp::Simd;

/// Cuts `vectors` into stretches of at most `most`, as even as can be: (first, how many).
#[inline(always)]
pub(crate) fn stretches(vectors: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = vectors.div_ceil(most);
    (0..count).map(move |i| {
        let (start, end) = (vectors * i / count, vectors * (i + 1) / count);
        (start, end - start)
    })
}

/// bias[row] + Σ over inputs of weights[input][row] · panel[input][vector], for `R` rows from `FIRST` on of a tile of `HEIGHT`.
#[inline(always)]
pub(crate) fn sums<S: Simd, const R: usize, const HEIGHT: usize, const FIRST: usize, const V: usize>(
    simd: S,
    bias: &[f32],
    weights: &[f32],
    panel: &[[S::f32s; V]],
) -> [[S::f32s; V]; R] {
    let bias = &bias[FIRST..][..R];
    let mut sums: [[S::f32s; V]; R] = std::array::from_fn(|r| [simd.splat_f32s(bias[r]); V]);
    for (weights, pixels) in weights.as_chunks::<HEIGHT>().0.iter().zip(panel) {
        for r in 0..R {
            let weight = simd.splat_f32s(weights[FIRST + r]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[r][v]);
            }
        }
    }
    sums
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
