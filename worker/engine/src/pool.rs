//! Between blocks: the mean of each square of 2×2 pixels.

use pulp::{Simd, WithSimd};

use crate::layout::Layout;

/// What a thread does of it: of planes that it made itself, while they are still in the cache.
pub(crate) struct Work<'a> {
    /// Planes, one after another.
    pub planes: &'a [f32],
    pub from: &'a Layout,
    pub into: &'a Layout,
    /// As many planes of the block that is entered.
    pub to: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Work { planes, from, into, to } = self;
        for (plane, to) in planes.chunks_exact(from.plane).zip(to.chunks_exact_mut(into.plane)) {
            for y in 0..into.size {
                let row = |y: usize| &plane[y * from.stride..][..2 * into.size];
                let pairs = row(2 * y).as_chunks::<2>().0.iter().zip(row(2 * y + 1).as_chunks::<2>().0);
                let to = &mut to[y * into.stride..][..into.size];
                for (to, (above, below)) in to.iter_mut().zip(pairs) {
                    *to = 0.25 * ((above[0] + above[1]) + (below[0] + below[1]));
                }
            }
        }
    }
}
