//! Buffers that one thread writes in some steps, and all read in others; the barriers between keep them from ever waiting here.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::buffer::Buffer;
use crate::layout::BEHIND;

/// Such a buffer.
pub(super) type Part = RwLock<Buffer>;

pub(super) fn part(floats: usize) -> Part {
    RwLock::new(Buffer::large(floats))
}

/// For planes of features.
pub(super) fn planes(floats: usize) -> Part {
    part(floats + BEHIND)
}

pub(super) fn read(part: &Part) -> RwLockReadGuard<'_, Buffer> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write(part: &Part) -> RwLockWriteGuard<'_, Buffer> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

/// Some parts, to be read.
pub(super) struct All<'a>(Vec<RwLockReadGuard<'a, Buffer>>);

impl<'a> All<'a> {
    pub fn of(parts: impl IntoIterator<Item = &'a Part>) -> All<'a> {
        All(parts.into_iter().map(read).collect())
    }

    pub fn get(&self) -> Vec<&[f32]> {
        self.0.iter().map(|part| part.get()).collect()
    }
}
