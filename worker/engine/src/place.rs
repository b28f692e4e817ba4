//! Where planes lie that several threads make: each writes planes of its own buffer, all read all.

use std::ops::Range;

/// A plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whose buffer it lies in.
    pub part: u32,
    /// The float at which it begins there.
    pub offset: u32,
}

impl Place {
    pub fn new(part: usize, offset: usize) -> Place {
        Place { part: part as u32, offset: offset as u32 }
    }

    /// The floats from so far behind its beginning on.
    #[inline(always)]
    pub fn of<'a>(self, parts: &[&'a [f32]], at: usize) -> &'a [f32] {
        &parts[self.part as usize][self.offset as usize + at..]
    }
}

/// The share of thread `thread` of `threads` in `count` pieces of work.
pub(crate) fn share(count: usize, thread: usize, threads: usize) -> Range<usize> {
    count * thread / threads..count * (thread + 1) / threads
}
