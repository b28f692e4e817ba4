//! Floats that begin on a cache line: vectors of a plane then do not lie across two, and no two threads' buffers share one. What is large
//! lies in large pages: weights are read once an image, and planes of features in no order.

use std::sync::Arc;

/// Floats of a cache line.
const LINE: usize = 16;

/// Floats of a large page.
const PAGE: usize = (2 << 20) / 4;

/// A fixed number of floats, 0 at first.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    floats: Vec<f32>,
    start: usize,
    length: usize,
}

impl Buffer {
    pub fn new(length: usize) -> Buffer {
        Buffer::aligned(length, LINE)
    }

    /// In large pages, where it fills a good part of one and the system has some.
    pub fn large(length: usize) -> Buffer {
        if length < PAGE / 8 {
            return Buffer::new(length);
        }
        let mut buffer = Buffer::aligned(length.next_multiple_of(PAGE), PAGE);
        large_pages(buffer.get());
        buffer.length = length;
        buffer
    }

    /// Begins at a multiple of so many floats.
    fn aligned(length: usize, align: usize) -> Buffer {
        let floats = vec![0.0; length + align];
        let start = floats.as_ptr().align_offset(4 * align).min(align);
        Buffer { floats, start, length }
    }

    pub fn get(&self) -> &[f32] {
        &self.floats[self.start..][..self.length]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..][..self.length]
    }

    /// So many floats, of any value.
    pub fn room(&mut self, floats: usize) -> &mut [f32] {
        if self.length < floats {
            *self = Buffer::new(floats);
        }
        &mut self.get_mut()[..floats]
    }
}

/// Asks the system to put floats that nobody has written yet into large pages; it may decline.
#[allow(unsafe_code)]
fn large_pages(floats: &[f32]) {
    #[cfg(target_os = "linux")]
    // SAFETY: the memory is that of the slice, and the advice does not change what is read from it.
    unsafe {
        libc::madvise(floats.as_ptr().cast_mut().cast(), size_of_val(floats), libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = floats;
}

/// Many weights: a part of a buffer.
#[derive(Debug)]
pub(crate) struct Weights {
    buffer: Arc<Buffer>,
    start: usize,
    length: usize,
}

impl Weights {
    pub fn get(&self) -> &[f32] {
        &self.buffer.get()[self.start..][..self.length]
    }

    /// Puts many into one buffer, in their order.
    pub fn gather(mut many: Vec<&mut Weights>) {
        let room = |weights: &Weights| weights.length.next_multiple_of(LINE);
        let mut buffer = Buffer::large(many.iter().map(|weights| room(weights)).sum());
        let mut start = 0;
        for weights in &mut many {
            buffer.get_mut()[start..][..weights.length].copy_from_slice(weights.get());
            weights.start = start;
            // What it lay in is not needed any more.
            weights.buffer = Arc::default();
            start += room(weights);
        }
        let buffer = Arc::new(buffer);
        many.into_iter().for_each(|weights| weights.buffer = buffer.clone());
    }
}

impl From<&[f32]> for Buffer {
    fn from(floats: &[f32]) -> Buffer {
        let mut buffer = Buffer::new(floats.len());
        buffer.get_mut().copy_from_slice(floats);
        buffer
    }
}

impl From<&[f32]> for Weights {
    fn from(floats: &[f32]) -> Weights {
        Weights { buffer: Arc::new(Buffer::from(floats)), start: 0, length: floats.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_gathered_keep_their_values_and_begin_on_cache_lines() {
        let lengths = [1, 16, 17, PAGE + 3, 5];
        let floats = |i: usize| (0..lengths[i]).map(|x| (i + x) as f32).collect::<Vec<f32>>();
        let mut all: Vec<Weights> = (0..lengths.len()).map(|i| Weights::from(floats(i).as_slice())).collect();
        Weights::gather(all.iter_mut().collect());
        for (i, weights) in all.iter().enumerate() {
            assert_eq!(weights.get(), floats(i));
            assert_eq!(weights.get().as_ptr().align_offset(4 * LINE), 0);
        }
    }
}
