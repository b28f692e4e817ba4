//! PNG, of any colour type and depth.

use std::io::Cursor;

use png::{ColorType, Decoder, Limits, Transformations};

use super::{DecodeError, MOST_PIXELS, check_size};
use crate::raster::Raster;

/// Decodes to RGB as Pillow's `convert("RGB")` does: palettes are looked up, grey is repeated, transparency is left out. Of 16
/// bits the upper eight count.
pub(super) fn decode(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let limits = Limits { bytes: 8 * MOST_PIXELS as usize };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = (header.width, header.height);
    check_size(width.into(), height.into())?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size =
        reader.output_buffer_size().ok_or_else(|| DecodeError::TooLarge(width.into(), height.into()))?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(damaged)?;
    pixels.truncate(info.buffer_size());
    let pixels = match info.color_type {
        ColorType::Rgb => pixels,
        ColorType::Rgba => pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::Grayscale => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorType::GrayscaleAlpha => pixels.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Indexed => return Err(damaged("its palette cannot be looked up")),
    };
    Ok(Raster { width, height, pixels })
}

fn damaged(why: impl ToString) -> DecodeError {
    DecodeError::Damaged { format: "the PNG", why: why.to_string() }
}
