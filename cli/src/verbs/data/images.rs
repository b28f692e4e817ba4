//! Class folders and packs, checked image by image.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cnx_images::decode::decode;
use cnx_images::folder::{Folders, Listing, SPLITS};
use cnx_images::pack::{Pack, Split};

use super::progress;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::term::format::thousands;

/// Damaged images that are listed.
const MOST_LISTED: usize = 50;

/// Where such sets lie: in the folder itself, or below it.
pub fn find(folder: &Path) -> Vec<PathBuf> {
    let below = ["imagenet", "imagenet-packed"].map(|name| folder.join(name));
    let holds = |folder: &PathBuf| Pack::is_in(folder) || Folders::are_in(folder);
    std::iter::once(folder.to_path_buf()).chain(below).filter(holds).collect()
}

/// Decodes every image, and says what there is.
///
/// # Errors
/// With the damaged images, or what else is wrong.
pub fn check(context: &Context, folder: &Path) -> Result<String> {
    let (classes, splits, what) = if Pack::is_in(folder) {
        let mut pack = Pack::open(folder).map_err(failure)?;
        let bar = progress::bytes(context, "checking hashes", pack.bytes());
        pack.verify(&mut |read| bar.inc(read)).map_err(failure)?;
        bar.finish_and_clear();
        let splits = SPLITS.into_iter().filter_map(|name| Some((name, Files::Pack(pack.take_split(name)?))));
        let splits: Vec<_> = splits.collect();
        (pack.classes().len(), splits, format!("packed, hash {}", pack.hash()))
    } else {
        let folders = Folders::open(folder).map_err(failure)?;
        let splits = SPLITS.into_iter().filter(|split| folders.has(split));
        let splits = splits.map(|name| Ok((name, Files::Folder(folders.list(name).map_err(failure)?))));
        (folders.classes.len(), splits.collect::<Result<Vec<_>>>()?, "in folders".to_owned())
    };
    let mut damaged = Vec::new();
    let mut counts = Vec::new();
    for (name, files) in &splits {
        damaged.extend(files.damaged(context, name));
        let what = if *name == "train" { "training" } else { "test" };
        counts.push(format!("{} {what}", thousands(files.len() as u64)));
    }
    if damaged.is_empty() {
        return Ok(format!("fine; {} images of {classes} classes, {what}", counts.join(" and ")));
    }
    let more = damaged.len().saturating_sub(MOST_LISTED);
    let lines = damaged.iter().take(MOST_LISTED).map(|line| format!("\n  {line}"));
    let rest = if more > 0 { format!("\n  and {} more", thousands(more as u64)) } else { String::new() };
    let number = thousands(damaged.len() as u64);
    Err(Failure::refused(format!(
        "{}: {number} damaged images:{}{rest}",
        folder.display(),
        lines.collect::<String>()
    )))
}

/// A failure of the request, in its own words.
pub fn failure(error: impl Display) -> Failure {
    Failure::refused(error.to_string())
}

enum Files {
    Folder(Listing),
    Pack(Split),
}

impl Files {
    fn len(&self) -> usize {
        match self {
            Files::Folder(listing) => listing.images.len(),
            Files::Pack(split) => split.len(),
        }
    }

    /// What is wrong with which images, in their order.
    fn damaged(&self, context: &Context, name: &str) -> Vec<String> {
        let bar = progress::images(context, &format!("decoding {name}"), self.len() as u64);
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let image = next.fetch_add(1, Ordering::Relaxed);
                if image >= self.len() {
                    break;
                }
                if let Err(why) = self.check(image) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((image, why));
                }
                bar.inc(1);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        bar.finish_and_clear();
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable();
        found.into_iter().map(|(_, why)| why).collect()
    }

    fn check(&self, image: usize) -> std::result::Result<(), String> {
        let named = |name: &dyn Display, error: &dyn Display| format!("{name}: {error}");
        match self {
            Files::Folder(listing) => {
                let path = listing.path(&listing.images[image]);
                let bytes = fs::read(&path).map_err(|error| named(&path.display(), &error))?;
                decode(&bytes).map(drop).map_err(|error| named(&path.display(), &error))
            }
            Files::Pack(split) => {
                let mut buffer = Vec::new();
                let entry = split.read(image, &mut buffer).map_err(|error| error.to_string())?;
                decode(entry.image).map(drop).map_err(|error| named(&entry.name, &error))
            }
        }
    }
}
