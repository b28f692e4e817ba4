//! From an image's file to what a network takes: as the test images of its dataset are taken.

use std::fs;
use std::path::Path;

use cnx_images::decode::Encoded;
use cnx_images::normalise::Normalise;
use cnx_images::raster::Raster;
use cnx_images::resize::Resize;
use cnx_proto::spec::Dataset;

use crate::term::format::bytes;

/// No image of so many bytes has fewer pixels than are decoded.
const MOST_BYTES: u64 = 1 << 30;

/// An image that is ready for the network.
pub struct Input {
    /// Normalised, [3, side, side].
    pub values: Vec<f32>,
    /// Of the file, in pixels.
    pub width: u32,
    /// Of the file, in pixels.
    pub height: u32,
    /// Whether it had another size than the network takes.
    pub resized: bool,
    side: u32,
}

impl Input {
    /// Its size, and what became of it.
    pub fn about(&self) -> String {
        let Input { width, height, side, resized, .. } = self;
        let resized = if *resized { format!(", resized to {side}×{side}") } else { String::new() };
        format!("{width}×{height}{resized}")
    }
}

/// Reads images for the networks of a dataset.
pub struct Reader {
    normalise: Normalise,
    resize: Resize,
    /// Height and width that the network takes.
    side: u32,
    /// The shorter side before the middle is cut out: of ImageNet 256 for 224; the others' images are taken whole.
    shorter: u32,
}

impl Reader {
    pub fn new(dataset: Dataset) -> Reader {
        let side = dataset.image_size();
        let shorter = if dataset == Dataset::ImageNet { side * 8 / 7 } else { side };
        let normalise = Normalise::new(dataset.normalisation());
        Reader { normalise, resize: Resize::default(), side, shorter }
    }

    /// A black image.
    pub fn black(&self) -> Vec<f32> {
        let side = self.side as usize;
        self.values(&Raster { width: self.side, height: self.side, pixels: vec![0; 3 * side * side] })
    }

    /// # Errors
    /// In words, with the file's name.
    pub fn read(&mut self, path: &Path) -> Result<Input, String> {
        let (show, side) = (path.display(), self.side);
        let content = content(path)?;
        let damaged = |error: cnx_images::decode::DecodeError| format!("{show}: {error}");
        let encoded = Encoded::open(&content).map_err(damaged)?;
        let (width, height) = encoded.size();
        let raster = if (width, height) == (side, side) && self.shorter == side {
            cnx_images::decode::decode(&content).map_err(damaged)?
        } else {
            self.resize.centre(encoded, self.shorter, side).map_err(damaged)?
        };
        let resized = (width, height) != (side, side);
        Ok(Input { values: self.values(&raster), width, height, resized, side })
    }

    fn values(&self, raster: &Raster) -> Vec<f32> {
        let mut planes = Vec::new();
        raster.append_planes(false, &mut planes);
        let mut values = Vec::new();
        self.normalise.append(&planes, planes.len() / 3, &mut values);
        values
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let show = path.display();
    let unreadable = |error: std::io::Error| format!("cannot read {show}: {error}");
    let about = fs::metadata(path).map_err(unreadable)?;
    // Of a pipe or a device there is no end to wait for.
    if !about.is_file() {
        return Err(format!("{show} is not a file; expected a JPEG or a PNG"));
    }
    if about.len() > MOST_BYTES {
        let (found, most) = (bytes(about.len()), bytes(MOST_BYTES));
        return Err(format!("{show} has {found}; an image has at most {most}"));
    }
    fs::read(path).map_err(unreadable)
}
