//! Brings a strip of pixels of many channels into the cache, normalised and rectified, tile after tile of pixels.

use pulp::Simd;

use crate::norm::Affine;
use crate::tile::{VECTORS, load, pixels, tiles_mut};

/// Bytes of a panel: half of the second-level cache that today's cores have.
const PANEL_BYTES: usize = 256 << 10;

/// Longest strip, in pixels: what is longer saves nothing.
const LONGEST: usize = 512;

/// A run of pixels of a plane.
#[derive(Debug, Clone, Copy)]
pub struct Strip {
    /// The first pixel.
    pub start: usize,
    /// How many.
    pub length: usize,
    /// Tiles that hold them.
    pub tiles: usize,
}

/// Cuts a plane into strips such that a panel of so many channels fits into the cache.
pub fn strips<S: Simd>(plane: usize, channels: usize) -> impl Iterator<Item = Strip> {
    let tile = pixels::<S>();
    let fits = PANEL_BYTES / (4 * channels.max(1));
    let length = (fits.min(LONGEST) / tile * tile).max(tile);
    (0..plane).step_by(length).map(move |start| {
        let length = length.min(plane - start);
        Strip { start, length, tiles: length.div_ceil(tile) }
    })
}

/// Where a channel's mask of a dropout begins, and what is kept is multiplied with.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// 1 where kept, 0 where dropped, as `values`.
    pub mask: &'a [u8],
    /// 1 / (1 − probability)
    pub scale: f32,
}

/// Of one image: its planes, what a batch norm makes of them, and which of them are needed.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// [channels, pixels]
    pub image: &'a [f32],
    /// Pixels of a plane.
    pub plane: usize,
    /// Channels of a panel.
    pub channels: usize,
    /// The batch norm.
    pub affine: &'a Affine,
    /// The channels that are needed.
    pub used: &'a [u32],
    /// The dropout after the ReLU, if there is one.
    pub kept: Option<Kept<'a>>,
}

/// Fills `panel` ([tile][channel][pixel]) with relu(scale·x + shift) of the channels that are needed; 0 past the strip.
#[inline(always)]
pub fn activations<S: Simd>(simd: S, panel: &mut [f32], source: Source<'_>, strip: Strip) {
    let Source { image, plane, channels, affine, used, kept } = source;
    let zero = simd.splat_f32s(0.0);
    let (lanes, tile) = (S::F32_LANES, pixels::<S>());
    let ragged = strip.length % tile;
    for &channel in used {
        let channel = channel as usize;
        let from = &image[channel * plane + strip.start..][..strip.length];
        let scale = simd.splat_f32s(affine.scale[channel]);
        let shift = simd.splat_f32s(affine.shift[channel]);
        let tiles = tiles_mut::<S>(panel);
        for t in 0..strip.tiles {
            let row = &mut tiles[t * channels + channel];
            for v in 0..VECTORS {
                let x = load(simd, from, t * tile + v * lanes);
                row[v] = simd.max_f32s(simd.mul_add_e_f32s(scale, x, shift), zero);
            }
        }
        if ragged > 0 {
            // Past the strip there is nothing; not a shift.
            panel[((strip.tiles - 1) * channels + channel) * tile..][ragged..tile].fill(0.0);
        }
        if let Some(Kept { mask, scale }) = kept {
            let mask = &mask[channel * plane + strip.start..][..strip.length];
            for (t, mask) in mask.chunks(tile).enumerate() {
                let row = &mut panel[(t * channels + channel) * tile..][..mask.len()];
                row.iter_mut().zip(mask).for_each(|(x, &kept)| *x *= scale * f32::from(kept));
            }
        }
    }
}
