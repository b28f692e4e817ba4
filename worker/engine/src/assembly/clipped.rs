//! The tile of `tile::outer_clipped` for AVX-512: 7 pixels by 4 vectors.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m512;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V4;

use crate::rows::Window;

/// Pixels and vectors of the tile.
const PIXELS: usize = 7;
const VECTORS: usize = 4;

/// Does what `tile::outer_clipped` does, if these are the instructions and the size for it; else says so.
#[inline(always)]
pub(crate) fn outer<S: Simd, const X: usize, const N: usize>(
    sums: &mut [[S::f32s; N]; X],
    inputs: Window<'_>,
    rising: usize,
    limits: &[f32],
    weights: &[[S::f32s; N]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V4>() || X != PIXELS || N != VECTORS {
        return false;
    }
    let count = inputs.count();
    let (starts, at) = inputs.starts(PIXELS);
    assert!(rising <= count && weights.len() >= count && limits.len() >= count);
    // SAFETY: X and N are those of the tile, and vectors of 16 floats are `__m512`s by another name. An `S` exists only where the CPU has
    // AVX-512. From each start, 7 floats may be read at `at`; there are as many limits, and rows of weights.
    unsafe {
        let mut tile: [__m512; PIXELS * VECTORS] = transmute_copy(sums);
        let (limits, weights) = (limits.as_ptr(), weights.as_ptr().cast());
        run(&mut tile, starts, rising, 4 * at, limits, weights);
        *sums = transmute_copy(&tile);
    }
    true
}

/// A pixel times four vectors of weights, of which three lie in zmm29 to zmm31, the last in memory.
macro_rules! pixel {
    ($clip:literal, $at:literal, $first:literal, $second:literal, $third:literal, $fourth:literal) => {
        concat!(
            "vbroadcastss zmm28, dword ptr [{start} + ",
            $at,
            "]\n",
            $clip,
            " zmm28, zmm28, dword ptr [{limits}]{{1to16}}\n",
            "vfmadd231ps zmm",
            $first,
            ", zmm28, zmm29\n",
            "vfmadd231ps zmm",
            $second,
            ", zmm28, zmm30\n",
            "vfmadd231ps zmm",
            $third,
            ", zmm28, zmm31\n",
            "vfmadd231ps zmm",
            $fourth,
            ", zmm28, zmmword ptr [{weights} + 192]\n"
        )
    };
}

/// A loop over inputs. What follows the pixels is asked for, since the next tile will read it.
macro_rules! inputs {
    ($clip:literal, $start:literal, $end:literal) => {
        concat!(
            "test {count}, {count}\n",
            "je ",
            $end,
            "f\n",
            ".p2align 5\n",
            $start,
            ":\n",
            "mov {start}, qword ptr [{starts}]\n",
            "add {start}, {at}\n",
            "vmovups zmm29, zmmword ptr [{weights}]\n",
            "vmovups zmm30, zmmword ptr [{weights} + 64]\n",
            "vmovups zmm31, zmmword ptr [{weights} + 128]\n",
            "prefetcht0 byte ptr [{start} + 52]\n",
            pixel!($clip, 0, 0, 1, 2, 3),
            pixel!($clip, 4, 4, 5, 6, 7),
            pixel!($clip, 8, 8, 9, 10, 11),
            pixel!($clip, 12, 12, 13, 14, 15),
            pixel!($clip, 16, 16, 17, 18, 19),
            pixel!($clip, 20, 20, 21, 22, 23),
            pixel!($clip, 24, 24, 25, 26, 27),
            "add {starts}, 8\n",
            "add {limits}, 4\n",
            "add {weights}, 256\n",
            "dec {count}\n",
            "jne ",
            $start,
            "b\n",
            $end,
            ":"
        )
    };
}

macro_rules! loops {
    ($sums:ident, $starts:ident, $rising:ident, $at:ident, $limits:ident, $weights:ident, $($register:tt $number:tt)*) => {
        asm!(
            inputs!("vmaxps", "2", "3"),
            "mov {count}, {falling}",
            inputs!("vminps", "4", "5"),
            start = out(reg) _,
            starts = inout(reg) $starts.as_ptr() => _,
            limits = inout(reg) $limits => _,
            weights = inout(reg) $weights => _,
            count = inout(reg) $rising => _,
            falling = in(reg) $starts.len() - $rising,
            at = in(reg) $at,
            $(inout($register) $sums[$number],)*
            out("zmm28") _,
            out("zmm29") _,
            out("zmm30") _,
            out("zmm31") _,
            options(nostack, readonly),
        )
    };
}

/// # Safety
/// From each start, `PIXELS` floats may be read `at` bytes on; for each start there is a limit, and a row of weights; `rising` starts or more.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn run(
    sums: &mut [__m512; PIXELS * VECTORS],
    starts: &[*const f32],
    rising: usize,
    at: usize,
    limits: *const f32,
    weights: *const f32,
) {
    // SAFETY: the caller's.
    unsafe {
        loops!(
            sums, starts, rising, at, limits, weights,
            "zmm0" 0 "zmm1" 1 "zmm2" 2 "zmm3" 3 "zmm4" 4 "zmm5" 5 "zmm6" 6 "zmm7" 7 "zmm8" 8 "zmm9" 9 "zmm10" 10 "zmm11" 11
            "zmm12" 12 "zmm13" 13 "zmm14" 14 "zmm15" 15 "zmm16" 16 "zmm17" 17 "zmm18" 18 "zmm19" 19 "zmm20" 20 "zmm21" 21
            "zmm22" 22 "zmm23" 23 "zmm24" 24 "zmm25" 25 "zmm26" 26 "zmm27" 27
        );
    }
}
