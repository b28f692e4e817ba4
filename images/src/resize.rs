//! Resizing: bilinear, antialiased where it makes smaller, as Pillow and torchvision do.

use std::fmt::Display;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::crop::{CentreCrop, RandomResizedCrop, Region};
use crate::decode::{DecodeError, Encoded};
use crate::raster::Raster;

/// Makes images the size that a network takes. Keeps its tables and buffers from one image to the next: one a thread.
#[derive(Default)]
pub struct Resize {
    resizer: Resizer,
    /// The image of the width that is wanted, and of its own height.
    narrowed: Vec<u8>,
}

impl Resize {
    /// A training image: a region of it, `side`×`side` pixels large then; flipping is left to who lays out its planes.
    ///
    /// # Errors
    /// When the image is damaged.
    pub fn crop(
        &mut self,
        image: Encoded<'_>,
        crop: RandomResizedCrop,
        side: u32,
    ) -> Result<Raster, DecodeError> {
        let (raster, region) = image.decode(crop.region)?;
        self.region(&raster, region, side, side)
    }

    /// A test image: all of it resized, then its middle.
    ///
    /// # Errors
    /// When the image is damaged.
    pub fn centre(&mut self, image: Encoded<'_>, shorter: u32, side: u32) -> Result<Raster, DecodeError> {
        let (width, height) = image.size();
        let crop = CentreCrop::of(width, height, shorter, side);
        let (raster, all) = image.decode(Region { left: 0, top: 0, width, height })?;
        let resized = self.region(&raster, all, crop.width, crop.height)?;
        let Region { left, top, width, height } = crop.region;
        let rows = resized.pixels.chunks_exact(3 * resized.width as usize);
        let wanted = rows.skip(top as usize).take(height as usize);
        let pixels =
            wanted.flat_map(|row| &row[3 * left as usize..][..3 * width as usize]).copied().collect();
        Ok(Raster { width, height, pixels })
    }

    /// All of an image, its shorter side `shorter` pixels then.
    ///
    /// # Errors
    /// When it would become too large: its sides are too different.
    pub fn shorter_side(&mut self, raster: &Raster, shorter: u32) -> Result<Raster, DecodeError> {
        let Raster { width, height, .. } = *raster;
        let crop = CentreCrop::of(width, height, shorter, shorter);
        self.region(raster, Region { left: 0, top: 0, width, height }, crop.width, crop.height)
    }

    fn region(
        &mut self,
        raster: &Raster,
        region: Region,
        width: u32,
        height: u32,
    ) -> Result<Raster, DecodeError> {
        crate::decode::check_size(width.into(), height.into())?;
        let cannot = |why: &dyn Display| DecodeError::Damaged { format: "the image", why: why.to_string() };
        let source = TypedImageRef::<U8x3>::from_buffer(raster.width, raster.height, &raster.pixels)
            .map_err(|error| cannot(&error))?;
        let Region { left, top, width: w, height: h } = region;
        // A view of the region alone: what lies beside it must not shine in.
        let source = TypedCroppedImage::from_ref(&source, left, top, w, h).map_err(|error| cannot(&error))?;
        // Rows first and then columns, as Pillow does: in the other order, which the library prefers, rounding differs.
        self.narrowed.resize(3 * width as usize * h as usize, 0);
        let mut narrowed =
            TypedImage::<U8x3>::from_buffer(width, h, &mut self.narrowed).map_err(|error| cannot(&error))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        self.resizer.resize_typed(&source, &mut narrowed, &options).map_err(|error| cannot(&error))?;
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        let mut resized =
            TypedImage::<U8x3>::from_buffer(width, height, &mut pixels).map_err(|error| cannot(&error))?;
        self.resizer.resize_typed(&narrowed, &mut resized, &options).map_err(|error| cannot(&error))?;
        Ok(Raster { width, height, pixels })
    }
}
