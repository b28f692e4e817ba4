//! What the 3×3 kernel of rows adds of planes: 8 rows of an output, 4 rows of two (AVX2) or 8 rows of two (AVX-512). Each row of inputs is
//! loaded three times, a pixel further each time, and each time serves the three rows of outputs that see it. The three columns of taps
//! follow one another: what the first has brought, the others find in the nearest cache.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::{__m256, __m512, _mm512_castps_si512, _mm512_movepi32_mask};
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::{V3, V4};

use crate::rows::Window;

/// Adds Σ over planes and taps of weights[plane][column][row][output] · rows[plane][row + tap], if these are instructions and a size of
/// theirs; else says that they are not. `stride`: floats from row to row of a plane. `masks`: with `MASKED`, of what each column sees;
/// the middle one sees all.
#[inline(always)]
pub(crate) fn add<S: Simd, const O: usize, const R: usize, const MASKED: bool>(
    sums: &mut [[S::f32s; R]; O],
    planes: Window<'_>,
    stride: usize,
    masks: &[S::f32s; 3],
    weights: &[[[[f32; O]; 3]; 3]],
) -> bool {
    let wide = TypeId::of::<S>() == TypeId::of::<V4>();
    let fits = match (O, R) {
        (1, 8) => wide || TypeId::of::<S>() == TypeId::of::<V3>(),
        (2, 4) => TypeId::of::<S>() == TypeId::of::<V3>(),
        (2, 8) => wide,
        _ => false,
    };
    if !fits {
        return false;
    }
    let count = planes.count();
    if count == 0 {
        return true;
    }
    let (starts, at) = planes.starts((R + 1) * stride + 2 + S::F32_LANES);
    assert!(weights.len() >= count);
    let (at, stride, weights) = (4 * at, 4 * stride, weights.as_ptr().cast());
    // SAFETY: O and R are those of the kernels, and vectors of 8 or 16 floats are `__m256`s or `__m512`s by another name. A V3 exists only
    // where the CPU has AVX2 and FMA, a V4 only where it has AVX-512F and DQ. From each start, three vectors may be read, a float apart, of
    // each of R + 2 rows at `at`; for each there are 9 weights of O.
    macro_rules! run {
        ($vector:ty, $sums:literal, $plain:ident, $masked:ident) => {
            unsafe {
                let mut tile: [$vector; $sums] = transmute_copy(sums);
                if MASKED {
                    let masks = transmute_copy(masks);
                    $masked(&mut tile, starts, at, stride, &masks, weights);
                } else {
                    $plain(&mut tile, starts, at, stride, weights);
                }
                *sums = transmute_copy(&tile);
            }
        };
    }
    match (O, wide) {
        (1, false) => run!(__m256, 8, one, one_masked),
        (1, true) => run!(__m512, 8, wide_one, wide_one_masked),
        (_, false) => run!(__m256, 8, two, two_masked),
        (_, true) => run!(__m512, 16, wide_two, wide_two_masked),
    }
    true
}

/// Loads a row of inputs, as a column sees it, and adds what it is worth: to each sum, times a weight.
macro_rules! row {
    ([$word:literal $($mask:tt)*] $column:literal, $row:literal, $($sum:ident $weight:ident),*) => {
        concat!(
            row!(@load [$word $($mask)*] concat!($word, " ptr [", $row, " + ", $column, "]")),
            $("vfmadd231ps {", stringify!($sum), "}, {", stringify!($weight), "}, {x}\n",)*
        )
    };
    (@load [$word:literal] $from:expr) => { concat!("vmovups {x}, ", $from, "\n") };
    (@load [$word:literal $mask:literal] $from:expr) => {
        concat!("vmovups {x}, ", $word, " ptr [{masks} + ", $mask, "]\nvandps {x}, {x}, ", $from, "\n")
    };
    // AVX-512 has registers for masks, which take nothing from the arithmetic.
    (@load [$word:literal $mask:ident] $from:expr) => {
        concat!("vmovups {x} {{{", stringify!($mask), "}}}{{z}}, ", $from, "\n")
    };
}

/// The loop over planes, of what each column of taps adds.
macro_rules! planes {
    (
        $class:ident $vector:ident, $sums:ident, $starts:ident, $at:ident, $stride:ident, $weights:ident, $bytes:literal,
        [$($weight:ident)*], [$($sum:ident $number:literal)*], [$($column:expr),* $(,)?]
        $(, $mask:ident = $mask_class:ident $mask_value:expr)*
    ) => {{
        // A register of this class that nobody wants needs a type, thus a name.
        let x: $vector;
        $(let $weight: $vector;)*
        asm!(
            "2:",
            "mov {row}, qword ptr [{starts}]",
            "add {row}, {at}",
            // Three rows on, and six.
            "lea {row3}, [{row} + {stride3}]",
            "lea {row6}, [{row} + 2*{stride3}]",
            $($column,)*
            "add {starts}, 8",
            concat!("add {weights}, ", $bytes),
            "dec {count}",
            "jnz 2b",
            row = out(reg) _,
            row3 = out(reg) _,
            row6 = out(reg) _,
            starts = inout(reg) $starts.as_ptr() => _,
            weights = inout(reg) $weights => _,
            count = inout(reg) $starts.len() => _,
            at = in(reg) $at,
            stride = in(reg) $stride,
            stride3 = in(reg) 3 * $stride,
            $($mask = in($mask_class) $mask_value,)*
            x = out($class) x,
            $($weight = out($class) $weight,)*
            $($sum = inout($class) $sums[$number],)*
            options(nostack, readonly),
        );
        let _ = (x, $($weight,)*);
    }};
}

/// The broadcasts of the weights of a column of taps, from `$first` bytes on, each at its own.
macro_rules! weights {
    ($first:literal, $($weight:ident $at:literal),*) => {
        concat!($(
            "vbroadcastss {", stringify!($weight), "}, dword ptr [{weights} + ", $first, " + ", $at, "]\n",
        )*)
    };
}

/// What a column of taps adds to eight rows of an output: its inputs lie `$x` bytes on, its weights `$first`.
macro_rules! one {
    ($mask:tt $x:literal $first:literal) => {
        concat!(
            weights!($first, u 0, v 4, w 8),
            row!($mask $x, "{row}", a u),
            row!($mask $x, "{row} + {stride}", a v, b u),
            row!($mask $x, "{row} + 2*{stride}", a w, b v, c u),
            row!($mask $x, "{row3}", b w, c v, d u),
            row!($mask $x, "{row3} + {stride}", c w, d v, e u),
            row!($mask $x, "{row3} + 2*{stride}", d w, e v, f u),
            row!($mask $x, "{row6}", e w, f v, g u),
            row!($mask $x, "{row6} + {stride}", f w, g v, h u),
            row!($mask $x, "{row6} + 2*{stride}", g w, h v),
            row!($mask $x, "{row6} + {stride3}", h w),
        )
    };
}

/// What a column of taps adds to four rows of two outputs.
macro_rules! two {
    ($mask:tt $x:literal $first:literal) => {
        concat!(
            weights!($first, u0 0, u1 4, v0 8, v1 12, w0 16, w1 20),
            row!($mask $x, "{row}", a u0, e u1),
            row!($mask $x, "{row} + {stride}", a v0, b u0, e v1, f u1),
            row!($mask $x, "{row} + 2*{stride}", a w0, b v0, c u0, e w1, f v1, g u1),
            row!($mask $x, "{row3}", b w0, c v0, d u0, f w1, g v1, h u1),
            row!($mask $x, "{row3} + {stride}", c w0, d v0, g w1, h v1),
            row!($mask $x, "{row3} + 2*{stride}", d w0, h w1),
        )
    };
}

/// What a column of taps adds to eight rows of two outputs.
macro_rules! two_of_eight {
    ($mask:tt $x:literal $first:literal) => {
        concat!(
            weights!($first, u0 0, u1 4, v0 8, v1 12, w0 16, w1 20),
            row!($mask $x, "{row}", a u0, i u1),
            row!($mask $x, "{row} + {stride}", a v0, b u0, i v1, j u1),
            row!($mask $x, "{row} + 2*{stride}", a w0, b v0, c u0, i w1, j v1, k u1),
            row!($mask $x, "{row3}", b w0, c v0, d u0, j w1, k v1, l u1),
            row!($mask $x, "{row3} + {stride}", c w0, d v0, e u0, k w1, l v1, m u1),
            row!($mask $x, "{row3} + 2*{stride}", d w0, e v0, f u0, l w1, m v1, n u1),
            row!($mask $x, "{row6}", e w0, f v0, g u0, m w1, n v1, o u1),
            row!($mask $x, "{row6} + {stride}", f w0, g v0, h u0, n w1, o v1, p u1),
            row!($mask $x, "{row6} + 2*{stride}", g w0, h v0, o w1, p v1),
            row!($mask $x, "{row6} + {stride3}", h w0, p w1),
        )
    };
}

/// Kernels of a size, without masks and with them. Of each row of inputs that a tile sees, three vectors may be read, a float apart: the
/// first row begins `at` bytes behind each start, of which there is one at least, and the next ones `stride` bytes further each. For each
/// start there are 9 weights of each output; those of the second and the third column of taps, and the next plane's, lie `$second`,
/// `$third` and `$bytes` bytes on.
macro_rules! kernels {
    (
        $plain:ident $masked:ident, $feature:literal, $class:ident $vector:ident $word:literal,
        $left:tt $right:tt [$($mask:ident = $mask_class:ident $mask_value:expr),*],
        $column:ident, $second:literal $third:literal $bytes:literal, $weights:tt, $sums:tt
    ) => {
        /// # Safety
        /// What `kernels` says.
        #[inline]
        #[target_feature(enable = $feature)]
        unsafe fn $plain(
            sums: &mut [$vector; count!($sums)],
            starts: &[*const f32],
            at: usize,
            stride: usize,
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe {
                planes!($class $vector, sums, starts, at, stride, weights, $bytes, $weights, $sums, [
                    $column!([$word] 0 0),
                    $column!([$word] 4 $second),
                    $column!([$word] 8 $third),
                ]);
            }
        }

        /// # Safety
        /// What `kernels` says.
        #[inline]
        #[target_feature(enable = $feature)]
        unsafe fn $masked(
            sums: &mut [$vector; count!($sums)],
            starts: &[*const f32],
            at: usize,
            stride: usize,
            masks: &[$vector; 3],
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe {
                planes!($class $vector, sums, starts, at, stride, weights, $bytes, $weights, $sums, [
                    $column!([$word $left] 0 0),
                    $column!([$word] 4 $second),
                    $column!([$word $right] 8 $third),
                ] $(, $mask = $mask_class $mask_value(masks))*);
            }
        }
    };
}

/// A bit for each float of a mask.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn bits<const MASK: usize>(masks: &[__m512; 3]) -> u16 {
    _mm512_movepi32_mask(_mm512_castps_si512(masks[MASK]))
}

/// How many sums there are.
macro_rules! count {
    ([$($sum:ident $number:literal)*]) => { [$($number),*].len() };
}

kernels!(
    one one_masked, "avx2,fma", ymm_reg __m256 "ymmword", 0 64 [masks = reg std::ptr::from_ref],
    one, 12 24 36, [u v w], [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7]
);
kernels!(
    two two_masked, "avx2,fma", ymm_reg __m256 "ymmword", 0 64 [masks = reg std::ptr::from_ref],
    two, 24 48 72, [u0 u1 v0 v1 w0 w1], [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7]
);
kernels!(
    wide_one wide_one_masked, "avx512f,avx512dq", zmm_reg __m512 "zmmword",
    left right [left = kreg bits::<0>, right = kreg bits::<2>],
    one, 12 24 36, [u v w], [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7]
);
kernels!(
    wide_two wide_two_masked, "avx512f,avx512dq", zmm_reg __m512 "zmmword",
    left right [left = kreg bits::<0>, right = kreg bits::<2>],
    two_of_eight, 24 48 72, [u0 u1 v0 v1 w0 w1],
    [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7 i 8 j 9 k 10 l 11 m 12 n 13 o 14 p 15]
);
