//! The tiles of `tile::outer` for AVX2: 13 pixels by a vector, 7 or 6 by two.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m256;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V3;

use crate::rows::Window;

/// Does what `tile::outer` does, if these are instructions and a size of theirs; else says so.
#[inline(always)]
pub(crate) fn outer<S: Simd, const X: usize, const N: usize, const STRIDE: usize>(
    sums: &mut [[S::f32s; N]; X],
    inputs: Window<'_>,
    weights: &[[S::f32s; N]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V3>() || !matches!((X, N), (13, 1) | (7 | 6, 2)) {
        return false;
    }
    let count = inputs.count();
    if count == 0 {
        return true;
    }
    let (starts, at) = inputs.starts((X - 1) * STRIDE + 1);
    assert!(weights.len() >= count);
    // SAFETY: X and N are those of the kernels, and vectors of 8 floats are `__m256`s by another name. An `S` exists only
    // where the CPU has AVX2 and FMA. From each start, all pixels may be read at `at`; there are as many rows of weights.
    unsafe {
        macro_rules! run {
            ($kernel:ident, $count:literal) => {{
                let mut tile: [__m256; $count] = transmute_copy(sums);
                $kernel::<STRIDE>(&mut tile, starts, 4 * at, weights.as_ptr().cast());
                *sums = transmute_copy(&tile);
            }};
        }
        match (X, N) {
            (13, 1) => run!(outer_13x1, 13),
            (7, 2) => run!(outer_7x2, 14),
            _ => run!(outer_6x2, 12),
        }
    }
    true
}

/// A kernel: its name, the registers that it is made of, the loop's loads of weights, and for each pixel its number and its lines.
macro_rules! kernel {
    (
        $(#[$attribute:meta])*
        $name:ident, $sums:literal, $bytes:literal,
        [$($register:tt $number:tt)*], [$($free:tt)*],
        $weights:expr, $($line:expr),* $(,)?
    ) => {
        $(#[$attribute])*
        #[doc = ""]
        #[doc = " # Safety"]
        #[doc = " From each start, the last pixel may be read `at` bytes on, `STRIDE` floats from pixel to pixel; for each start"]
        #[doc = " there is a row of weights. There is at least one."]
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name<const STRIDE: usize>(
            sums: &mut [__m256; $sums],
            starts: &[*const f32],
            at: usize,
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "2:",
                    "mov {start}, qword ptr [{starts}]",
                    "add {start}, {at}",
                    $weights,
                    $($line,)*
                    "add {starts}, 8",
                    concat!("add {weights}, ", $bytes),
                    "dec {count}",
                    "jnz 2b",
                    start = out(reg) _,
                    starts = inout(reg) starts.as_ptr() => _,
                    weights = inout(reg) weights => _,
                    count = inout(reg) starts.len() => _,
                    at = in(reg) at,
                    stride = const 4 * STRIDE,
                    $(inout($register) sums[$number],)*
                    $(out($free) _,)*
                    options(nostack, readonly),
                );
            }
        }
    };
}

/// Pixel `x` times one vector of weights, which lies in ymm15.
macro_rules! by_one {
    ($x:literal) => {
        concat!(
            "vbroadcastss ymm14, dword ptr [{start} + ",
            $x,
            "*{stride}]\n",
            "vfmadd231ps ymm",
            $x,
            ", ymm14, ymm15"
        )
    };
}

/// Pixel `x` times two vectors of weights, of which one lies in ymm15, the other in memory.
macro_rules! by_two {
    ($x:literal, $first:literal, $second:literal) => {
        concat!(
            "vbroadcastss ymm14, dword ptr [{start} + ",
            $x,
            "*{stride}]\n",
            "vfmadd231ps ymm",
            $first,
            ", ymm14, ymm15\n",
            "vfmadd231ps ymm",
            $second,
            ", ymm14, ymmword ptr [{weights} + 32]"
        )
    };
}

/// Pixel `x` times two vectors of weights, in ymm15 and ymm12.
macro_rules! by_two_held {
    ($x:literal, $first:literal, $second:literal) => {
        concat!(
            "vbroadcastss ymm14, dword ptr [{start} + ",
            $x,
            "*{stride}]\n",
            "vfmadd231ps ymm",
            $first,
            ", ymm14, ymm15\n",
            "vfmadd231ps ymm",
            $second,
            ", ymm14, ymm12"
        )
    };
}

kernel!(
    /// 13 pixels by a vector.
    outer_13x1, 13, 32,
    ["ymm0" 0 "ymm1" 1 "ymm2" 2 "ymm3" 3 "ymm4" 4 "ymm5" 5 "ymm6" 6 "ymm7" 7 "ymm8" 8 "ymm9" 9 "ymm10" 10 "ymm11" 11
     "ymm12" 12],
    ["ymm14" "ymm15"],
    "vmovups ymm15, ymmword ptr [{weights}]",
    by_one!(0), by_one!(1), by_one!(2), by_one!(3), by_one!(4), by_one!(5), by_one!(6), by_one!(7), by_one!(8), by_one!(9),
    by_one!(10), by_one!(11), by_one!(12),
);

kernel!(
    /// 7 pixels by two vectors.
    outer_7x2, 14, 64,
    ["ymm0" 0 "ymm1" 1 "ymm2" 2 "ymm3" 3 "ymm4" 4 "ymm5" 5 "ymm6" 6 "ymm7" 7 "ymm8" 8 "ymm9" 9 "ymm10" 10 "ymm11" 11
     "ymm12" 12 "ymm13" 13],
    ["ymm14" "ymm15"],
    "vmovups ymm15, ymmword ptr [{weights}]",
    by_two!(0, 0, 1), by_two!(1, 2, 3), by_two!(2, 4, 5), by_two!(3, 6, 7), by_two!(4, 8, 9), by_two!(5, 10, 11),
    by_two!(6, 12, 13),
);

kernel!(
    /// 6 pixels by two vectors.
    outer_6x2, 12, 64,
    ["ymm0" 0 "ymm1" 1 "ymm2" 2 "ymm3" 3 "ymm4" 4 "ymm5" 5 "ymm6" 6 "ymm7" 7 "ymm8" 8 "ymm9" 9 "ymm10" 10 "ymm11" 11],
    ["ymm12" "ymm14" "ymm15"],
    "vmovups ymm15, ymmword ptr [{weights}]
     vmovups ymm12, ymmword ptr [{weights} + 32]",
    by_two_held!(0, 0, 1), by_two_held!(1, 2, 3), by_two_held!(2, 4, 5), by_two_held!(3, 6, 7), by_two_held!(4, 8, 9),
    by_two_held!(5, 10, 11),
);
