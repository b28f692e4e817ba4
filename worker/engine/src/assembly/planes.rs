//! The tile of `tile::add` and `tile::add_kept` for AVX2: 4 rows by 3 vectors.

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
const RISING_KEPT: u8 = RISING_AHEAD | clip::KEEP;
const FALLING_KEPT: u8 = FALLING_AHEAD | clip::KEEP;

/// The vectors were clipped and kept before.
const KEPT: u8 = u8::MAX;

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
    kept: &mut [[S::f32s; V]],
    weights: &[[f32; HEIGHT]],
) -> bool {
    if !fits::<S, R, HEIGHT, FIRST, V>() {
        return false;
    }
    let count = inputs.count();
    if count == 0 {
        return true;
    }
    let (starts, at) = inputs.starts(VECTORS * 8);
    assert!(weights.len() >= count && (CLIP == clip::NONE || limits.len() >= count));
    assert!(CLIP & clip::KEEP == 0 || kept.len() >= count);
    // SAFETY: R and V are those of the tile, and vectors of 8 floats are `__m256`s by another name. An `S` exists only where the CPU
    // has AVX2 and FMA. From each start, 24 floats may be read at `at`; of each row of weights, 4 from `FIRST` on; there is
    // room to keep 24 floats of each.
    unsafe {
        let mut tile: Sums = transmute_copy(sums);
        let weights = weights.as_ptr().cast::<f32>().add(FIRST);
        let kept = kept.as_mut_ptr().cast();
        run::<HEIGHT, CLIP>(&mut tile, count, starts.as_ptr(), 4 * at, limits.as_ptr(), kept, weights);
        *sums = transmute_copy(&tile);
    }
    true
}

/// Does what `tile::add_kept` does, if these are the instructions and the size for it; else says so.
#[inline(always)]
pub(crate) fn add_kept<S: Simd, const R: usize, const HEIGHT: usize, const FIRST: usize, const V: usize>(
    sums: &mut [[S::f32s; V]; R],
    kept: &[[S::f32s; V]],
    weights: &[[f32; HEIGHT]],
) -> bool {
    if !fits::<S, R, HEIGHT, FIRST, V>() {
        return false;
    }
    let count = kept.len().min(weights.len());
    if count == 0 {
        return true;
    }
    // SAFETY: as above; of each that is kept, 24 floats may be read, and nothing is written.
    unsafe {
        let mut tile: Sums = transmute_copy(sums);
        let weights = weights.as_ptr().cast::<f32>().add(FIRST);
        let kept = kept.as_ptr().cast_mut().cast();
        run::<HEIGHT, KEPT>(&mut tile, count, std::ptr::null(), 0, std::ptr::null(), kept, weights);
        *sums = transmute_copy(&tile);
    }
    true
}

/// Whether these are the instructions and the size of the tile.
#[inline(always)]
fn fits<S: Simd, const R: usize, const HEIGHT: usize, const FIRST: usize, const V: usize>() -> bool {
    const { assert!(R != ROWS || FIRST + ROWS <= HEIGHT) };
    TypeId::of::<S>() == TypeId::of::<V3>() && R == ROWS && V == VECTORS
}

/// An input, whose vectors are loaded so.
macro_rules! input {
    ($number:literal, $load:expr) => {
        concat!($load, rows_of_three!(concat!($number, "*{step}")),)
    };
}

/// The loop over inputs, by pairs: what counts them weighs as much as a multiply-add where another thread has half of the core.
/// `$load`: a macro that loads the vectors of an input, by its number; `$next`: what goes on from a pair to the next.
macro_rules! sum {
    ([$load:ident $($with:tt)*], $next:expr, $sums:ident, $count:expr, $starts:expr, $at:expr, $limits:expr, $kept:expr, $weights:expr, $step:expr) => {
        asm!(
            "// {start} {starts} {limits} {kept} {at}",
            "sub {count}, 2",
            "jl 3f",
            ".p2align 5",
            "2:",
            input!(0, $load!(0 $($with)*)),
            input!(1, $load!(1 $($with)*)),
            $next,
            "add {weights}, 2*{step}",
            "sub {count}, 2",
            "jge 2b",
            "3:",
            "cmp {count}, -1",
            "jne 4f",
            input!(0, $load!(0 $($with)*)),
            "4:",
            start = out(reg) _,
            starts = inout(reg) $starts => _,
            limits = inout(reg) $limits => _,
            kept = inout(reg) $kept => _,
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
            options(nostack),
        )
    };
}

/// The vectors of an input, clipped; before that, `$ahead`; after it, `$keep`.
macro_rules! clipped {
    ($number:literal $clip:literal $ahead:ident $keep:ident) => {
        concat!(
            "mov {start}, qword ptr [{starts} + 8*",
            $number,
            "]\n",
            $ahead!(),
            "vbroadcastss {t}, dword ptr [{limits} + 4*",
            $number,
            "]\n",
            $clip,
            " {x}, {t}, ymmword ptr [{start} + {at}]\n",
            $clip,
            " {y}, {t}, ymmword ptr [{start} + {at} + 32]\n",
            $clip,
            " {z}, {t}, ymmword ptr [{start} + {at} + 64]\n",
            $keep!($number),
        )
    };
}

/// The vectors of an input, as they are.
macro_rules! plain {
    ($number:literal) => {
        concat!(
            "mov {start}, qword ptr [{starts} + 8*",
            $number,
            "]\n",
            "vmovups {x}, ymmword ptr [{start} + {at}]\n",
            "vmovups {y}, ymmword ptr [{start} + {at} + 32]\n",
            "vmovups {z}, ymmword ptr [{start} + {at} + 64]\n",
        )
    };
}

/// The vectors that were kept.
macro_rules! kept {
    ($number:literal) => {
        concat!(
            "vmovups {x}, ymmword ptr [{kept} + 96*",
            $number,
            "]\n",
            "vmovups {y}, ymmword ptr [{kept} + 96*",
            $number,
            " + 32]\n",
            "vmovups {z}, ymmword ptr [{kept} + 96*",
            $number,
            " + 64]\n",
        )
    };
}

/// Asks for the vectors that follow those: they lie in one cache line behind, or in two.
macro_rules! ahead {
    () => {
        "prefetcht0 byte ptr [{start} + {at} + 128]\nprefetcht0 byte ptr [{start} + {at} + 191]\n"
    };
}

/// Keeps the clipped vectors.
macro_rules! keep {
    ($number:literal) => {
        concat!(
            "vmovups ymmword ptr [{kept} + 96*",
            $number,
            "], {x}\n",
            "vmovups ymmword ptr [{kept} + 96*",
            $number,
            " + 32], {y}\n",
            "vmovups ymmword ptr [{kept} + 96*",
            $number,
            " + 64], {z}\n",
        )
    };
}

/// Neither of them.
macro_rules! nothing {
    ($($number:literal)?) => {
        ""
    };
}

/// # Safety
/// From each of `count` starts, `VECTORS` vectors may be read `at` bytes on; `weights`, `HEIGHT` floats from row to row, may be read for as
/// many rows of `ROWS`; unless `CLIP` is NONE there are as many limits. Where it says KEEP, as many vectors may be written to `kept`; where
/// it is KEPT, they may be read there, and there need be neither starts nor limits. `count` is not 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const HEIGHT: usize, const CLIP: u8>(
    sums: &mut Sums,
    count: usize,
    starts: *const *const f32,
    at: usize,
    limits: *const f32,
    kept: *mut f32,
    weights: *const f32,
) {
    // SAFETY: the caller's; addresses that are not needed are not used.
    unsafe {
        macro_rules! run {
            ($load:tt, $next:expr) => {
                sum!($load, $next, sums, count, starts, at, limits, kept, weights, 4 * HEIGHT)
            };
        }
        match CLIP {
            clip::RISING => run!([clipped "vmaxps" nothing nothing], "add {starts}, 16\nadd {limits}, 8"),
            clip::FALLING => run!([clipped "vminps" nothing nothing], "add {starts}, 16\nadd {limits}, 8"),
            RISING_AHEAD => run!([clipped "vmaxps" ahead nothing], "add {starts}, 16\nadd {limits}, 8"),
            FALLING_AHEAD => run!([clipped "vminps" ahead nothing], "add {starts}, 16\nadd {limits}, 8"),
            RISING_KEPT => {
                run!([clipped "vmaxps" ahead keep], "add {starts}, 16\nadd {limits}, 8\nadd {kept}, 192")
            }
            FALLING_KEPT => {
                run!([clipped "vminps" ahead keep], "add {starts}, 16\nadd {limits}, 8\nadd {kept}, 192")
            }
            KEPT => run!([kept], "add {kept}, 192"),
            _ => run!([plain], "add {starts}, 16"),
        }
    }
}
