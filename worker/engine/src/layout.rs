//! How the maps of a block lie in memory.
//!
//! Features are planes, one a channel, each with room behind it, so that vectors may run over its end. A dense layer's middle, what
//! its 1×1 convolution hands to its 3×3, has zeros around it and is made in bands of rows, so that it stays in the cache.

use crate::instructions::Registers;
use crate::network;

/// Bytes of a middle that are made before they are used: a share of the second-level cache.
const BAND_BYTES: usize = 256 << 10;

/// What vectors go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// Rows, from their first pixel to their last: for groups of few outputs, which reuse each row that is loaded for three.
    Rows,
    /// All pixels of a plane, with a column of zeros between the rows.
    Plane,
    /// Outputs: for small maps, whose middle lies in blocks of channels.
    Channels,
}

/// Channels of a block of such a middle: those of a pixel lie side by side.
pub(crate) const BLOCK: usize = 16;

/// Largest map that vectors of outputs are used for, in pixels.
const SMALL: usize = 16;

/// The layout of a block's maps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub along: Along,
    /// Edge of the maps, in pixels.
    pub size: usize,
    /// Floats of a vector.
    pub lanes: usize,
    /// Floats from row to row of the features.
    pub stride: usize,
    /// Floats from plane to plane of the features.
    pub plane: usize,
    /// Floats from row to row of the middle.
    pub middle_stride: usize,
    /// Zeros before a row of the middle.
    pub left: usize,
    /// Floats from plane to plane of the middle, or from block to block.
    pub middle_plane: usize,
    /// Rows that are made at once.
    pub band: usize,
}

/// Stretches of pixels, from one buffer to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs {
    pub count: usize,
    /// Vectors of each.
    pub vectors: usize,
    /// Where the first begins in a plane of the one buffer, and from each to the next.
    pub from: usize,
    pub from_step: usize,
    /// Likewise in the other.
    pub to: usize,
    pub to_step: usize,
}

impl Layout {
    /// What vectors go along best in a block.
    pub fn along(block: &network::Block, registers: Registers) -> Along {
        let fits = |layer: &network::Layer| {
            let outputs = layer.spatial.outputs / layer.spatial.groups;
            let middle = layer.pointwise.groups.iter().all(|group| group.outputs.len().is_multiple_of(BLOCK));
            middle && outputs.is_multiple_of(registers.lanes)
        };
        let vectors = (4..=BLOCK).contains(&registers.lanes);
        if vectors && block.size <= SMALL && block.layers.iter().all(fits) {
            return Along::Channels;
        }
        let few = block.layers.iter().any(|layer| layer.spatial.outputs / layer.spatial.groups <= 2);
        if few && registers.lanes > 1 { Along::Rows } else { Along::Plane }
    }

    /// For maps of `size`² pixels, whose middle of so many channels is shared by some threads.
    pub fn new(along: Along, size: usize, middle: usize, lanes: usize, threads: usize) -> Layout {
        let (stride, middle_stride, left) = match along {
            Along::Rows => {
                let padded = size.next_multiple_of(lanes);
                (padded, padded + lanes, lanes)
            }
            Along::Plane => (size + 1, size + 1, 1),
            Along::Channels => (size, size + 2, 1),
        };
        let bytes = 4 * middle * middle_stride * size;
        let bands = match along {
            Along::Channels => 1,
            _ => bytes.div_ceil(BAND_BYTES * threads).clamp(1, size),
        };
        let band = size.div_ceil(bands);
        Layout {
            along,
            size,
            lanes,
            stride,
            plane: (size * stride).next_multiple_of(lanes) + lanes,
            middle_stride,
            left,
            middle_plane: match along {
                // The last row may be read as if it were longer.
                Along::Channels => ((size + 2) * middle_stride + BLOCK) * BLOCK,
                _ => ((band + 2) * middle_stride + 2).next_multiple_of(lanes) + 2 * lanes,
            },
            band,
        }
    }

    /// The rows of a plane, a band after another.
    pub fn bands(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let Layout { size, band, .. } = *self;
        (0..size).step_by(band).map(move |start| start..(start + band).min(size))
    }

    /// From some rows of the features to the middle, where the first of them becomes row `to`, counted from the zeros above.
    pub fn middle_runs(&self, rows: &std::ops::Range<usize>, to: usize) -> Runs {
        self.runs(rows.len(), rows.start * self.stride, to * self.middle_stride + self.left)
    }

    fn runs(&self, rows: usize, from: usize, to: usize) -> Runs {
        let (from_step, to_step) = (self.stride, self.middle_stride);
        match self.along {
            Along::Rows => {
                Runs { count: rows, vectors: self.stride / self.lanes, from, from_step, to, to_step }
            }
            Along::Plane | Along::Channels => {
                let vectors = (rows * self.stride).div_ceil(self.lanes);
                Runs { count: 1, vectors, from, from_step, to, to_step }
            }
        }
    }

    /// Where each pixel lies in a block of channels.
    pub fn pixels(&self) -> Vec<u32> {
        let at = |i: usize| (i / self.size + 1) * self.middle_stride + i % self.size + 1;
        (0..self.size * self.size).map(|i| at(i) as u32).collect()
    }

    /// A plane of features as a whole.
    pub fn whole(&self) -> Runs {
        let vectors = (self.size * self.stride).div_ceil(self.lanes);
        Runs { count: 1, vectors, from: 0, from_step: 0, to: 0, to_step: 0 }
    }

    /// Puts the zeros back around rows of a middle's plane, from row `first` on, counted from the zeros above; vectors ran over them.
    pub fn pad(&self, plane: &mut [f32], first: usize, rows: usize, last: bool) {
        let (stride, left, size) = (self.middle_stride, self.left, self.size);
        for row in first..first + rows {
            let (end, next) = (row * stride + left + size, (row + 1) * stride);
            match self.along {
                Along::Plane | Along::Channels => plane[end] = 0.0,
                Along::Rows => plane[end..next].fill(0.0),
            }
        }
        if last {
            plane[(first + rows) * stride..][..stride + self.lanes].fill(0.0);
        }
    }

    /// Moves the last two rows of a band to the place of the two above the next.
    pub fn carry(&self, plane: &mut [f32], rows: usize) {
        let stride = self.middle_stride;
        plane.copy_within(rows * stride..(rows + 2) * stride + 1, 0);
    }
}
