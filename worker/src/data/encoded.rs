//! Images in files, decoded when a batch needs them: class folders or a pack. A damaged one is named once and passed over.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use cnx_images::crop::RandomResizedCrop;
use cnx_images::decode::Encoded;
use cnx_images::folder::Listing;
use cnx_images::pack::Split;
use cnx_images::raster::Raster;
use cnx_images::resize::Resize;
use cnx_proto::random::{Purpose as Draws, Stream};

use super::batches::Part;
use super::images::Purpose;
use crate::failure::{Failure, Result};
use crate::reporter::log;

/// Of so many images one may be damaged; and one in any case.
const ONE_BAD_OF: usize = 1000;
/// Damaged images that a failure names.
const NAMED: usize = 5;

/// Where the files are.
#[derive(Debug)]
pub(super) enum Files {
    Folder(Listing),
    Pack(Split),
}

/// Images in files.
#[derive(Debug)]
pub struct EncodedImages {
    files: Files,
    /// What they are called in messages: the split, and where it lies.
    what: String,
    images: usize,
    /// Height and width of a crop, and the shorter side of a test image before its middle is cut out.
    side: u32,
    shorter_side: u32,
    /// Those found to be damaged so far, and why.
    bad: Mutex<BTreeMap<u32, String>>,
}

/// What a thread keeps from one image to the next.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    resize: Resize,
}

impl EncodedImages {
    /// Of the first `images` files, or all. `side`: height and width with which they enter the network.
    pub(super) fn new(files: Files, what: String, images: Option<u32>, side: u32) -> EncodedImages {
        let all = match &files {
            Files::Folder(listing) => listing.images.len(),
            Files::Pack(split) => split.len(),
        };
        let images = images.map_or(all, |images| all.min(images as usize));
        // 256 for 224.
        let shorter_side = side * 8 / 7;
        EncodedImages { files, what, images, side, shorter_side, bad: Mutex::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.images
    }

    pub(super) fn side(&self) -> u32 {
        self.side
    }

    /// Images found to be damaged so far.
    pub(super) fn bad(&self) -> usize {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Adds an image to a part of a batch.
    ///
    /// In place of a damaged one, training takes the next one that is whole, with its own label and with the crop drawn for the
    /// damaged one: a function of the files alone, so that a resumed run sees the same. Testing leaves it out: an error is of
    /// images that were seen.
    ///
    /// # Errors
    /// DATA_MISSING when too many are damaged.
    pub(super) fn add(
        &self,
        index: u32,
        purpose: Purpose,
        scratch: &mut Scratch,
        part: &mut Part,
    ) -> Result<()> {
        for step in 0..self.images {
            let candidate = ((index as usize + step) % self.images) as u32;
            match self.load(candidate, index, purpose, scratch) {
                Ok((raster, flip, class)) => {
                    raster.append_planes(flip, &mut part.pixels);
                    part.labels.push(class.into());
                    return Ok(());
                }
                Err(why) => self.pass_over(candidate, why, purpose)?,
            }
            if purpose == Purpose::Test {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The pixels of an image, whether they are to be flipped, and its class. The crop is the one drawn for image `drawn_for`.
    fn load(
        &self,
        index: u32,
        drawn_for: u32,
        purpose: Purpose,
        scratch: &mut Scratch,
    ) -> Result<(Raster, bool, u32), String> {
        let Scratch { bytes, resize } = scratch;
        let (name, bytes, class) = self.read(index as usize, bytes)?;
        let named = |error: cnx_images::decode::DecodeError| format!("{name}: {error}");
        let encoded = Encoded::open(bytes).map_err(named)?;
        let (raster, flip) = match purpose {
            Purpose::Train { seed, epoch, augment: true } => {
                let mut random = Stream::new(seed, Draws::Augmentation, [epoch, drawn_for]);
                let (width, height) = encoded.size();
                let crop = RandomResizedCrop::draw(&mut random, width, height);
                (resize.crop(encoded, crop, self.side).map_err(named)?, crop.flip)
            }
            _ => (resize.centre(encoded, self.shorter_side, self.side).map_err(named)?, false),
        };
        Ok((raster, flip, class))
    }

    /// Name, bytes and class of an image.
    fn read<'b>(&self, index: usize, buffer: &'b mut Vec<u8>) -> Result<(String, &'b [u8], u32), String> {
        let beyond = || format!("there is no image {index}");
        match &self.files {
            Files::Folder(listing) => {
                let image = listing.images.get(index).ok_or_else(beyond)?;
                let path = listing.path(image);
                *buffer = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok((path.display().to_string(), buffer, image.class))
            }
            Files::Pack(split) => {
                let class = split.class(index).ok_or_else(beyond)?;
                let entry = split.read(index, buffer).map_err(|error| error.to_string())?;
                Ok((entry.name.to_owned(), entry.image, class))
            }
        }
    }

    /// Notes a damaged image, and says so the first time.
    fn pass_over(&self, index: u32, why: String, purpose: Purpose) -> Result<()> {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if bad.contains_key(&index) {
            return Ok(());
        }
        let instead = match purpose {
            Purpose::Train { .. } => "the next one takes its place",
            Purpose::Test => "it is left out",
        };
        log(format!("a damaged image, {instead}: {why}"));
        bad.insert(index, why);
        let most = self.images / ONE_BAD_OF + 1;
        if bad.len() <= most && bad.len() < self.images {
            return Ok(());
        }
        let named: Vec<String> = bad.values().take(NAMED).map(|why| format!("\n  {why}")).collect();
        Err(Failure::data(format!(
            "{} of {} are damaged, more than the {most} that are passed over (one, and one in {ONE_BAD_OF}):{}{}\n\
             replace or remove these files; `cnx data verify` finds all of them",
            bad.len(),
            self.what,
            named.concat(),
            if bad.len() > NAMED { "\n  …" } else { "" },
        )))
    }
}
