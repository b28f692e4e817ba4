//! Tiles of sums in assembly: they need all registers that there are, and compilers put sums into memory to have one more, which halves
//! their speed. What they do is `tile.rs`; where a CPU or a size is none of theirs, the loops there do it.

// Assembly, and vectors as the registers that they are.
#![allow(unsafe_code)]

/// A weight, `{weights}` and so much, times the three vectors of an AVX2 tile, in `{x}`, `{y}` and `{z}`: a row of its sums.
macro_rules! row_of_three {
    ($behind:expr, $first:literal, $second:literal, $third:literal) => {
        concat!(
            "vbroadcastss {t}, dword ptr [{weights} + ",
            $behind,
            "]\n",
            "vfmadd231ps {",
            $first,
            "}, {t}, {x}\n",
            "vfmadd231ps {",
            $second,
            "}, {t}, {y}\n",
            "vfmadd231ps {",
            $third,
            "}, {t}, {z}\n",
        )
    };
}

/// Four of them, one float of weights after another.
macro_rules! rows_of_three {
    ($behind:expr) => {
        concat!(
            row_of_three!($behind, "a0", "a1", "a2"),
            row_of_three!(concat!($behind, " + 4"), "b0", "b1", "b2"),
            row_of_three!(concat!($behind, " + 8"), "c0", "c1", "c2"),
            row_of_three!(concat!($behind, " + 12"), "d0", "d1", "d2"),
        )
    };
}

pub(crate) mod channels;
pub(crate) mod clipped;
pub(crate) mod panel;
pub(crate) mod planes;
pub(crate) mod rows;
pub(crate) mod taps;
pub(crate) mod whole;
