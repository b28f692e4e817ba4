//! The tile of `tile::add` for AVX2: 4 rows by 3 vectors.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m256;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V3;

use crate::rows::Window;
use crate::tile::clip;

/// Rows and vectors of the tile.
pub(crate) const ROWS: usize = 4;
pub(crate) const VECTORS: usize = 3;

const RISING_AHEAD: u8 = clip::RISING | clip::AHEAD;
const FALLING_AHEAD: u8 = clip::FALLING | clip::AHEAD;

type Sums = [[__m256; VECTORS]; ROWS];

/// Does what `tile::add` does, if these are the instructions and the size for it; else says so.
#[inline(always)]
pub(crate) fn add<
    S: Simd,
    const R: usize,
    const HEIGHT: usize,
    const FIRST: usize,
    const V: usize,
    const CLIP: u8,
>(
    sums: &mut [[S::f32s; V]; R],
    inputs: Window<'_>,
    limits: &[f32],
    weights: &[[f32; HEIGHT]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V3>() || R != ROWS || V != VECTORS {
        return false;
    }
    const { assert!(R != ROWS || FIRST + ROWS <= HEIGHT) };
    let count = inputs.count();
    if count == 0 {
        return true;
    }
    let (starts, at) = inputs.starts(VECTORS * 8);
    assert!(weights.len() >= count && (CLIP == clip::NONE || limits.len() >= count));
    // SAFETY: R and V are those of the tile, and vectors of 8 floats are `__m256`s by another name. An `S` exists only where the CPU
    // has AVX2 and FMA. From each start, 24 floats may be read at `at`; of each row of weights, 4 from `FIRST` on.
    unsafe {
        let mut tile: Sums = transmute_copy(sums);
        let weights = weights.as_ptr().cast::<f32>().add(FIRST);
        run::<HEIGHT, CLIP>(&mut tile, starts, 4 * at, limits, weights);
        *sums = transmute_copy(&tile);
    }
    true
}

/// The loop over inputs. Each line of registers is a row of the tile.
macro_rules! sum {
    ($load:expr, $sums:ident, $count:expr, $starts:expr, $at:expr, $limits:expr, $weights:expr, $step:expr) => {
        asm!(
            "2:",
            "mov {start}, qword ptr [{starts}]",
            $load,
            "vbroadcastss {t}, dword ptr [{weights}]",
            "vfmadd231ps {a0}, {t}, {x}",
            "vfmadd231ps {a1}, {t}, {y}",
            "vfmadd231ps {a2}, {t}, {z}",
            "vbroadcastss {t}, dword ptr [{weights} + 4]",
            "vfmadd231ps {b0}, {t}, {x}",
            "vfmadd231ps {b1}, {t}, {y}",
            "vfmadd231ps {b2}, {t}, {z}",
            "vbroadcastss {t}, dword ptr [{weights} + 8]",
            "vfmadd231ps {c0}, {t}, {x}",
            "vfmadd231ps {c1}, {t}, {y}",
            "vfmadd231ps {c2}, {t}, {z}",
            "vbroadcastss {t}, dword ptr [{weights} + 12]",
            "vfmadd231ps {d0}, {t}, {x}",
            "vfmadd231ps {d1}, {t}, {y}",
            "vfmadd231ps {d2}, {t}, {z}",
            "add {starts}, 8",
            "add {limits}, 4",
            "add {weights}, {step}",
            "dec {count}",
            "jnz 2b",
            start = out(reg) _,
            starts = inout(reg) $starts => _,
            limits = inout(reg) $limits => _,
            weights = inout(reg) $weights => _,
            count = inout(reg) $count => _,
            at = in(reg) $at,
            step = const $step,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            z = out(ymm_reg) _,
            t = out(ymm_reg) _,
            a0 = inout(ymm_reg) $sums[0][0],
            a1 = inout(ymm_reg) $sums[0][1],
            a2 = inout(ymm_reg) $sums[0][2],
            b0 = inout(ymm_reg) $sums[1][0],
            b1 = inout(ymm_reg) $sums[1][1],
            b2 = inout(ymm_reg) $sums[1][2],
            c0 = inout(ymm_reg) $sums[2][0],
            c1 = inout(ymm_reg) $sums[2][1],
            c2 = inout(ymm_reg) $sums[2][2],
            d0 = inout(ymm_reg) $sums[3][0],
            d1 = inout(ymm_reg) $sums[3][1],
            d2 = inout(ymm_reg) $sums[3][2],
            options(nostack, readonly),
        )
    };
}

/// The vectors of an input, clipped; before that, `$ahead`.
macro_rules! clipped {
    ($clip:literal, $ahead:expr) => {
        concat!(
            $ahead,
            "vbroadcastss {t}, dword ptr [{limits}]\n",
            $clip,
            " {x}, {t}, ymmword ptr [{start} + {at}]\n",
            $clip,
            " {y}, {t}, ymmword ptr [{start} + {at} + 32]\n",
            $clip,
            " {z}, {t}, ymmword ptr [{start} + {at} + 64]"
        )
    };
}

/// Asks for the vectors that follow those: they lie in one cache line behind, or in two.
macro_rules! ahead {
    () => {
        "prefetcht0 byte ptr [{start} + {at} + 128]\nprefetcht0 byte ptr [{start} + {at} + 191]\n"
    };
}

/// # Safety
/// From each start, `VECTORS` vectors may be read `at` bytes on; `weights`, `HEIGHT` floats from row to row, may be read for as many rows of
/// `ROWS`; unless `CLIP` is NONE there are as many limits. There is at least one start.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const HEIGHT: usize, const CLIP: u8>(
    sums: &mut Sums,
    starts: &[*const f32],
    at: usize,
    limits: &[f32],
    weights: *const f32,
) {
    let (count, starts, limits) = (starts.len(), starts.as_ptr(), limits.as_ptr());
    // SAFETY: the caller's; without a clip, the address of the limits is counted up but not read.
    unsafe {
        macro_rules! run {
            ($load:expr) => {
                sum!($load, sums, count, starts, at, limits, weights, 4 * HEIGHT)
            };
        }
        match CLIP {
            clip::RISING => run!(clipped!("vmaxps", "")),
            clip::FALLING => run!(clipped!("vminps", "")),
            RISING_AHEAD => run!(clipped!("vmaxps", ahead!())),
            FALLING_AHEAD => run!(clipped!("vminps", ahead!())),
            _ => run!(
                "vmovups {x}, ymmword ptr [{start} + {at}]
                 vmovups {y}, ymmword ptr [{start} + {at} + 32]
                 vmovups {z}, ymmword ptr [{start} + {at} + 64]"
            ),
        }
    }
}
