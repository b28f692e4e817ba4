//! Between blocks: the mean of each square of 2×2 pixels.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::layout::Layout;
use crate::place::Place;

/// What a thread does of it.
pub(crate) struct Work<'a> {
    /// Channels of the block that is entered.
    pub channels: Range<usize>,
    /// Everybody's features, and where each channel lies.
    pub features: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub from: &'a Layout,
    pub into: &'a Layout,
    /// Planes of its channels, one after another.
    pub to: &'a mut [f32],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Work { channels, features, places, from, into, to } = self;
        for (place, to) in places[channels].iter().zip(to.chunks_exact_mut(into.plane)) {
            let plane = &place.of(features, 0)[..from.plane];
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
