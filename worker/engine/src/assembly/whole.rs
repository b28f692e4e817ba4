//! Whole rows of 7 pixels for AVX2, by one vector of outputs: what `spatial/channels.rs` adds up in two sums.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m256;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V3;

use crate::rows::Window;

/// Pixels of a row.
const PIXELS: usize = 7;

/// Adds Σ over inputs and three taps of weights[input][tap] · input[pixel + tap − 1], `B` floats from pixel to pixel of an input, which begins
/// with the pixel left of the row; the first sums are those of every other input and of all at the edges, the second those of the others. If
/// these are the instructions and the sizes for it; else says so.
#[inline(always)]
pub(crate) fn add<S: Simd, const B: usize, const X: usize, const N: usize, const D: usize>(
    sums: &mut [[[S::f32s; N]; X]; D],
    inputs: Window<'_>,
    weights: &[[[S::f32s; N]; 3]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V3>() || X != PIXELS || N != 1 || D != 2 {
        return false;
    }
    let (starts, at) = inputs.starts(PIXELS * B + 1);
    assert!(weights.len() >= starts.len());
    // SAFETY: X, N and D are those of the kernel, and vectors of 8 floats are `__m256`s by another name. An `S` exists only where the CPU has
    // AVX2 and FMA. From each start, the last pixel may be read at `at`; there are as many rows of weights.
    unsafe {
        let mut tile: [[__m256; PIXELS]; 2] = transmute_copy(sums);
        add_7::<B>(&mut tile, starts, 4 * at, weights.as_ptr().cast());
        *sums = transmute_copy(&tile);
    }
    true
}

/// A pixel times the taps that see it; for each its weights' register and its sum's.
macro_rules! pixel {
    ($at:literal, $($weights:literal $sum:literal)*) => {
        concat!(
            "vbroadcastss ymm12, dword ptr [{start} + ", $at, "*{stride}]\n",
            $("vfmadd231ps ymm", $sum, ", ymm12, ymm", $weights, "\n",)*
        )
    };
}

/// An input: its number, and the sums of the pixels between the edges.
macro_rules! input {
    ($number:literal, $b:literal $c:literal $d:literal $e:literal $f:literal) => {
        concat!(
            "mov {start}, qword ptr [{starts} + 8*", $number, "]\n",
            "add {start}, {at}\n",
            "vmovups ymm13, ymmword ptr [{weights} + 96*", $number, "]\n",
            "vmovups ymm14, ymmword ptr [{weights} + 96*", $number, " + 32]\n",
            "vmovups ymm15, ymmword ptr [{weights} + 96*", $number, " + 64]\n",
            pixel!(1, 14 0 13 $b),
            pixel!(2, 15 0 14 $b 13 $c),
            pixel!(3, 15 $b 14 $c 13 $d),
            pixel!(4, 15 $c 14 $d 13 $e),
            pixel!(5, 15 $d 14 $e 13 $f),
            pixel!(6, 15 $e 14 $f 13 6),
            pixel!(7, 15 $f 14 6),
        )
    };
}

/// # Safety
/// From each start, the last pixel may be read `at` bytes on; for each start there are three vectors of weights.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_7<const B: usize>(
    sums: &mut [[__m256; PIXELS]; 2],
    starts: &[*const f32],
    at: usize,
    weights: *const f32,
) {
    let [first, second] = sums;
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "sub {count}, 2",
            "jl 3f",
            ".p2align 6",
            "2:",
            input!(0, 1 2 3 4 5),
            input!(1, 7 8 9 10 11),
            "add {starts}, 16",
            "add {weights}, 192",
            "sub {count}, 2",
            "jge 2b",
            "3:",
            "cmp {count}, -1",
            "jne 4f",
            input!(0, 1 2 3 4 5),
            "4:",
            start = out(reg) _,
            starts = inout(reg) starts.as_ptr() => _,
            weights = inout(reg) weights => _,
            count = inout(reg) starts.len() => _,
            at = in(reg) at,
            stride = const 4 * B,
            inout("ymm0") first[0],
            inout("ymm1") first[1],
            inout("ymm2") first[2],
            inout("ymm3") first[3],
            inout("ymm4") first[4],
            inout("ymm5") first[5],
            inout("ymm6") first[6],
            inout("ymm7") second[1],
            inout("ymm8") second[2],
            inout("ymm9") second[3],
            inout("ymm10") second[4],
            inout("ymm11") second[5],
            out("ymm12") _,
            out("ymm13") _,
            out("ymm14") _,
            out("ymm15") _,
            options(nostack, readonly),
        );
    }
}
