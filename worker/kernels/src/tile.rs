//! Tiles of results that stay in registers while a sum runs. Loads, stores and sums of vectors of pixels.

use pulp::Simd;

/// Vectors of pixels in a tile.
pub const VECTORS: usize = 2;

/// Rows of a tile where a CPU has 32 vector registers; half of that where it has 16.
pub const ROWS: usize = 8;

/// Pixels of a tile.
#[inline(always)]
pub fn pixels<S: Simd>() -> usize {
    VECTORS * S::F32_LANES
}

/// Calls `each` with the first row and the sums of each tile of rows: row r holds Σ_k weights[k][r] · panel[index[k]].
#[inline(always)]
pub fn rows<S: Simd>(
    simd: S,
    weights: &[[f32; ROWS]],
    index: &[u32],
    panel: &[[S::f32s; VECTORS]],
    mut each: impl FnMut(usize, &[[S::f32s; VECTORS]]),
) {
    if S::REGISTER_COUNT >= 32 {
        each(0, &sums::<S, ROWS>(simd, weights, 0, index, panel));
    } else {
        each(0, &sums::<S, { ROWS / 2 }>(simd, weights, 0, index, panel));
        each(ROWS / 2, &sums::<S, { ROWS / 2 }>(simd, weights, ROWS / 2, index, panel));
    }
}

#[inline(always)]
fn sums<S: Simd, const R: usize>(
    simd: S,
    weights: &[[f32; ROWS]],
    first: usize,
    index: &[u32],
    panel: &[[S::f32s; VECTORS]],
) -> [[S::f32s; VECTORS]; R] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; R];
    for (weights, &input) in weights.iter().zip(index) {
        let pixels = &panel[input as usize];
        for r in 0..R {
            let weight = simd.splat_f32s(weights[first + r]);
            for v in 0..VECTORS {
                sums[r][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[r][v]);
            }
        }
    }
    sums
}

/// A vector from `at` on; 0 beyond the end.
#[inline(always)]
pub fn load<S: Simd>(simd: S, from: &[f32], at: usize) -> S::f32s {
    match from.get(at..at + S::F32_LANES) {
        Some(whole) => S::as_simd_f32s(whole).0[0],
        None => simd.partial_load_f32s(from.get(at..).unwrap_or(&[])),
    }
}

/// Writes a vector from `at` on, up to the end.
#[inline(always)]
pub fn store<S: Simd>(simd: S, to: &mut [f32], at: usize, vector: S::f32s) {
    match to.get_mut(at..at + S::F32_LANES) {
        Some(whole) => S::as_mut_simd_f32s(whole).0[0] = vector,
        None => {
            if let Some(rest) = to.get_mut(at..) {
                simd.partial_store_f32s(rest, vector);
            }
        }
    }
}

/// The vectors of a buffer, by tiles.
#[inline(always)]
pub fn tiles<S: Simd>(buffer: &[f32]) -> &[[S::f32s; VECTORS]] {
    S::as_simd_f32s(buffer).0.as_chunks().0
}

/// The same, to be written.
#[inline(always)]
pub fn tiles_mut<S: Simd>(buffer: &mut [f32]) -> &mut [[S::f32s; VECTORS]] {
    S::as_mut_simd_f32s(buffer).0.as_chunks_mut().0
}

/// At least so many floats; what was there is of no matter.
pub fn room(buffer: &mut Vec<f32>, floats: usize) -> &mut [f32] {
    if buffer.len() < floats {
        buffer.resize(floats, 0.0);
    }
    &mut buffer[..floats]
}
