//! ImageNet: a pack, or class folders (`train/<class>/*.JPEG` and `val/<class>/*.JPEG`). Any part of it will do, down to a few
//! classes; they are numbered by name.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use cnx_images::folder::{Folders, SPLITS};
use cnx_images::pack::Pack;
use cnx_proto::spec::{self, Dataset};
use sha2::{Digest, Sha256};

use super::encoded::{EncodedImages, Files};
use super::images::Images;
use crate::failure::{Failure, Result};
use crate::hex;
use crate::reporter::log;

/// Folders below that of the datasets in which it is looked for.
const FOLDERS: [&str; 2] = ["imagenet-packed", "imagenet"];

/// Training images, test images, and a hash: that of the pack, which is over the bytes of all images; of class folders over the
/// names and sizes of the files, since reading 150 GB at every start would take longer than many an epoch.
pub(super) fn load(root: &Path, data: &spec::Data) -> Result<(Images, Images, String)> {
    let folder = find(root)?;
    let limits = [data.train_images, data.test_images];
    let (classes, splits, hash) =
        if Pack::is_in(&folder) { packed(&folder, limits)? } else { unpacked(&folder, limits)? };
    let (found, most) = (classes, Dataset::ImageNet.classes() as usize);
    let show = folder.display();
    if found > most {
        return Err(Failure::data(format!("{show} has {found} classes, expected at most imagenet's {most}")));
    }
    if found < most {
        log(format!("{show} has {found} of imagenet's {most} classes"));
    }
    let [train, test] = splits;
    Ok((train, test, hash))
}

fn find(root: &Path) -> Result<PathBuf> {
    let holds = |folder: &PathBuf| Pack::is_in(folder) || Folders::are_in(folder);
    let folders = std::iter::once(root.to_path_buf()).chain(FOLDERS.map(|name| root.join(name)));
    folders.into_iter().find(holds).ok_or_else(|| {
        Failure::data(format!(
            "no imagenet in {} (nor in {} below it): expected a pack (`cnx data pack` makes one), or train and val with a folder \
             a class (train/n01440764/….JPEG)",
            root.display(),
            FOLDERS.join(" or ")
        ))
    })
}

/// The number of classes, both splits, and the hash. A split of which no image is wanted may be missing.
type Found = (usize, [Images; 2], String);

fn packed(folder: &Path, limits: [Option<u32>; 2]) -> Result<Found> {
    let mut pack = Pack::open(folder).map_err(|error| damaged(folder, error))?;
    let (classes, hash) = (pack.classes().len(), pack.hash().to_owned());
    let mut of = |at: usize| -> Result<Images> {
        let (split, limit) = (SPLITS[at], limits[at]);
        if limit == Some(0) {
            return Ok(Images::default());
        }
        let files = pack.take_split(split).ok_or_else(|| missing(folder, split))?;
        Ok(images(Files::Pack(files), folder, split, limit))
    };
    Ok((classes, [of(0)?, of(1)?], hash))
}

fn unpacked(folder: &Path, limits: [Option<u32>; 2]) -> Result<Found> {
    let folders = Folders::open(folder).map_err(|error| damaged(folder, error))?;
    let mut hash = Sha256::new();
    let mut of = |at: usize| -> Result<Images> {
        let (split, limit) = (SPLITS[at], limits[at]);
        if limit == Some(0) {
            return Ok(Images::default());
        }
        if !folders.has(split) {
            return Err(missing(folder, split));
        }
        let listing = folders.list(split).map_err(|error| damaged(folder, error))?;
        for image in &listing.images {
            let path = listing.path(image);
            let size = fs::metadata(&path)
                .map_err(|error| damaged(folder, format!("{}: {error}", path.display())))?
                .len();
            hash.update(format!("{split}/{}/{} {size}\n", listing.class(image), image.name));
        }
        Ok(images(Files::Folder(listing), folder, split, limit))
    };
    let splits = [of(0)?, of(1)?];
    Ok((folders.classes.len(), splits, hex(&hash.finalize())))
}

fn images(files: Files, folder: &Path, split: &str, limit: Option<u32>) -> Images {
    let what = format!("the images of {split} in {}", folder.display());
    Images::Encoded(EncodedImages::new(files, what, limit, Dataset::ImageNet.image_size()))
}

fn missing(folder: &Path, split: &str) -> Failure {
    Failure::data(format!("{} has no {split}: expected {}", folder.display(), SPLITS.join(" and ")))
}

fn damaged(folder: &Path, error: impl Display) -> Failure {
    Failure::data(format!("imagenet in {} cannot be read: {error}", folder.display()))
}
