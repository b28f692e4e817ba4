//! What the 3×3 kernel of rows adds of a column of taps, for AVX2: 8 rows of an output, or 4 rows of two. Each row of inputs is loaded once
//! and serves the three rows of outputs that see it.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::__m256;
use std::mem::transmute_copy;

use pulp::Simd;
use pulp::x86::V3;

use crate::rows::Window;

/// Adds Σ over planes and rows of taps of weights[plane][tap][output] · masked rows[plane][row + tap], if these are instructions and a size
/// of theirs; else says that they are not. `stride`: floats from row to row of a plane.
#[inline(always)]
pub(crate) fn add<S: Simd, const O: usize, const R: usize, const MASKED: bool>(
    sums: &mut [[S::f32s; R]; O],
    planes: Window<'_>,
    stride: usize,
    mask: S::f32s,
    weights: &[[[f32; O]; 3]],
) -> bool {
    if TypeId::of::<S>() != TypeId::of::<V3>() || !matches!((O, R), (1, 8) | (2, 4)) {
        return false;
    }
    let count = planes.count();
    if count == 0 {
        return true;
    }
    let (starts, at) = planes.starts((R + 1) * stride + 8);
    assert!(weights.len() >= count);
    // SAFETY: O and R are those of the kernels, and vectors of 8 floats are `__m256`s by another name. An `S` exists only where the CPU has
    // AVX2 and FMA. From each start, a vector may be read of each of R + 2 rows at `at`; for each there are 3 weights of O.
    unsafe {
        let mut tile: [__m256; 8] = transmute_copy(sums);
        let (mask, weights) = (transmute_copy(&mask), weights.as_ptr().cast());
        match (O, MASKED) {
            (1, false) => one(&mut tile, starts, 4 * at, 4 * stride, weights),
            (1, true) => one_masked(&mut tile, starts, 4 * at, 4 * stride, mask, weights),
            (_, false) => two(&mut tile, starts, 4 * at, 4 * stride, weights),
            (_, true) => two_masked(&mut tile, starts, 4 * at, 4 * stride, mask, weights),
        }
        *sums = transmute_copy(&tile);
    }
    true
}

/// The next row of inputs, with what it adds.
macro_rules! row {
    ($load:literal, $($line:literal)*) => {
        concat!($load, "\nadd {row}, {stride}\n", $($line, "\n",)*)
    };
}

/// The loop over planes: broadcasts of the weights, then rows of inputs.
macro_rules! planes {
    (
        $sums:ident, $starts:ident, $at:ident, $stride:ident, $weights:ident, $bytes:literal,
        [$($weight:ident $offset:literal)*], [$($row:expr),* $(,)?] $(, mask = $mask:ident)?
    ) => {
        asm!(
            "2:",
            "mov {row}, qword ptr [{starts}]",
            "add {row}, {at}",
            $(concat!("vbroadcastss {", stringify!($weight), "}, dword ptr [{weights} + ", $offset, "]"),)*
            $($row,)*
            "add {starts}, 8",
            concat!("add {weights}, ", $bytes),
            "dec {count}",
            "jnz 2b",
            row = out(reg) _,
            starts = inout(reg) $starts.as_ptr() => _,
            weights = inout(reg) $weights => _,
            count = inout(reg) $starts.len() => _,
            at = in(reg) $at,
            stride = in(reg) $stride,
            $(mask = in(ymm_reg) $mask,)?
            x = out(ymm_reg) _,
            $($weight = out(ymm_reg) _,)*
            a = inout(ymm_reg) $sums[0],
            b = inout(ymm_reg) $sums[1],
            c = inout(ymm_reg) $sums[2],
            d = inout(ymm_reg) $sums[3],
            e = inout(ymm_reg) $sums[4],
            f = inout(ymm_reg) $sums[5],
            g = inout(ymm_reg) $sums[6],
            h = inout(ymm_reg) $sums[7],
            options(nostack, readonly),
        )
    };
}

/// Eight rows of an output, of inputs that `$load` loads.
macro_rules! one {
    ($load:literal, $sums:ident, $starts:ident, $at:ident, $stride:ident, $weights:ident $(, mask = $mask:ident)?) => {
        planes!($sums, $starts, $at, $stride, $weights, 12, [u 0 v 4 w 8], [
            row!($load, "vfmadd231ps {a}, {u}, {x}"),
            row!($load, "vfmadd231ps {a}, {v}, {x}" "vfmadd231ps {b}, {u}, {x}"),
            row!($load, "vfmadd231ps {a}, {w}, {x}" "vfmadd231ps {b}, {v}, {x}" "vfmadd231ps {c}, {u}, {x}"),
            row!($load, "vfmadd231ps {b}, {w}, {x}" "vfmadd231ps {c}, {v}, {x}" "vfmadd231ps {d}, {u}, {x}"),
            row!($load, "vfmadd231ps {c}, {w}, {x}" "vfmadd231ps {d}, {v}, {x}" "vfmadd231ps {e}, {u}, {x}"),
            row!($load, "vfmadd231ps {d}, {w}, {x}" "vfmadd231ps {e}, {v}, {x}" "vfmadd231ps {f}, {u}, {x}"),
            row!($load, "vfmadd231ps {e}, {w}, {x}" "vfmadd231ps {f}, {v}, {x}" "vfmadd231ps {g}, {u}, {x}"),
            row!($load, "vfmadd231ps {f}, {w}, {x}" "vfmadd231ps {g}, {v}, {x}" "vfmadd231ps {h}, {u}, {x}"),
            row!($load, "vfmadd231ps {g}, {w}, {x}" "vfmadd231ps {h}, {v}, {x}"),
            row!($load, "vfmadd231ps {h}, {w}, {x}"),
        ] $(, mask = $mask)?)
    };
}

/// Four rows of two outputs, likewise.
macro_rules! two {
    ($load:literal, $sums:ident, $starts:ident, $at:ident, $stride:ident, $weights:ident $(, mask = $mask:ident)?) => {
        planes!($sums, $starts, $at, $stride, $weights, 24, [u0 0 u1 4 v0 8 v1 12 w0 16 w1 20], [
            row!($load, "vfmadd231ps {a}, {u0}, {x}" "vfmadd231ps {e}, {u1}, {x}"),
            row!($load, "vfmadd231ps {a}, {v0}, {x}" "vfmadd231ps {b}, {u0}, {x}"
                 "vfmadd231ps {e}, {v1}, {x}" "vfmadd231ps {f}, {u1}, {x}"),
            row!($load, "vfmadd231ps {a}, {w0}, {x}" "vfmadd231ps {b}, {v0}, {x}" "vfmadd231ps {c}, {u0}, {x}"
                 "vfmadd231ps {e}, {w1}, {x}" "vfmadd231ps {f}, {v1}, {x}" "vfmadd231ps {g}, {u1}, {x}"),
            row!($load, "vfmadd231ps {b}, {w0}, {x}" "vfmadd231ps {c}, {v0}, {x}" "vfmadd231ps {d}, {u0}, {x}"
                 "vfmadd231ps {f}, {w1}, {x}" "vfmadd231ps {g}, {v1}, {x}" "vfmadd231ps {h}, {u1}, {x}"),
            row!($load, "vfmadd231ps {c}, {w0}, {x}" "vfmadd231ps {d}, {v0}, {x}"
                 "vfmadd231ps {g}, {w1}, {x}" "vfmadd231ps {h}, {v1}, {x}"),
            row!($load, "vfmadd231ps {d}, {w0}, {x}" "vfmadd231ps {h}, {w1}, {x}"),
        ] $(, mask = $mask)?)
    };
}

macro_rules! kernel {
    ($(#[$attribute:meta])* $name:ident, $rows:ident, $load:literal $(, $mask:ident)?) => {
        $(#[$attribute])*
        /// There is at least one start.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name(
            sums: &mut [__m256; 8],
            starts: &[*const f32],
            at: usize,
            stride: usize,
            $($mask: __m256,)?
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe { $rows!($load, sums, starts, at, stride, weights $(, mask = $mask)?) };
        }
    };
}

kernel!(
    /// # Safety
    /// From each start, a vector may be read of each of 10 rows, `stride` bytes from row to row, `at` bytes on; for each there are 3 weights.
    one, one, "vmovups {x}, ymmword ptr [{row}]"
);
kernel!(
    /// # Safety
    /// As for `one`.
    one_masked, one, "vandps {x}, {mask}, ymmword ptr [{row}]", mask
);
kernel!(
    /// # Safety
    /// From each start, a vector may be read of each of 6 rows, `stride` bytes from row to row, `at` bytes on; for each there are 3 pairs of
    /// weights.
    two, two, "vmovups {x}, ymmword ptr [{row}]"
);
kernel!(
    /// # Safety
    /// As for `two`.
    two_masked, two, "vandps {x}, {mask}, ymmword ptr [{row}]", mask
);
