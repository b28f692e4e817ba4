//! Rows of floats that are read side by side: checked once to be long enough, then read without another check.

// A check for each vector costs as much as the arithmetic on it.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Simd;

use crate::prefetch::prefetch_line as prefetch;

/// Rows of the same length.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    /// Each begins `length` floats that live for `'a`.
    starts: Vec<*const f32>,
    length: usize,
    live: PhantomData<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// None yet, of so many floats.
    pub fn new(length: usize) -> Rows<'a> {
        Rows { starts: Vec::new(), length, live: PhantomData }
    }

    pub fn clear(&mut self) {
        self.starts.clear();
    }

    /// Adds the beginnings of some floats each. Panics where there are too few.
    #[inline(always)]
    pub fn extend(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        self.starts.extend(rows.map(|floats| floats[..self.length].as_ptr()));
    }

    /// The `floats` floats from `at` on of each. Panics where they go past the end.
    #[inline(always)]
    pub fn window(&self, at: usize, floats: usize) -> Window<'_> {
        assert!(at <= self.length && floats <= self.length - at);
        Window { starts: &self.starts, at, floats }
    }
}

/// As many floats of each of some rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// From each, the floats from `at` to `at + floats` may be read for `'a`.
    starts: &'a [*const f32],
    at: usize,
    floats: usize,
}

impl<'a> Window<'a> {
    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The `floats` floats from `at` on of each. Panics where they go past the end.
    #[inline(always)]
    pub fn part(self, at: usize, floats: usize) -> Window<'a> {
        assert!(at <= self.floats && floats <= self.floats - at);
        Window { at: self.at + at, floats, ..self }
    }

    /// Some of the rows.
    pub fn range(self, rows: Range<usize>) -> Window<'a> {
        Window { starts: &self.starts[rows], ..self }
    }

    /// The first `count` rows, and the others.
    pub fn split_at(self, count: usize) -> (Window<'a>, Window<'a>) {
        let (first, others) = self.starts.split_at(count);
        (Window { starts: first, ..self }, Window { starts: others, ..self })
    }

    /// `V` vectors of each. Panics where there are fewer.
    #[inline(always)]
    pub fn vectors<S: Simd, const V: usize>(
        self,
        _: S,
    ) -> impl Iterator<Item = [S::f32s; V]> + use<'a, S, V> {
        assert!(V * S::F32_LANES <= self.floats);
        let at = self.at;
        // SAFETY: so many floats may be read, and any bits are a vector of floats.
        self.starts.iter().map(move |&start| unsafe { start.add(at).cast::<[S::f32s; V]>().read_unaligned() })
    }

    /// The first `count` floats of a row. Panics where there are fewer.
    #[inline(always)]
    pub fn row(self, row: usize, count: usize) -> &'a [f32] {
        assert!(count <= self.floats);
        // SAFETY: so many floats may be read.
        unsafe { std::slice::from_raw_parts(self.starts[row].add(self.at), count) }
    }

    /// Brings the cache line closer that lies so many floats on in a row, if there is one.
    #[inline(always)]
    pub fn ahead(&self, row: usize, floats: usize) {
        prefetch(self.starts[row].wrapping_add(self.at + floats));
    }

    /// Where each begins, for assembly: `floats` floats may be read there. Panics where there are fewer.
    #[cfg(target_arch = "x86_64")]
    pub fn starts(&self, floats: usize) -> (&'a [*const f32], usize) {
        assert!(floats <= self.floats);
        (self.starts, self.at)
    }
}
