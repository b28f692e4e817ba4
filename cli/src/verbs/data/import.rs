//! `cnx data import`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use cnx_images::decode::decode;
use cnx_images::folder::{Image, Listing};
use cnx_images::raster::Raster;
use cnx_proto::random::{Purpose, Stream};
use indicatif::ProgressBar;

use super::classes::{classes, name_files};
use super::dataset::{Batch, Cifar};
use super::imported::Note;
use super::{ImportArgs, at, progress, root, verify};
use crate::context::{Context, stdout};
use crate::failure::{Failure, Result};
use crate::term::format::thousands;

/// Height and width, in pixels.
const SIDE: u32 = 32;
/// Decides the order of the images. The same for everyone, so that everyone's files are the same.
const SEED: u64 = 0;

pub fn run(context: &Context, args: &ImportArgs) -> Result {
    let cifar = args.format;
    let target = match &args.out {
        Some(out) => out.clone(),
        None => root(None)?.join(cifar.folder()),
    };
    if target.exists() {
        let message = format!("{} is there already: remove it, or name another with -o", target.display());
        return Err(Failure::refused(message));
    }
    let train = list(cifar, &args.folder.join("train"))?;
    let test = list(cifar, &args.folder.join("test"))?;
    let counts = write_all(context, cifar, [train, test], &target)?;
    context.talk(format!(
        "{} training and {} test images of {} classes{}",
        thousands(counts.train),
        thousands(counts.test),
        classes(cifar).len(),
        if counts.is_full(cifar) { "" } else { "; not the full set" },
    ));
    Ok(writeln!(stdout(), "{}", target.display())?)
}

/// The images of a split, in the order in which they are written, each with its labels.
struct Split {
    listing: Listing,
    order: Vec<usize>,
    labels: Vec<Vec<u8>>,
}

fn list(cifar: Cifar, folder: &Path) -> Result<Split> {
    let listing = Listing::read(folder).map_err(|error| {
        Failure::refused(format!("{error}\n  expected DIR/train/CLASS/*.png and DIR/test/CLASS/*.png"))
    })?;
    let known: BTreeMap<&str, Vec<u8>> = classes(cifar).into_iter().map(|c| (c.name, c.labels)).collect();
    let found = &listing.classes;
    let unknown: Vec<&str> =
        found.iter().map(String::as_str).filter(|name| !known.contains_key(name)).collect();
    let missing: Vec<&str> = known.keys().copied().filter(|name| !found.iter().any(|f| f == name)).collect();
    if !unknown.is_empty() || !missing.is_empty() {
        let some = |what: &str, names: &[&str]| match names {
            [] => String::new(),
            _ => format!(
                "\n  {what}: {}{}",
                names[..names.len().min(10)].join(", "),
                if names.len() > 10 { ", …" } else { "" }
            ),
        };
        return Err(Failure::refused(format!(
            "the folders in {} are not the {} classes of the dataset:{}{}",
            folder.display(),
            known.len(),
            some("unknown", &unknown),
            some("missing", &missing),
        )));
    }
    let mut order: Vec<usize> = (0..listing.images.len()).collect();
    Stream::new(SEED, Purpose::Order, [0, 0]).shuffle(&mut order);
    let labels = found.iter().map(|name| known[name.as_str()].clone()).collect();
    Ok(Split { listing, order, labels })
}

/// Writes the files into a folder beside the target and gives it its name once it is whole.
fn write_all(
    context: &Context,
    cifar: Cifar,
    [train, test]: [Split; 2],
    target: &Path,
) -> Result<verify::Counts> {
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at(parent, "made"))?;
    let beside =
        tempfile::Builder::new().prefix(".cnx-import-").tempdir_in(parent).map_err(at(parent, "written"))?;
    let folder = beside.path().join("set");
    fs::create_dir(&folder).map_err(at(&folder, "made"))?;
    let images = train.order.len() + test.order.len();
    let bar = progress::images(context, "importing", images as u64);
    let files = cifar.train();
    let share = train.order.len().div_ceil(files.len());
    for (batch, part) in files.iter().zip(train.order.chunks(share)) {
        write(cifar, &folder, batch, &train, part, &bar)?;
    }
    write(cifar, &folder, &cifar.test(), &test, &test.order, &bar)?;
    bar.finish_and_clear();
    for (name, text) in name_files(cifar) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(at(&path, "written"))?;
    }
    Note::leave(cifar, &folder)?;
    let counts = verify::check(cifar, &folder)?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(at(&folder, "written"))?;
    fs::rename(&folder, target).map_err(at(target, "written"))?;
    Ok(counts)
}

fn write(
    cifar: Cifar,
    folder: &Path,
    batch: &Batch,
    split: &Split,
    part: &[usize],
    bar: &ProgressBar,
) -> Result {
    let path = folder.join(batch.name);
    let mut out = BufWriter::new(File::create(&path).map_err(at(&path, "written"))?);
    for &index in part {
        let image = &split.listing.images[index];
        let record = record(cifar, split, image)?;
        out.write_all(&record).map_err(at(&path, "written"))?;
        bar.inc(1);
    }
    out.into_inner()
        .map_err(|error| error.into_error())
        .and_then(|file| file.sync_all())
        .map_err(at(&path, "written"))
}

fn record(cifar: Cifar, split: &Split, image: &Image) -> Result<Vec<u8>> {
    let path: PathBuf = split.listing.path(image);
    let refused = |why: String| Failure::refused(format!("{}: {why}; nothing was written", path.display()));
    let bytes = fs::read(&path).map_err(at(&path, "read"))?;
    if bytes.starts_with(&[0xFF, 0xD8]) {
        return Err(refused("it is a JPEG, whose pixels are not the dataset's; expected a PNG".to_owned()));
    }
    let raster = decode(&bytes).map_err(|error| refused(error.to_string()))?;
    let Raster { width, height, .. } = raster;
    if (width, height) != (SIDE, SIDE) {
        return Err(refused(format!("it has {width}×{height} pixels, expected {SIDE}×{SIDE}")));
    }
    let mut record = Vec::with_capacity(cifar.record_bytes());
    record.extend_from_slice(&split.labels[image.class as usize]);
    raster.append_planes(false, &mut record);
    Ok(record)
}

#[cfg(test)]
mod tests;
