//! Images that batches are made of, wherever they lie.

use super::augment::Augmentation;
use super::batches::Part;
use super::encoded::{EncodedImages, Scratch};
use crate::failure::Result;

/// A set of images and their labels.
#[derive(Debug)]
pub enum Images {
    /// Small ones, all of them in memory.
    InMemory(Pixels),
    /// Large ones in files, decoded when a batch needs them.
    Encoded(EncodedImages),
}

/// What images are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn from in an epoch (from 0): augmented, or as they are tested.
    Train { seed: u64, epoch: u32, augment: bool },
    /// To measure on.
    Test,
}

impl Default for Images {
    fn default() -> Images {
        Images::InMemory(Pixels::default())
    }
}

impl From<Pixels> for Images {
    fn from(pixels: Pixels) -> Images {
        Images::InMemory(pixels)
    }
}

impl Images {
    /// The number of images.
    pub fn len(&self) -> usize {
        match self {
            Images::InMemory(pixels) => pixels.len(),
            Images::Encoded(images) => images.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of images less those that turned out to be damaged so far.
    pub fn usable(&self) -> usize {
        match self {
            Images::InMemory(pixels) => pixels.len(),
            Images::Encoded(images) => images.len() - images.bad(),
        }
    }

    /// Height and width with which they enter the network, in pixels.
    pub fn size(&self) -> usize {
        match self {
            Images::InMemory(pixels) => pixels.size,
            Images::Encoded(images) => images.side() as usize,
        }
    }

    /// Images that one thread prepares at a time. Decoding takes long: the threads share a batch. Copying is over before
    /// another thread has heard of it.
    pub(super) fn a_part(&self) -> usize {
        match self {
            Images::InMemory(_) => usize::MAX,
            Images::Encoded(_) => 16,
        }
    }

    /// Adds images to a part of a batch.
    ///
    /// # Errors
    /// DATA_MISSING when too many images are damaged.
    pub(super) fn gather(&self, chosen: &[u32], purpose: Purpose, part: &mut Part) -> Result<()> {
        match self {
            Images::InMemory(pixels) => {
                for &index in chosen {
                    pixels.add(index, purpose, part);
                }
                Ok(())
            }
            Images::Encoded(images) => {
                let mut scratch = Scratch::default();
                chosen.iter().try_for_each(|&index| images.add(index, purpose, &mut scratch, part))
            }
        }
    }
}

/// Images in memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pixels {
    /// Planar RGB, image after image.
    pub pixels: Vec<u8>,
    /// A class for each image.
    pub labels: Vec<u8>,
    /// Height and width, in pixels.
    pub size: usize,
}

impl Pixels {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of one image.
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = 3 * self.size * self.size;
        &self.pixels[index * bytes..][..bytes]
    }

    pub(super) fn truncate(&mut self, images: Option<u32>) {
        let images = images.map_or(usize::MAX, |n| n as usize).min(self.len());
        self.labels.truncate(images);
        self.pixels.truncate(images * 3 * self.size * self.size);
    }

    fn add(&self, index: u32, purpose: Purpose, part: &mut Part) {
        let image = self.image(index as usize);
        match purpose {
            Purpose::Train { seed, epoch, augment: true } => {
                Augmentation::draw(seed, epoch, index).apply(image, self.size, &mut part.pixels);
            }
            _ => part.pixels.extend_from_slice(image),
        }
        part.labels.push(i64::from(self.labels[index as usize]));
    }
}
