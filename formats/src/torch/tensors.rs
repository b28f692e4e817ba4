//! From views of storages to arrays.

use super::pickle::{Storage, Tensor};
use crate::budget::Budget;
use crate::{Array, ReadError};

/// Where a file keeps its storages.
pub(super) trait Storages {
    /// The bytes of a storage, exactly as many as its elements take.
    ///
    /// # Errors
    /// When the file has no such storage, or one of another size.
    fn load(
        &self,
        key: &[u8],
        storage: &Storage,
        budget: &mut Budget,
    ) -> Result<std::borrow::Cow<'_, [u8]>, ReadError>;
}

/// The bytes of a storage's elements.
pub(super) fn storage_bytes(storage: &Storage) -> Option<usize> {
    usize::try_from(storage.len).ok()?.checked_mul(storage.element.bytes())
}

/// The array that a tensor shows of its storage.
///
/// # Errors
/// When it reaches beyond the storage, or takes more than the budget.
pub(super) fn array(tensor: &Tensor, storage: &[u8], budget: &mut Budget) -> Result<Array, ReadError> {
    let element = tensor.storage.element;
    let view = View::of(tensor, storage.len() / element.bytes()).ok_or_else(|| {
        let (shape, strides, offset) = (&tensor.shape, &tensor.strides, tensor.offset);
        let elements = tensor.storage.part.1;
        ReadError::damaged(format!(
            "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} reaches beyond the {elements} elements of \
             its storage"
        ))
    })?;
    budget.spend(element.cost(view.count))?;
    let bytes = element.widen(view.gather(storage, element.bytes()));
    Array::new(element.dtype(), view.shape, bytes).map_err(ReadError::Damaged)
}

/// A tensor whose every element lies within its storage.
struct View {
    first: usize,
    count: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    /// None when it reaches beyond the part of the storage that it may see, or what there is of it.
    fn of(tensor: &Tensor, stored: usize) -> Option<View> {
        let sizes =
            |sizes: &[u64]| sizes.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<usize>>>();
        let (shape, mut strides) = (sizes(&tensor.shape)?, sizes(&tensor.strides)?);
        // A dimension of size 1 is never stepped along; what stands there may be anything.
        strides.iter_mut().zip(&shape).filter(|(_, n)| **n == 1).for_each(|(stride, _)| *stride = 0);
        let (part, elements) = tensor.storage.part;
        let first = usize::try_from(part.checked_add(tensor.offset)?).ok()?;
        let end = usize::try_from(part.checked_add(elements)?).ok()?.min(stored);
        // Sizes of 0 hide overflow in any order of multiplication; without them there is none to hide.
        if shape.contains(&0) {
            return (first <= end).then_some(View { first, count: 0, shape, strides });
        }
        let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n))?;
        let steps = shape.iter().zip(&strides);
        let last = steps
            .clone()
            .try_fold(first, |at, (&n, &stride)| at.checked_add((n - 1).checked_mul(stride)?))?;
        (last < end).then_some(View { first, count, shape, strides })
    }

    fn gather(&self, storage: &[u8], size: usize) -> Vec<u8> {
        if self.count == 0 {
            return Vec::new();
        }
        if self.is_contiguous() {
            return storage[self.first * size..][..self.count * size].to_vec();
        }
        let mut out = Vec::with_capacity(self.count * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.first;
        for _ in 0..self.count {
            out.extend_from_slice(&storage[at * size..][..size]);
            // The next index, as an odometer counts.
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                at += self.strides[dimension];
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                at -= self.shape[dimension] * self.strides[dimension];
                index[dimension] = 0;
            }
        }
        out
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if n != 1 && stride != expected {
                return false;
            }
            expected *= n;
        }
        true
    }
}
