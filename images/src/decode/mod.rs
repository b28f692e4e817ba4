//! From the bytes of a file to pixels. What a file is, its first bytes say: ImageNet has a PNG that is called `.JPEG`.

mod jpeg;
mod png;

pub use jpeg::encode as encode_jpeg;

use crate::crop::Region;
use crate::raster::Raster;

/// Pixels that an image may have: more than any of ImageNet has, and no more than 300 MB of memory a thread.
pub const MOST_PIXELS: u64 = 100_000_000;

/// Why an image cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Neither a JPEG nor a PNG.
    #[error("{0}, expected a JPEG or a PNG")]
    Unknown(&'static str),
    /// Too large.
    #[error("it has {0}×{1} pixels, expected at most {MOST_PIXELS}")]
    TooLarge(u64, u64),
    /// Damaged, or of a kind that the decoder does not know.
    #[error("{format} cannot be decoded: {why}")]
    Damaged {
        /// JPEG or PNG.
        format: &'static str,
        /// The decoder's words.
        why: String,
    },
}

/// An encoded image whose head has been read.
pub enum Encoded<'a> {
    /// A JPEG.
    Jpeg(jpeg::Jpeg<'a>),
    /// A PNG, all of it: its rows depend on each other.
    Png(Raster),
}

impl<'a> Encoded<'a> {
    /// Reads as much as the size of the image takes.
    ///
    /// # Errors
    /// When it is no image, a damaged or a too large one.
    pub fn open(bytes: &'a [u8]) -> Result<Encoded<'a>, DecodeError> {
        match bytes {
            [] => Err(DecodeError::Unknown("the file is empty")),
            [0xFF, 0xD8, ..] => Ok(Encoded::Jpeg(guarded("the JPEG", || jpeg::Jpeg::open(bytes))?)),
            [0x89, b'P', b'N', b'G', ..] => Ok(Encoded::Png(guarded("the PNG", || png::decode(bytes))?)),
            _ => Err(DecodeError::Unknown("unknown first bytes")),
        }
    }

    /// Width and height, in pixels.
    pub fn size(&self) -> (u32, u32) {
        match self {
            Encoded::Jpeg(jpeg) => jpeg.size(),
            Encoded::Png(raster) => (raster.width, raster.height),
        }
    }

    /// The pixels of at least `region`, and where `region` lies in them. They are the ones that decoding everything gives.
    ///
    /// # Errors
    /// When the image is damaged.
    pub fn decode(self, region: Region) -> Result<(Raster, Region), DecodeError> {
        match self {
            Encoded::Jpeg(jpeg) => guarded("the JPEG", || jpeg.decode(region)),
            Encoded::Png(raster) => Ok((raster, region)),
        }
    }
}

/// The pixels of a whole image.
///
/// # Errors
/// When it is no image, a damaged or a too large one.
pub fn decode(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let encoded = Encoded::open(bytes)?;
    let (width, height) = encoded.size();
    Ok(encoded.decode(Region { left: 0, top: 0, width, height })?.0)
}

/// A decoder that panics on a damaged file has refused it: one bad image must not end a training.
fn guarded<T>(format: &'static str, work: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    caught.unwrap_or_else(|_| Err(DecodeError::Damaged { format, why: "the decoder gave up".to_owned() }))
}

pub(crate) fn check_size(width: u64, height: u64) -> Result<(), DecodeError> {
    let fits = width.checked_mul(height).is_some_and(|pixels| (1..=MOST_PIXELS).contains(&pixels));
    if fits { Ok(()) } else { Err(DecodeError::TooLarge(width, height)) }
}
