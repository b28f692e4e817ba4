//! Floats that begin on a cache line: vectors of a plane then do not lie across two, and no two threads' buffers share one.

/// Floats of a cache line.
const LINE: usize = 16;

/// A fixed number of floats, 0 at first.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    floats: Vec<f32>,
    start: usize,
    length: usize,
}

impl Buffer {
    pub fn new(length: usize) -> Buffer {
        let floats = vec![0.0; length + LINE];
        let start = floats.as_ptr().align_offset(4 * LINE).min(LINE);
        Buffer { floats, start, length }
    }

    pub fn get(&self) -> &[f32] {
        &self.floats[self.start..][..self.length]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..][..self.length]
    }
}

impl Buffer {
    /// So many floats, of any value.
    pub fn room(&mut self, floats: usize) -> &mut [f32] {
        if self.length < floats {
            *self = Buffer::new(floats);
        }
        &mut self.get_mut()[..floats]
    }
}

impl From<&[f32]> for Buffer {
    fn from(floats: &[f32]) -> Buffer {
        let mut buffer = Buffer::new(floats.len());
        buffer.get_mut().copy_from_slice(floats);
        buffer
    }
}
