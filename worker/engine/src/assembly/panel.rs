//! The tiles of `tile::outer_panel` for AVX2: 5 or 6 pixels by two vectors.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m256;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V3;

/// Does what `tile::outer_panel` does, if these are the instructions and a size of theirs; else says so.
#[inline(always)]
pub(crate) fn outer<S: Simd, const X: usize, const N: usize, const ROW: usize>(
    sums: &mut [[S::f32s; N]; X],
    panel: &[[f32; ROW]],
    first: usize,
    weights: &[[S::f32s; N]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V3>() || !matches!((X, N), (5 | 6, 2)) {
        return false;
    }
    let count = panel.len();
    assert!(first + X <= ROW && weights.len() >= count);
    // SAFETY: X and N are those of the kernels, and vectors of 8 floats are `__m256`s by another name. An `S` exists only
    // where the CPU has AVX2 and FMA. Of each row of the panel, X floats may be read from `first` on; there are as many rows of weights.
    unsafe {
        macro_rules! run {
            ($kernel:ident, $count:literal) => {{
                let mut tile: [__m256; $count] = transmute_copy(sums);
                $kernel::<ROW>(
                    &mut tile,
                    count,
                    panel.as_ptr().cast::<f32>().add(first),
                    weights.as_ptr().cast(),
                );
                *sums = transmute_copy(&tile);
            }};
        }
        if X == 5 {
            run!(outer_5x2, 10);
        } else {
            run!(outer_6x2, 12);
        }
    }
    true
}

/// Pixel `x` times two vectors of weights, in ymm15 and ymm14.
macro_rules! pixel {
    ($row:literal, $x:literal, $first:literal, $second:literal) => {
        concat!(
            "vbroadcastss ymm13, dword ptr [{panel} + ",
            $row,
            "*{row} + 4*",
            $x,
            "]\n",
            "vfmadd231ps ymm",
            $first,
            ", ymm13, ymm15\n",
            "vfmadd231ps ymm",
            $second,
            ", ymm13, ymm14\n"
        )
    };
}

/// A row of the panel times its weights; for each pixel its number and its sums.
macro_rules! row {
    ($row:literal, $([$x:literal, $first:literal, $second:literal])*) => {
        concat!(
            "vmovups ymm15, ymmword ptr [{weights} + 64*", $row, "]\n",
            "vmovups ymm14, ymmword ptr [{weights} + 64*", $row, " + 32]\n",
            $(pixel!($row, $x, $first, $second),)*
        )
    };
}

/// A kernel: its name, the registers of its sums, and for each pixel its number and its sums. Rows are taken by pairs: what counts them
/// weighs as much as a multiply-add where another thread has half of the core.
macro_rules! kernel {
    ($(#[$attribute:meta])* $name:ident, $sums:literal, [$($register:tt $number:tt)*], $($pixel:tt)*) => {
        $(#[$attribute])*
        #[doc = ""]
        #[doc = " # Safety"]
        #[doc = " There are `count` rows of the panel, of which all pixels may be read, `ROW` floats apart, and as many rows of weights."]
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name<const ROW: usize>(
            sums: &mut [__m256; $sums],
            count: usize,
            panel: *const f32,
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "sub {count}, 2",
                    "jl 3f",
                    ".p2align 6",
                    "2:",
                    row!(0, $($pixel)*),
                    row!(1, $($pixel)*),
                    "add {panel}, 2*{row}",
                    "add {weights}, 128",
                    "sub {count}, 2",
                    "jge 2b",
                    "3:",
                    "cmp {count}, -1",
                    "jne 4f",
                    row!(0, $($pixel)*),
                    "4:",
                    panel = inout(reg) panel => _,
                    weights = inout(reg) weights => _,
                    count = inout(reg) count => _,
                    row = const 4 * ROW,
                    $(inout($register) sums[$number],)*
                    out("ymm13") _,
                    out("ymm14") _,
                    out("ymm15") _,
                    options(nostack, readonly),
                );
            }
        }
    };
}

kernel!(
    /// 5 pixels by two vectors.
    outer_5x2, 10,
    ["ymm0" 0 "ymm1" 1 "ymm2" 2 "ymm3" 3 "ymm4" 4 "ymm5" 5 "ymm6" 6 "ymm7" 7 "ymm8" 8 "ymm9" 9],
    [0, 0, 1][1, 2, 3][2, 4, 5][3, 6, 7][4, 8, 9]
);

kernel!(
    /// 6 pixels by two vectors.
    outer_6x2, 12,
    ["ymm0" 0 "ymm1" 1 "ymm2" 2 "ymm3" 3 "ymm4" 4 "ymm5" 5 "ymm6" 6 "ymm7" 7 "ymm8" 8 "ymm9" 9 "ymm10" 10 "ymm11" 11],
    [0, 0, 1][1, 2, 3][2, 4, 5][3, 6, 7][4, 8, 9][5, 10, 11]
);
