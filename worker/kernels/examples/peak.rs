//! Multiply-adds a second of so many threads that do nothing else, in registers: what no arithmetic can surpass.
//!
//!     cargo run --release -p cnx-kernels --example peak -- 2

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

/// Sums at once: enough to keep every unit busy.
const SUMS: usize = 16;
const TURNS: usize = 20_000_000;

struct Turns;

impl WithSimd for Turns {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (a, b) =
            (simd.splat_f32s(std::hint::black_box(0.999)), simd.splat_f32s(std::hint::black_box(0.5)));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(a, *sum, b);
            }
        }
        std::hint::black_box(sums);
        (TURNS * SUMS * S::F32_LANES) as f64
    }
}

fn main() {
    let threads: usize = std::env::args().nth(1).map_or(1, |text| text.parse().unwrap());
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            let work = || {
                (0..threads).map(|_| std::thread::spawn(|| Arch::new().dispatch(Turns))).collect::<Vec<_>>()
            };
            let sum: f64 = work().into_iter().map(|thread| thread.join().unwrap()).sum();
            sum / start.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max);
    println!(r#"{{"threads": {threads}, "gmac_per_s": {best}}}"#);
}
