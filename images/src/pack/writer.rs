//! Makes packs: whole or absent, and going on where an earlier try stopped.
//!
//! All is written into `OUT.part`. A shard that is whole has a `.done` file beside it with its records; what was planned for it
//! is hashed, so that a later try takes it over only if the same images would go into it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::index::{self, Contents, Record, Shard, SplitContents};
use super::reader::Pack;
use super::{INDEX, MOST_ENTRY_BYTES, PackError, hex};
use crate::decode::{decode, encode_jpeg};
use crate::folder::{Folders, Image, Listing};
use crate::resize::Resize;

/// Quality of images that are made smaller: hardly distinguishable from the original.
const QUALITY: u8 = 95;

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes that a shard has at most, of images that are packed as they are; an image that is larger has its own.
    pub shard_bytes: u64,
    /// Makes images whose shorter side is longer so many pixels there, and encodes them again. None: the bytes as they are.
    pub shorter_side: Option<u32>,
}

/// A pack that was made.
#[derive(Debug)]
pub struct Packed {
    /// The pack, opened as who reads it does.
    pub pack: Pack,
    /// Whether it was there already.
    pub already: bool,
    /// Images that could not be made smaller, and why; they are packed as they are.
    pub damaged: Vec<String>,
}

/// Packs the splits of class folders. `progress` hears of bytes of the sources dealt with, and of all.
///
/// # Errors
/// When something cannot be read or written, another pack is there, or another process is packing there.
pub fn pack(
    folders: &Folders,
    splits: &[(&str, Listing)],
    out: &Path,
    options: Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Packed, PackError> {
    let plan = Plan::make(splits, options)?;
    if out.exists() {
        return already(out, &plan);
    }
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = out.with_file_name(name);
    fs::create_dir_all(&part).map_err(PackError::file("make", &part))?;
    let lock_path = part.join("lock");
    let lock = File::create(&lock_path).map_err(PackError::file("write", &lock_path))?;
    if lock.try_lock().is_err() {
        return Err(PackError::Refused(format!(
            "{} is being written by another cnx data pack; wait for it",
            out.display()
        )));
    }
    let total = plan.shards.iter().map(|shard| shard.bytes).sum();
    let (mut done, mut records, mut damaged) = (0, Vec::new(), Vec::new());
    let mut contents = Contents {
        classes: folders.classes.clone(),
        shorter_side: options.shorter_side,
        source: plan.hash.clone(),
        splits: splits
            .iter()
            .map(|(name, _)| SplitContents { name: (*name).to_owned(), shards: vec![] })
            .collect(),
    };
    for shard in &plan.shards {
        progress(done, total);
        let written = match Done::find(&part, shard) {
            Some(written) => written,
            None => shard
                .write(&part, &splits[shard.split].1, options, &mut |bytes| progress(done + bytes, total))?,
        };
        done += shard.bytes;
        contents.splits[shard.split].shards.push(written.shard);
        records.extend(written.records);
        damaged.extend(written.damaged);
    }
    progress(total, total);
    let path = part.join(INDEX);
    let (bytes, _) = index::encode(&contents, &records)
        .map_err(io::Error::from)
        .map_err(PackError::file("write", &path))?;
    put(&path, &bytes)?;
    fs::rename(&part, out).map_err(PackError::file("write", out))?;
    tidy(out, &plan);
    Ok(Packed { pack: Pack::open(out)?, already: false, damaged })
}

fn already(out: &Path, plan: &Plan) -> Result<Packed, PackError> {
    if !Pack::is_in(out) {
        return Err(PackError::Refused(format!(
            "{} is there already and is no pack; name another with -o",
            out.display()
        )));
    }
    let pack = Pack::open(out)?;
    if pack.source() == plan.hash {
        return Ok(Packed { pack, already: true, damaged: Vec::new() });
    }
    Err(PackError::Refused(format!(
        "{} holds a pack of other images or with other options; remove it, or name another with -o",
        out.display()
    )))
}

/// Removes what only the writing needed, of earlier tries with other plans too. Nobody minds what is left of it.
fn tidy(out: &Path, plan: &Plan) {
    let entries = fs::read_dir(out).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        if name != INDEX && plan.shards.iter().all(|shard| name != shard.file.as_str()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// What goes into which shard.
struct Plan {
    shards: Vec<PlannedShard>,
    /// Over names and sizes of the images, and the options: not over times, so that equal packs have equal hashes.
    hash: String,
}

struct PlannedShard {
    /// Place of its split.
    split: usize,
    file: String,
    /// Places of its images in the listing.
    images: std::ops::Range<usize>,
    /// Of the sources.
    bytes: u64,
    /// Over names, sizes and times of the images and the options.
    hash: String,
}

impl Plan {
    fn make(splits: &[(&str, Listing)], options: Options) -> Result<Plan, PackError> {
        let (mut shards, mut all) = (Vec::new(), Sha256::new());
        for (split, (name, listing)) in splits.iter().enumerate() {
            let mut start = 0;
            let (mut bytes, mut hash) = (0, Sha256::new());
            for (place, image) in listing.images.iter().enumerate() {
                let path = listing.path(image);
                let metadata = fs::metadata(&path).map_err(PackError::file("read", &path))?;
                let size = metadata.len();
                if bytes > 0 && bytes + size > options.shard_bytes {
                    shards.push(PlannedShard::new(
                        split,
                        name,
                        shards.len(),
                        start..place,
                        bytes,
                        hash,
                        options,
                    ));
                    (start, bytes, hash) = (place, 0, Sha256::new());
                }
                bytes += size;
                let time = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let time = time.unwrap_or_default().as_nanos();
                let class = listing.class(image);
                let what = format!("{name}/{class}/{} {} {size}", image.name, image.class);
                all.update(format!("{what}\n"));
                hash.update(format!("{what} {time}\n"));
            }
            shards.push(PlannedShard::new(
                split,
                name,
                shards.len(),
                start..listing.images.len(),
                bytes,
                hash,
                options,
            ));
        }
        all.update(format!("{:?} {}", options.shorter_side, options.shard_bytes));
        Ok(Plan { shards, hash: hex(&all.finalize()) })
    }
}

impl PlannedShard {
    fn new(
        split: usize,
        name: &str,
        number: usize,
        images: std::ops::Range<usize>,
        bytes: u64,
        mut hash: Sha256,
        options: Options,
    ) -> PlannedShard {
        hash.update(format!("{:?}", options.shorter_side));
        PlannedShard {
            split,
            file: format!("{name}-{number:05}.shard"),
            images,
            bytes,
            hash: hex(&hash.finalize()),
        }
    }

    fn done_file(&self) -> String {
        format!("{}.done", self.file)
    }

    fn write(
        &self,
        folder: &Path,
        listing: &Listing,
        options: Options,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Done, PackError> {
        let (path, partial) = (folder.join(&self.file), folder.join(format!("{}.tmp", self.file)));
        let file = File::create(&partial).map_err(PackError::file("write", &partial))?;
        let mut out =
            Hashing { out: BufWriter::with_capacity(1 << 20, file), sha256: Sha256::new(), bytes: 0 };
        let (mut records, mut damaged, mut resize) = (Vec::new(), Vec::new(), Resize::default());
        for image in &listing.images[self.images.clone()] {
            let path = listing.path(image);
            let mut bytes = fs::read(&path).map_err(PackError::file("read", &path))?;
            let read = bytes.len() as u64;
            if let Some(side) = options.shorter_side {
                match smaller(&mut resize, &bytes, side) {
                    Ok(Some(encoded)) => bytes = encoded,
                    Ok(None) => {}
                    Err(why) => damaged.push(format!("{}: {why}", path.display())),
                }
            }
            let entry = entry(listing, image, &path, &bytes)?;
            let crc32 = crc32fast::hash(&entry);
            out.write_all(&entry).map_err(PackError::file("write", &partial))?;
            records.push(Record { bytes: entry.len() as u32, class: image.class, crc32 });
            progress(read);
        }
        let Hashing { out, sha256, bytes } = out;
        let synced = out.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
        synced.map_err(PackError::file("write", &partial))?;
        fs::rename(&partial, &path).map_err(PackError::file("write", &path))?;
        let images = records.len() as u32;
        let shard = Shard { file: self.file.clone(), bytes, images, sha256: hex(&sha256.finalize()) };
        let done = Done { planned: self.hash.clone(), shard, records, damaged };
        let path = folder.join(self.done_file());
        let text =
            serde_json::to_vec(&done).map_err(io::Error::from).map_err(PackError::file("write", &path))?;
        put(&path, &text)?;
        Ok(done)
    }
}

/// A shard that is whole.
#[derive(Serialize, Deserialize)]
struct Done {
    /// Hash of what was planned.
    planned: String,
    shard: Shard,
    records: Vec<Record>,
    damaged: Vec<String>,
}

impl Done {
    /// Of an earlier try, if it is what is wanted now.
    fn find(folder: &Path, planned: &PlannedShard) -> Option<Done> {
        let done: Done = serde_json::from_slice(&fs::read(folder.join(planned.done_file())).ok()?).ok()?;
        let there = fs::metadata(folder.join(&planned.file)).ok()?.len();
        (done.planned == planned.hash && done.shard.file == planned.file && done.shard.bytes == there)
            .then_some(done)
    }
}

/// The image with a shorter side of `side` pixels; none if its own is no longer.
fn smaller(
    resize: &mut Resize,
    bytes: &[u8],
    side: u32,
) -> Result<Option<Vec<u8>>, crate::decode::DecodeError> {
    let raster = decode(bytes)?;
    if raster.width.min(raster.height) <= side {
        return Ok(None);
    }
    encode_jpeg(&resize.shorter_side(&raster, side)?, QUALITY).map(Some)
}

fn entry(listing: &Listing, image: &Image, path: &Path, bytes: &[u8]) -> Result<Vec<u8>, PackError> {
    let name = format!("{}/{}", listing.class(image), image.name);
    let refused = |why: &str| PackError::Refused(format!("{} cannot be packed: {why}", path.display()));
    let length = u16::try_from(name.len()).map_err(|_| refused("its name is too long"))?;
    let entry = [&length.to_le_bytes(), name.as_bytes(), bytes].concat();
    if entry.len() > MOST_ENTRY_BYTES as usize {
        return Err(refused(&format!("it has {} bytes, expected less than {MOST_ENTRY_BYTES}", bytes.len())));
    }
    Ok(entry)
}

/// Hashes and counts what is written.
struct Hashing<W> {
    out: W,
    sha256: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Durable before it has its name.
fn put(path: &Path, bytes: &[u8]) -> Result<(), PackError> {
    let partial: PathBuf = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(PackError::file("write", path))
}
