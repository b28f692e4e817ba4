//! Which vector instructions are used.

use std::fmt;

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
