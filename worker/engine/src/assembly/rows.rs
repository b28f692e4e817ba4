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
/// theirs; else says that they are not. `stride`: floats from row to row of a plane. `masks`: with `MASKED`, of what the left and the right
/// column see.
#[inline(always)]
pub(crate) fn add<S: Simd, const O: usize, const R: usize, const MASKED: bool>(
    sums: &mut [[S::f32s; R]; O],
    planes: Window<'_>,
    stride: usize,
    masks: &[S::f32s; 2],
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

/// Loads a row of inputs, as a column sees it, and adds what it is worth.
macro_rules! row {
    ([$word:literal $($mask:tt)*] $column:literal, $row:literal, $($line:literal)*) => {
        concat!(
            row!(@load [$word $($mask)*] concat!($word, " ptr [", $row, " + ", $column, "]")),
            $($line, "\n",)*
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

/// The broadcast of a weight.
macro_rules! weight {
    ($weight:literal, $offset:literal) => {
        concat!("vbroadcastss {", $weight, "}, dword ptr [{weights} + ", $offset, "]\n")
    };
}

/// What a column of taps adds to eight rows of an output. `$u`, `$v`, `$w`: where its weights lie.
macro_rules! one {
    ($mask:tt $x:literal, $u:literal $v:literal $w:literal) => {
        concat!(
            weight!("u", $u),
            weight!("v", $v),
            weight!("w", $w),
            row!($mask $x, "{row}", "vfmadd231ps {a}, {u}, {x}"),
            row!($mask $x, "{row} + {stride}", "vfmadd231ps {a}, {v}, {x}" "vfmadd231ps {b}, {u}, {x}"),
            row!($mask $x, "{row} + 2*{stride}",
                "vfmadd231ps {a}, {w}, {x}" "vfmadd231ps {b}, {v}, {x}" "vfmadd231ps {c}, {u}, {x}"),
            row!($mask $x, "{row3}",
                "vfmadd231ps {b}, {w}, {x}" "vfmadd231ps {c}, {v}, {x}" "vfmadd231ps {d}, {u}, {x}"),
            row!($mask $x, "{row3} + {stride}",
                "vfmadd231ps {c}, {w}, {x}" "vfmadd231ps {d}, {v}, {x}" "vfmadd231ps {e}, {u}, {x}"),
            row!($mask $x, "{row3} + 2*{stride}",
                "vfmadd231ps {d}, {w}, {x}" "vfmadd231ps {e}, {v}, {x}" "vfmadd231ps {f}, {u}, {x}"),
            row!($mask $x, "{row6}",
                "vfmadd231ps {e}, {w}, {x}" "vfmadd231ps {f}, {v}, {x}" "vfmadd231ps {g}, {u}, {x}"),
            row!($mask $x, "{row6} + {stride}",
                "vfmadd231ps {f}, {w}, {x}" "vfmadd231ps {g}, {v}, {x}" "vfmadd231ps {h}, {u}, {x}"),
            row!($mask $x, "{row6} + 2*{stride}", "vfmadd231ps {g}, {w}, {x}" "vfmadd231ps {h}, {v}, {x}"),
            row!($mask $x, "{row6} + {stride3}", "vfmadd231ps {h}, {w}, {x}"),
        )
    };
}

/// What a column of taps adds to four rows of two outputs.
macro_rules! two {
    ($mask:tt $x:literal, $u0:literal $u1:literal $v0:literal $v1:literal $w0:literal $w1:literal) => {
        concat!(
            weight!("u0", $u0),
            weight!("u1", $u1),
            weight!("v0", $v0),
            weight!("v1", $v1),
            weight!("w0", $w0),
            weight!("w1", $w1),
            row!($mask $x, "{row}", "vfmadd231ps {a}, {u0}, {x}" "vfmadd231ps {e}, {u1}, {x}"),
            row!($mask $x, "{row} + {stride}",
                "vfmadd231ps {a}, {v0}, {x}" "vfmadd231ps {b}, {u0}, {x}"
                "vfmadd231ps {e}, {v1}, {x}" "vfmadd231ps {f}, {u1}, {x}"),
            row!($mask $x, "{row} + 2*{stride}",
                "vfmadd231ps {a}, {w0}, {x}" "vfmadd231ps {b}, {v0}, {x}" "vfmadd231ps {c}, {u0}, {x}"
                "vfmadd231ps {e}, {w1}, {x}" "vfmadd231ps {f}, {v1}, {x}" "vfmadd231ps {g}, {u1}, {x}"),
            row!($mask $x, "{row3}",
                "vfmadd231ps {b}, {w0}, {x}" "vfmadd231ps {c}, {v0}, {x}" "vfmadd231ps {d}, {u0}, {x}"
                "vfmadd231ps {f}, {w1}, {x}" "vfmadd231ps {g}, {v1}, {x}" "vfmadd231ps {h}, {u1}, {x}"),
            row!($mask $x, "{row3} + {stride}",
                "vfmadd231ps {c}, {w0}, {x}" "vfmadd231ps {d}, {v0}, {x}"
                "vfmadd231ps {g}, {w1}, {x}" "vfmadd231ps {h}, {v1}, {x}"),
            row!($mask $x, "{row3} + 2*{stride}", "vfmadd231ps {d}, {w0}, {x}" "vfmadd231ps {h}, {w1}, {x}"),
        )
    };
}

/// What a column of taps adds to eight rows of two outputs.
macro_rules! two_of_eight {
    ($mask:tt $x:literal, $u0:literal $u1:literal $v0:literal $v1:literal $w0:literal $w1:literal) => {
        concat!(
            weight!("u0", $u0),
            weight!("u1", $u1),
            weight!("v0", $v0),
            weight!("v1", $v1),
            weight!("w0", $w0),
            weight!("w1", $w1),
            row!($mask $x, "{row}", "vfmadd231ps {a}, {u0}, {x}" "vfmadd231ps {i}, {u1}, {x}"),
            row!($mask $x, "{row} + {stride}",
                "vfmadd231ps {a}, {v0}, {x}" "vfmadd231ps {b}, {u0}, {x}"
                "vfmadd231ps {i}, {v1}, {x}" "vfmadd231ps {j}, {u1}, {x}"),
            row!($mask $x, "{row} + 2*{stride}",
                "vfmadd231ps {a}, {w0}, {x}" "vfmadd231ps {b}, {v0}, {x}" "vfmadd231ps {c}, {u0}, {x}"
                "vfmadd231ps {i}, {w1}, {x}" "vfmadd231ps {j}, {v1}, {x}" "vfmadd231ps {k}, {u1}, {x}"),
            row!($mask $x, "{row3}",
                "vfmadd231ps {b}, {w0}, {x}" "vfmadd231ps {c}, {v0}, {x}" "vfmadd231ps {d}, {u0}, {x}"
                "vfmadd231ps {j}, {w1}, {x}" "vfmadd231ps {k}, {v1}, {x}" "vfmadd231ps {l}, {u1}, {x}"),
            row!($mask $x, "{row3} + {stride}",
                "vfmadd231ps {c}, {w0}, {x}" "vfmadd231ps {d}, {v0}, {x}" "vfmadd231ps {e}, {u0}, {x}"
                "vfmadd231ps {k}, {w1}, {x}" "vfmadd231ps {l}, {v1}, {x}" "vfmadd231ps {m}, {u1}, {x}"),
            row!($mask $x, "{row3} + 2*{stride}",
                "vfmadd231ps {d}, {w0}, {x}" "vfmadd231ps {e}, {v0}, {x}" "vfmadd231ps {f}, {u0}, {x}"
                "vfmadd231ps {l}, {w1}, {x}" "vfmadd231ps {m}, {v1}, {x}" "vfmadd231ps {n}, {u1}, {x}"),
            row!($mask $x, "{row6}",
                "vfmadd231ps {e}, {w0}, {x}" "vfmadd231ps {f}, {v0}, {x}" "vfmadd231ps {g}, {u0}, {x}"
                "vfmadd231ps {m}, {w1}, {x}" "vfmadd231ps {n}, {v1}, {x}" "vfmadd231ps {o}, {u1}, {x}"),
            row!($mask $x, "{row6} + {stride}",
                "vfmadd231ps {f}, {w0}, {x}" "vfmadd231ps {g}, {v0}, {x}" "vfmadd231ps {h}, {u0}, {x}"
                "vfmadd231ps {n}, {w1}, {x}" "vfmadd231ps {o}, {v1}, {x}" "vfmadd231ps {p}, {u1}, {x}"),
            row!($mask $x, "{row6} + 2*{stride}",
                "vfmadd231ps {g}, {w0}, {x}" "vfmadd231ps {h}, {v0}, {x}"
                "vfmadd231ps {o}, {w1}, {x}" "vfmadd231ps {p}, {v1}, {x}"),
            row!($mask $x, "{row6} + {stride3}", "vfmadd231ps {h}, {w0}, {x}" "vfmadd231ps {p}, {w1}, {x}"),
        )
    };
}

/// Kernels of a size, without masks and with them. Of each row of inputs that a tile sees, three vectors may be read, a float apart: the
/// first row begins `at` bytes behind each start, of which there is one at least, and the next ones `stride` bytes further each. For each
/// start there are 9 weights of each output.
macro_rules! kernels {
    (
        $plain:ident $masked:ident, $feature:literal, $class:ident $vector:ident $word:literal,
        $left:tt $right:tt [$($mask:ident = $mask_class:ident $mask_value:expr),*],
        $column:ident, $bytes:literal, $weights:tt, $sums:tt,
        [$($first:literal)*] [$($second:literal)*] [$($third:literal)*]
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
                    $column!([$word] 0, $($first)*),
                    $column!([$word] 4, $($second)*),
                    $column!([$word] 8, $($third)*),
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
            masks: &[$vector; 2],
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe {
                planes!($class $vector, sums, starts, at, stride, weights, $bytes, $weights, $sums, [
                    $column!([$word $left] 0, $($first)*),
                    $column!([$word] 4, $($second)*),
                    $column!([$word $right] 8, $($third)*),
                ] $(, $mask = $mask_class $mask_value(masks))*);
            }
        }
    };
}

/// A bit for each float of a mask.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn bits<const MASK: usize>(masks: &[__m512; 2]) -> u16 {
    _mm512_movepi32_mask(_mm512_castps_si512(masks[MASK]))
}

/// How many sums there are.
macro_rules! count {
    ([$($sum:ident $number:literal)*]) => { [$($number),*].len() };
}

kernels!(
    one one_masked, "avx2,fma", ymm_reg __m256 "ymmword", 0 32 [masks = reg std::ptr::from_ref],
    one, 36, [u v w], [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7],
    [0 4 8] [12 16 20] [24 28 32]
);
kernels!(
    two two_masked, "avx2,fma", ymm_reg __m256 "ymmword", 0 32 [masks = reg std::ptr::from_ref],
    two, 72, [u0 u1 v0 v1 w0 w1], [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7],
    [0 4 8 12 16 20] [24 28 32 36 40 44] [48 52 56 60 64 68]
);
kernels!(
    wide_one wide_one_masked, "avx512f,avx512dq", zmm_reg __m512 "zmmword",
    left right [left = kreg bits::<0>, right = kreg bits::<1>],
    one, 36, [u v w], [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7],
    [0 4 8] [12 16 20] [24 28 32]
);
kernels!(
    wide_two wide_two_masked, "avx512f,avx512dq", zmm_reg __m512 "zmmword",
    left right [left = kreg bits::<0>, right = kreg bits::<1>],
    two_of_eight, 72, [u0 u1 v0 v1 w0 w1],
    [a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7 i 8 j 9 k 10 l 11 m 12 n 13 o 14 p 15],
    [0 4 8 12 16 20] [24 28 32 36 40 44] [48 52 56 60 64 68]
);
