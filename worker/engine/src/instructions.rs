//! Which vector instructions are used.

use std::fmt;

use pulp::{Arch, Scalar, Simd, WithSimd};

use crate::Error;

/// Vector instructions of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instructions {
    /// The widest that the CPU has.
    #[default]
    Auto,
    /// AVX-512: 16 numbers at once, 32 registers.
    Avx512,
    /// AVX2 and FMA: 8 numbers at once, 16 registers.
    Avx2,
    /// What every CPU has.
    Portable,
}

impl Instructions {
    /// All of them.
    pub const ALL: [Instructions; 4] =
        [Instructions::Auto, Instructions::Avx512, Instructions::Avx2, Instructions::Portable];

    /// Its name on screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Instructions::Auto => "auto",
            Instructions::Avx512 => "avx512",
            Instructions::Avx2 => "avx2",
            Instructions::Portable => "portable",
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Instructions that the CPU is known to have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vectors {
    Best(Arch),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Portable,
}

impl Vectors {
    /// # Errors
    /// When the CPU lacks them.
    pub fn of(instructions: Instructions) -> Result<Vectors, Error> {
        let missing = || Error::Instructions(instructions);
        match instructions {
            Instructions::Auto => Ok(Vectors::Best(Arch::new())),
            Instructions::Portable => Ok(Vectors::Portable),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => pulp::x86::V4::try_new().map(Vectors::Avx512).ok_or_else(missing),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => pulp::x86::V3::try_new().map(Vectors::Avx2).ok_or_else(missing),
            #[cfg(not(target_arch = "x86_64"))]
            Instructions::Avx512 | Instructions::Avx2 => Err(missing()),
        }
    }

    /// Does something with them.
    pub fn run<W: WithSimd>(self, work: W) -> W::Output {
        match self {
            Vectors::Best(arch) => arch.dispatch(work),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(simd) => Simd::vectorize(simd, work),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(simd) => Simd::vectorize(simd, work),
            Vectors::Portable => Simd::vectorize(Scalar, work),
        }
    }

    /// What a core of this CPU offers with them.
    pub fn core(self) -> Core {
        struct Ask;
        impl WithSimd for Ask {
            type Output = Core;
            fn with_simd<S: Simd>(self, _: S) -> Core {
                let (lanes, many_registers) = (S::F32_LANES, S::REGISTER_COUNT >= 32);
                Core { lanes, many_registers, beside: beside(), cache: cache() }
            }
        }
        self.run(Ask)
    }
}

/// What a core of a CPU offers: the order of weights and the layout of memory depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Core {
    /// Floats that a vector holds.
    pub lanes: usize,
    /// Whether there are 32 of them; else 16.
    pub many_registers: bool,
    /// Whether additions, maxima and minima run beside multiply-adds; else each takes the place of one.
    pub beside: bool,
    /// Bytes of its second-level cache.
    pub cache: usize,
}

/// AMD's cores have ports of their own for additions and comparisons; Intel's make them where multiply-adds are made. What is not known is
/// taken for the latter.
fn beside() -> bool {
    #[cfg(target_arch = "x86_64")]
    return raw_cpuid::CpuId::new().get_vendor_info().is_some_and(|vendor| vendor.as_str() == "AuthenticAMD");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What is not known, or smaller, is taken for the least that was measured.
fn cache() -> usize {
    const LEAST: usize = 512 << 10;
    #[cfg(target_arch = "x86_64")]
    {
        let caches = raw_cpuid::CpuId::new().get_cache_parameters();
        let size = |cache: raw_cpuid::CacheParameter| {
            cache.sets()
                * cache.associativity()
                * cache.physical_line_partitions()
                * cache.coherency_line_size()
        };
        caches.and_then(|mut all| all.find(|cache| cache.level() == 2)).map_or(LEAST, size).max(LEAST)
    }
    #[cfg(not(target_arch = "x86_64"))]
    LEAST
}
