//! Brings weights closer before they are needed: they are read once an image, and come from far.

/// Floats of a cache line.
pub(crate) const LINE: usize = 16;

/// Asks for the cache lines of some floats.
#[inline(always)]
pub(crate) fn prefetch(floats: &[f32]) {
    floats.chunks(LINE).for_each(|line| prefetch_line(line.as_ptr()));
}

/// Asks for a cache line, wherever it may be.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch_line(float: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has this instruction; it has no effect but on caches, and none where there is no memory.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(float.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = float;
}

/// Asks for the cache line of the float at `at`, if there is one.
#[inline(always)]
pub(crate) fn ahead(floats: &[f32], at: usize) {
    prefetch_line(floats.as_ptr().wrapping_add(at));
}

/// Asks for what comes after some floats, a part of so many at each step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead<'a> {
    floats: &'a [f32],
    step: usize,
}

impl<'a> Ahead<'a> {
    /// The first `count` floats, or as many as there are, in `steps` steps.
    pub fn new(floats: &'a [f32], count: usize, steps: usize) -> Ahead<'a> {
        let floats = &floats[..count.min(floats.len())];
        Ahead { floats, step: floats.len().div_ceil(steps.max(1)).next_multiple_of(LINE) }
    }

    /// The next part.
    #[inline(always)]
    pub fn step(&mut self) {
        let (part, rest) = self.floats.split_at(self.step.min(self.floats.len()));
        prefetch(part);
        self.floats = rest;
    }
}
