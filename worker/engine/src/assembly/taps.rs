//! The tile of `tile::add_taps` for AVX2: 4 outputs by 3 vectors.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m256;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V3;

use crate::rows::Window;

/// Outputs and vectors of the tile.
const OUTPUTS: usize = 4;
const VECTORS: usize = 3;

type Sums = [[__m256; VECTORS]; OUTPUTS];

/// Does what `tile::add_taps` does, if these are the instructions and the size for it; else says so.
#[inline(always)]
pub(crate) fn add<S: Simd, const O: usize, const V: usize>(
    sums: &mut [[S::f32s; V]; O],
    planes: Window<'_>,
    stride: usize,
    weights: &[[[f32; O]; 9]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V3>() || O != OUTPUTS || V != VECTORS {
        return false;
    }
    let count = planes.count();
    if count == 0 {
        return true;
    }
    let (starts, at) = planes.starts(2 * stride + 2 + VECTORS * 8);
    assert!(weights.len() >= count);
    // SAFETY: O and V are those of the tile, and vectors of 8 floats are `__m256`s by another name. An `S` exists only where the CPU
    // has AVX2 and FMA. From each start, two rows, two pixels and three vectors may be read at `at`; there are as many rows of weights.
    unsafe {
        let mut tile: Sums = transmute_copy(sums);
        run(&mut tile, starts, 4 * at, 4 * stride, weights.as_ptr().cast());
        *sums = transmute_copy(&tile);
    }
    true
}

/// A tap: its number, what it sees of a plane, and the row and the column of that.
macro_rules! tap {
    ($tap:literal, $row:literal, $column:literal) => {
        concat!(
            "vmovups {x}, ymmword ptr [{plane} + ",
            $row,
            " + 4*",
            $column,
            "]\n",
            "vmovups {y}, ymmword ptr [{plane} + ",
            $row,
            " + 4*",
            $column,
            " + 32]\n",
            "vmovups {z}, ymmword ptr [{plane} + ",
            $row,
            " + 4*",
            $column,
            " + 64]\n",
            rows_of_three!(concat!("16*", $tap)),
        )
    };
}

/// # Safety
/// From each start, two rows of `stride` bytes, two pixels and three vectors may be read `at` bytes on; for each start there are the weights
/// of nine taps for four outputs. There is at least one.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn run(sums: &mut Sums, starts: &[*const f32], at: usize, stride: usize, weights: *const f32) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            "mov {plane}, qword ptr [{starts}]",
            "add {plane}, {at}",
            tap!(0, "0", 0),
            tap!(1, "0", 1),
            tap!(2, "0", 2),
            tap!(3, "{stride}", 0),
            tap!(4, "{stride}", 1),
            tap!(5, "{stride}", 2),
            tap!(6, "2*{stride}", 0),
            tap!(7, "2*{stride}", 1),
            tap!(8, "2*{stride}", 2),
            "add {starts}, 8",
            "add {weights}, 144",
            "dec {count}",
            "jnz 2b",
            plane = out(reg) _,
            starts = inout(reg) starts.as_ptr() => _,
            weights = inout(reg) weights => _,
            count = inout(reg) starts.len() => _,
            at = in(reg) at,
            stride = in(reg) stride,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            z = out(ymm_reg) _,
            t = out(ymm_reg) _,
            a0 = inout(ymm_reg) sums[0][0],
            a1 = inout(ymm_reg) sums[0][1],
            a2 = inout(ymm_reg) sums[0][2],
            b0 = inout(ymm_reg) sums[1][0],
            b1 = inout(ymm_reg) sums[1][1],
            b2 = inout(ymm_reg) sums[1][2],
            c0 = inout(ymm_reg) sums[2][0],
            c1 = inout(ymm_reg) sums[2][1],
            c2 = inout(ymm_reg) sums[2][2],
            d0 = inout(ymm_reg) sums[3][0],
            d1 = inout(ymm_reg) sums[3][1],
            d2 = inout(ymm_reg) sums[3][2],
            options(nostack, readonly),
        );
    }
}
