//! Blocks whose rows threads share.
//!
//! A thread that makes whole planes reads planes of all the others: of large maps, which come from another CPU's cache as slowly as from
//! memory, that takes longer than the arithmetic. Of its own rows it sees all planes, and but a row of its neighbours'.

use std::ops::Range;

use crate::layout::Along;
use crate::packed;
use crate::place::share;

/// Rows of a thread at least: those of its neighbours are made once more.
const FEWEST: usize = 14;

/// Each thread's rows of each of the blocks at the beginning whose rows threads share. They are twice those of the next block, so that a
/// thread needs nobody to halve them.
pub(super) fn shares(blocks: &[packed::Block], threads: usize) -> Vec<Vec<Range<usize>>> {
    let by_rows = |block: &&packed::Block| {
        let planes = !matches!(block.along, Along::Channels(_) | Along::Squares(_));
        planes && block.transition.is_none() && threads > 1 && block.size / threads >= FEWEST
    };
    // What comes after the last block wants whole planes.
    let before_last = &blocks[..blocks.len().saturating_sub(1)];
    let count = before_last.iter().take_while(by_rows).count();
    let Some(last) = count.checked_sub(1) else { return Vec::new() };
    let shares = |i: usize| {
        (0..threads).map(move |thread| {
            let (Range { start, end }, times) =
                (share(blocks[last].size / 2, thread, threads), 2 << (last - i));
            let end = if thread + 1 == threads { blocks[i].size } else { end * times };
            start * times..end
        })
    };
    (0..count).map(|i| shares(i).collect()).collect()
}
