//! JPEG: baseline and progressive, grey, colour and CMYK.

use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, PixelFormat, Subsampling};

use super::{DecodeError, MOST_PIXELS, check_size};
use crate::crop::Region;
use crate::raster::Raster;

/// Memory that decoding one may take: a progressive image keeps its coefficients, two bytes each.
const MOST_MEMORY: u64 = 16 * MOST_PIXELS;
/// Scans of a progressive image; encoders make about ten. More of them only cost time.
const MOST_SCANS: usize = 500;

/// A JPEG whose head has been read.
pub struct Jpeg<'a> {
    /// Over a kilobyte of tables and settings.
    decoder: Box<Decoder<'a>>,
}

impl<'a> Jpeg<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Jpeg<'a>, DecodeError> {
        let limits = DecodeLimits {
            max_pixels: MOST_PIXELS,
            max_scans: MOST_SCANS,
            max_memory: Some(MOST_MEMORY),
            ..DecodeLimits::default()
        };
        let decoder = Decoder::new_with_limits(bytes, limits).map_err(damaged)?;
        let jpeg = Jpeg { decoder: Box::new(decoder) };
        let (width, height) = jpeg.size();
        check_size(width.into(), height.into())?;
        Ok(jpeg)
    }

    pub(super) fn size(&self) -> (u32, u32) {
        let header = self.decoder.header();
        (header.width.into(), header.height.into())
    }

    pub(super) fn decode(mut self, region: Region) -> Result<(Raster, Region), DecodeError> {
        let (image_width, image_height) = self.size();
        let cmyk = matches!(self.decoder.jpeg_color_space(), ColorSpace::Cmyk | ColorSpace::Ycck);
        self.decoder.set_output_format(if cmyk { PixelFormat::Cmyk } else { PixelFormat::Rgb });
        // Of inks, all: the decoder's parts of them are not the whole's.
        let margin = if cmyk { u32::MAX } else { MARGIN };
        let Region { left, top, width, height } = with_margin(region, margin, image_width, image_height);
        if (width, height) != (image_width, image_height) {
            let [x, y, width, height] = [left, top, width, height].map(|n| n as usize);
            self.decoder.set_crop_region(x, y, width, height);
        }
        let image = self.decoder.decode_image().map_err(damaged)?;
        let pixels =
            if cmyk { image.data.chunks_exact(4).flat_map(rgb_of_cmyk).collect() } else { image.data };
        let raster = Raster { width: image.width as u32, height: image.height as u32, pixels };
        // The decoder starts at or left of what was asked for, and ends there.
        let start = (left + width).checked_sub(raster.width);
        let whole = raster.pixels.len() as u64 == 3 * u64::from(raster.width) * u64::from(raster.height);
        match start {
            Some(start) if whole && raster.height == height && start <= region.left => {
                Ok((raster, Region { left: region.left - start, top: region.top - top, ..region }))
            }
            _ => Err(damaged("it has fewer pixels than its head says")),
        }
    }
}

/// Pixels around a region that its pixels depend on. Subsampled colours are interpolated between neighbours, and at the border of
/// what is decoded a neighbour is missing.
const MARGIN: u32 = 16;

fn with_margin(region: Region, margin: u32, width: u32, height: u32) -> Region {
    let (left, top) = (region.left.saturating_sub(margin), region.top.saturating_sub(margin));
    let right = (region.left + region.width).saturating_add(margin).min(width);
    let bottom = (region.top + region.height).saturating_add(margin).min(height);
    Region { left, top, width: right - left, height: bottom - top }
}

/// Inks as Adobe's programs store them, inverted: 255 is none. As Pillow converts them.
fn rgb_of_cmyk(inks: &[u8]) -> [u8; 3] {
    let [c, m, y, white] = [0, 1, 2, 3].map(|i| u32::from(inks[i]));
    [c, m, y].map(|ink| {
        // white · (255 − ink) / 255, rounded
        let product = white * (255 - ink) + 128;
        (white - ((product + (product >> 8)) >> 8)) as u8
    })
}

/// Encodes for a pack, with full colour resolution.
///
/// # Errors
/// When the image has no pixels, or too many.
pub fn encode(raster: &Raster, quality: u8) -> Result<Vec<u8>, DecodeError> {
    let (width, height) = (raster.width as usize, raster.height as usize);
    libjpeg_turbo_rs::compress(&raster.pixels, width, height, PixelFormat::Rgb, quality, Subsampling::S444)
        .map_err(damaged)
}

fn damaged(why: impl ToString) -> DecodeError {
    DecodeError::Damaged { format: "the JPEG", why: why.to_string() }
}
