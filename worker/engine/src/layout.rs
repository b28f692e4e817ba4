//! How the maps of a block lie in memory.
//!
//! Features are planes, one a channel, each with room behind it, so that vectors may run over its end. A dense layer's middle, what
//! its 1×1 convolution hands to its 3×3, has zeros around it and is made in bands of rows, so that it stays in the cache.

use crate::instructions::Core;
use crate::network;
use crate::spatial::{channels, pairs, rows};

/// Bytes of a middle that are made before they are used, at most; half of the second-level cache, where that is less.
const BAND_BYTES: usize = 512 << 10;

/// What vectors go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// All pixels of a plane, with a column of zeros between the rows.
    Plane,
    /// Along rows with nothing between them: for groups of few outputs, each row that is loaded serves three.
    Rows,
    /// Likewise, but the 3×3 makes two rows at a time: for groups of more outputs, where registers are many.
    Pairs,
    /// Outputs: for small maps, whose middle lies in blocks of so many channels.
    Channels(usize),
    /// Likewise, but the 3×3 makes squares of 2×2 pixels: for maps that are large enough for its many weights.
    Squares(usize),
}

impl Along {
    /// Channels of a block of such a middle: those of a pixel lie side by side.
    pub fn side(self) -> usize {
        match self {
            Along::Channels(side) | Along::Squares(side) => side,
            _ => BLOCK,
        }
    }
}

/// Most channels of a block.
pub(crate) const BLOCK: usize = 16;

/// Floats of a cache line.
const LINE: usize = 16;

/// Largest map that vectors of outputs are used for, in pixels; for groups of few outputs, vectors of pixels are better on the larger ones.
const SMALL: usize = 16;

/// Largest map whose 3×3 is not made in squares: what they save in products, their weights would cost to bring.
const SMALLER: usize = 8;

/// Outputs of a group for which squares pay: what is made of its inputs costs as much as some.
const MANY: usize = 8;

/// Edge of the squares of pixels that are turned at once; they may run over the end of a plane.
const EDGE: usize = 8;

/// Floats behind the last plane of features that may be read, though nobody uses them.
pub(crate) const BEHIND: usize = LINE;

/// The layout of a block's maps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub along: Along,
    /// Edge of the maps, in pixels.
    pub size: usize,
    /// Rows of them that lie together; all, unless threads share them.
    pub rows: usize,
    /// Floats of a vector.
    pub lanes: usize,
    /// Floats from row to row of the features.
    pub stride: usize,
    /// Floats from plane to plane of the features.
    pub plane: usize,
    /// Floats from row to row of the middle.
    pub middle_stride: usize,
    /// Zeros of them, the first one before the row.
    pub margin: usize,
    /// Where the row above a band begins in a plane of the middle: so that most of what is written there begins on a cache line.
    pub lead: usize,
    /// Floats from plane to plane of the middle, or from block to block.
    pub middle_plane: usize,
    /// Rows that are made at once.
    pub band: usize,
}

/// A stretch of pixels, from one buffer to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Vectors.
    pub vectors: usize,
    /// Where it begins in a plane of the one buffer, and of the other.
    pub from: usize,
    pub to: usize,
}

/// So many floats or more: an odd number of cache lines, so that what is read side by side does not compete for the same places
/// of a cache.
fn spread(floats: usize) -> usize {
    (floats.div_ceil(LINE) | 1) * LINE
}

/// Channels of the middle that can lie side by side: so many that each 3×3 convolution sees all of them or none, and reads nothing else.
fn side(block: &network::Block) -> usize {
    let fits = |side: usize| {
        block.layers.iter().all(|layer| {
            let inputs = layer.spatial.inputs / layer.spatial.groups;
            let mut sides = layer.pointwise.groups.iter().flat_map(|group| group.outputs.chunks(side));
            sides.all(|side| side.iter().all(|channel| channel / inputs == side[0] / inputs))
        })
    };
    [BLOCK, 8, 4].into_iter().find(|&side| fits(side)).unwrap_or(BLOCK)
}

impl Layout {
    /// What vectors go along best in a block.
    pub fn along(block: &network::Block, core: Core) -> Along {
        let outputs = |layer: &network::Layer| layer.spatial.outputs / layer.spatial.groups;
        let fewest = block.layers.iter().map(outputs).min().unwrap_or(0);
        let fits = |layer: &network::Layer| {
            let middle = layer.pointwise.groups.iter().all(|group| group.outputs.len().is_multiple_of(BLOCK));
            middle && outputs(layer).is_multiple_of(core.lanes)
        };
        if (4..=BLOCK).contains(&core.lanes) && block.layers.iter().all(fits) {
            match block.size {
                ..=SMALLER => return Along::Channels(side(block)),
                ..=SMALL if fewest >= MANY => return Along::Squares(side(block)),
                _ => {}
            }
        }
        // Half vectors that are multiplied for an output of an input.
        let Core { lanes, .. } = core;
        let rest = match block.size % lanes {
            0 => 0,
            rest if pairs::fit_half(lanes, rest) => 1,
            _ => 2,
        };
        let pairs = 12 * block.size.div_ceil(2) * (2 * (block.size / lanes) + rest);
        let flat = 2 * 9 * (block.size * (block.size + 1)).div_ceil(lanes);
        // Where what is made of the inputs costs as much as the products that it saves, pairs gain little beside tiles of a few outputs,
        // nothing beside those of many; what is left is what the 1×1 gains from rows side by side, which is most on small maps.
        let pays = core.beside || block.size <= if fewest < 8 { 2 * SMALL } else { SMALL };
        if core.many_registers && fewest >= 2 && pays && pairs < flat {
            return Along::Pairs;
        }
        let wide = core.lanes > 1 && block.size >= core.lanes;
        if fewest <= 2 && wide { Along::Rows } else { Along::Plane }
    }

    /// For whole maps of `size`² pixels, whose middle of so many channels is shared by some threads.
    pub fn new(along: Along, size: usize, middle: usize, core: Core, threads: usize) -> Layout {
        Layout::of_rows(along, size, size, middle.div_ceil(threads), core)
    }

    /// For so many rows of such maps, whose middle has so many channels.
    pub fn of_rows(along: Along, size: usize, count: usize, middle: usize, core: Core) -> Layout {
        let Core { lanes, .. } = core;
        let (stride, middle_stride) = match along {
            Along::Plane => (size + 1, size + 1),
            Along::Rows | Along::Pairs => (size, size),
            Along::Channels(_) if channels::skips_ends(size) => (size, size),
            Along::Channels(_) => (size, size + 2),
            Along::Squares(_) => (size, size.next_multiple_of(2) + 2),
        };
        let margin = middle_stride - size;
        let bytes = 4 * middle * middle_stride * count;
        let bands = match along {
            Along::Channels(_) | Along::Squares(_) => 1,
            _ => bytes.div_ceil(BAND_BYTES.min(core.cache / 2)).clamp(1, count),
        };
        let band = match along {
            Along::Pairs if bands > 1 => count.div_ceil(bands).next_multiple_of(2),
            Along::Rows if bands > 1 => count.div_ceil(bands).next_multiple_of(rows::MOST),
            _ => count.div_ceil(bands),
        };
        // Two rows are carried from band to band; a single band has but one before what is made.
        let before = if bands == 1 { 1 } else { 2 } * middle_stride + margin;
        // Where no zero is left of a row, a float is read there nevertheless.
        let lead = (before + 1 - margin.min(1)).next_multiple_of(LINE) - before;
        Layout {
            along,
            size,
            rows: count,
            lanes,
            stride,
            plane: match along {
                // Little between them: so more of them stay in the second-level cache. Halving reads a line of floats of the last row.
                Along::Channels(_) | Along::Squares(_) => {
                    (count * stride + EDGE - 1).max((count - 1) * stride + LINE).next_multiple_of(EDGE)
                }
                _ => spread((count * stride).next_multiple_of(lanes) + lanes.max(LINE)),
            },
            middle_stride,
            margin,
            lead,
            middle_plane: match along {
                // The last row may be read as if it were longer.
                Along::Channels(side) => ((size + 2) * middle_stride + BLOCK) * side,
                // A slice of the last pixel may be read as if it were a block.
                Along::Squares(side) => (middle_stride * middle_stride + 1) * side,
                _ => {
                    // Half a pair of rows is made as if it were a whole one.
                    let rows = if along == Along::Pairs { band.next_multiple_of(2) } else { band } + 2;
                    spread(lead + (rows * middle_stride + 2).next_multiple_of(lanes) + 2 * lanes)
                }
            },
            band,
        }
    }

    /// The first `count` rows of a plane, a band after another.
    pub fn bands(&self, count: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let band = self.band;
        (0..count).step_by(band).map(move |start| start..(start + band).min(count))
    }

    /// From some rows of the features to the middle, where the first of them becomes row `to`, counted from the zeros above.
    pub fn middle_run(&self, rows: &std::ops::Range<usize>, to: usize) -> Run {
        let vectors = (rows.len() * self.stride).div_ceil(self.lanes);
        Run { vectors, from: rows.start * self.stride, to: self.lead + to * self.middle_stride + self.margin }
    }

    /// A plane of features as a whole.
    pub fn whole(&self) -> Run {
        Run { vectors: (self.rows * self.stride).div_ceil(self.lanes), from: 0, to: 0 }
    }

    /// Where each pixel lies in a block of channels.
    pub fn pixels(&self) -> Vec<u32> {
        let at = |i: usize| (i / self.size + 1) * self.middle_stride + i % self.size + 1;
        (0..self.size * self.size).map(|i| at(i) as u32).collect()
    }

    /// Puts zeros above the first band of a middle's plane.
    pub fn begin(&self, plane: &mut [f32]) {
        plane[self.lead..][..self.middle_stride + 1].fill(0.0);
    }

    /// Moves the last two rows of a band to the place of the two above the next.
    pub fn carry(&self, plane: &mut [f32]) {
        let (lead, stride) = (self.lead, self.middle_stride);
        plane.copy_within(lead + self.band * stride..lead + (self.band + 2) * stride + 1, lead);
    }

    /// Puts the zeros back behind rows of a middle's plane, from row `first` on, counted from the zeros above; vectors ran over them.
    pub fn pad(&self, plane: &mut [f32], first: usize, rows: usize, last: bool) {
        let stride = self.middle_stride;
        let plane = &mut plane[self.lead + first * stride..];
        let after = if self.margin > 0 {
            for row in plane.chunks_exact_mut(stride).take(rows) {
                row[0] = 0.0;
            }
            let after = &mut plane[rows * stride..];
            after[0] = 0.0;
            after
        } else {
            &mut plane[rows * stride..]
        };
        if last {
            after[..stride + self.lanes].fill(0.0);
        }
    }
}
