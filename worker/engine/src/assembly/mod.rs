//! Tiles of sums in assembly: they need all registers that there are, and compilers put sums into memory to have one more, which halves
//! their speed. What they do is `tile.rs`; where a CPU or a size is none of theirs, the loops there do it.

// Assembly, and vectors as the registers that they are.
#![allow(unsafe_code)]

pub(crate) mod channels;
pub(crate) mod clipped;
pub(crate) mod panel;
pub(crate) mod planes;
pub(crate) mod rows;
pub(crate) mod taps;
