//! Multiply-adds a second of threads that do nothing else, in registers: what no engine can surpass on this CPU.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Instant;

use pulp::{Simd, WithSimd};

use crate::instructions::Vectors;
use crate::{Error, Instructions};

/// Sums at once: enough to keep every unit busy, and few enough for 16 registers.
const SUMS: usize = 12;
/// Turns between two looks at the clock: some milliseconds.
const TURNS: usize = 500_000;
/// The best of so many counts: a moment in which the CPU was all ours.
const ROUNDS: usize = 20;

/// Multiply-adds a second of so many threads with these instructions, in single precision. Takes about a tenth of a second.
///
/// # Errors
/// When the CPU lacks the instructions, or a thread cannot be started.
pub fn multiply_adds_per_s(instructions: Instructions, threads: NonZeroUsize) -> Result<f64, Error> {
    let vectors = Vectors::of(instructions)?;
    let count = || vectors.run(Turns);
    let mut best = 0.0_f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let done = thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get())
                .map(|_| thread::Builder::new().spawn_scoped(scope, count))
                .collect::<Result<_, _>>()?;
            let own = count();
            Ok(others.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum::<f64>() + own)
        });
        let done = done.map_err(|error: std::io::Error| Error::Threads(error.to_string()))?;
        best = best.max(done / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

struct Turns;

impl WithSimd for Turns {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (a, b) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.5)));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(a, *sum, b);
            }
        }
        black_box(sums);
        (TURNS * SUMS * S::F32_LANES) as f64
    }
}
