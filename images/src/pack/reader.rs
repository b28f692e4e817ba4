//! Reads packs. What an index says is checked before it is used: a pack may be damaged, or made to do harm.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::index::{self, Contents, Record, Shard};
use super::{INDEX, MOST_ENTRY_BYTES, PackError, hex};

/// A pack whose index has been read and checked.
#[derive(Debug)]
pub struct Pack {
    contents: Contents,
    splits: Vec<Split>,
    hash: String,
}

/// The images of a split of a pack.
#[derive(Debug)]
pub struct Split {
    name: String,
    shards: Vec<OpenShard>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct OpenShard {
    path: PathBuf,
    file: File,
    sha256: String,
    bytes: u64,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    shard: u32,
    record: Record,
}

/// An entry that has been read.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// `class/file`
    pub name: &'a str,
    /// The bytes of the image's file.
    pub image: &'a [u8],
}

impl Pack {
    /// Whether a folder holds a pack.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(INDEX).is_file()
    }

    /// Opens the pack in a folder, and all its shards.
    ///
    /// # Errors
    /// When a file cannot be read, or contradicts the index; it is named.
    pub fn open(folder: &Path) -> Result<Pack, PackError> {
        let path = folder.join(INDEX);
        let bytes = fs::read(&path).map_err(PackError::file("read", &path))?;
        let damaged = |why: String| PackError::damaged(&path, why);
        let (contents, records, hash) = index::decode(&bytes).map_err(damaged)?;
        let mut splits = Vec::new();
        let mut records = records.as_slice();
        for split in &contents.splits {
            let mut open = Split { name: split.name.clone(), shards: Vec::new(), places: Vec::new() };
            for shard in &split.shards {
                // As many as all shards have images: `decode` has counted.
                let (of_shard, rest) =
                    records.split_at_checked(shard.images as usize).unwrap_or((records, &[]));
                records = rest;
                check(shard, of_shard, contents.classes.len()).map_err(damaged)?;
                open.add(folder, shard, of_shard)?;
            }
            splits.push(open);
        }
        Ok(Pack { contents, splits, hash: hex(&hash) })
    }

    /// Names of the classes; a class's number is its place.
    pub fn classes(&self) -> &[String] {
        &self.contents.classes
    }

    /// The images of a split, `train` or `val`.
    pub fn split(&self, name: &str) -> Option<&Split> {
        self.splits.iter().find(|split| split.name == name)
    }

    /// Takes a split out of it, for who needs nothing else of the pack.
    pub fn take_split(&mut self, name: &str) -> Option<Split> {
        let place = self.splits.iter().position(|split| split.name == name)?;
        Some(self.splits.swap_remove(place))
    }

    /// SHA-256, in hexadecimal, over classes, names, labels and the bytes of every image.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn source(&self) -> &str {
        &self.contents.source
    }

    /// Images of all splits.
    pub fn images(&self) -> u64 {
        self.splits.iter().map(|split| split.len() as u64).sum()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.splits.iter().flat_map(|split| &split.shards).map(|shard| shard.bytes).sum()
    }

    /// Reads everything and holds it against its hashes. `read` hears of bytes read.
    ///
    /// # Errors
    /// Of the first shard that is not as it was written.
    pub fn verify(&self, read: &mut dyn FnMut(u64)) -> Result<(), PackError> {
        for shard in self.splits.iter().flat_map(|split| &split.shards) {
            let mut reader = (&shard.file).take(shard.bytes);
            let mut sha256 = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                match reader.read(&mut buffer).map_err(PackError::file("read", &shard.path))? {
                    0 => break,
                    n => {
                        sha256.update(&buffer[..n]);
                        read(n as u64);
                    }
                }
            }
            let found = hex(&sha256.finalize());
            if found != shard.sha256 {
                let why = format!("its SHA-256 is {found}, the index says {}", shard.sha256);
                return Err(PackError::damaged(&shard.path, why));
            }
        }
        Ok(())
    }
}

impl Split {
    fn add(&mut self, folder: &Path, shard: &Shard, records: &[Record]) -> Result<(), PackError> {
        let path = folder.join(&shard.file);
        let file = File::open(&path).map_err(PackError::file("read", &path))?;
        let found = file.metadata().map_err(PackError::file("read", &path))?.len();
        if found != shard.bytes {
            return Err(PackError::damaged(
                &path,
                format!("it has {found} bytes, the index says {}", shard.bytes),
            ));
        }
        let number = self.shards.len() as u32;
        let mut offset = 0;
        self.places.extend(records.iter().map(|&record| {
            let place = Place { offset, shard: number, record };
            offset += u64::from(record.bytes);
            place
        }));
        self.shards.push(OpenShard { path, file, sha256: shard.sha256.clone(), bytes: shard.bytes });
        Ok(())
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The class of an image; none beyond the last.
    pub fn class(&self, image: usize) -> Option<u32> {
        self.places.get(image).map(|place| place.record.class)
    }

    /// Reads an image into `buffer`.
    ///
    /// # Errors
    /// When it cannot be read, or its checksum is another: shard and place are named.
    pub fn read<'b>(&self, image: usize, buffer: &'b mut Vec<u8>) -> Result<Entry<'b>, PackError> {
        let none = || PackError::Refused(format!("there is no image {image} of {}", self.len()));
        let place = self.places.get(image).ok_or_else(none)?;
        let shard = self.shards.get(place.shard as usize).ok_or_else(none)?;
        buffer.clear();
        buffer.resize(place.record.bytes as usize, 0);
        shard.file.read_exact_at(buffer, place.offset).map_err(PackError::file("read", &shard.path))?;
        let damaged = |why: &str| {
            PackError::damaged(&shard.path, format!("image {image}, at byte {}: {why}", place.offset))
        };
        if crc32fast::hash(buffer) != place.record.crc32 {
            return Err(damaged("its checksum is another"));
        }
        entry(buffer).ok_or_else(|| damaged("it has no name"))
    }
}

fn entry(bytes: &[u8]) -> Option<Entry<'_>> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (name, image) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some(Entry { name: std::str::from_utf8(name).ok()?, image })
}

/// Holds a shard's records against the shard.
fn check(shard: &Shard, records: &[Record], classes: usize) -> Result<(), String> {
    let Shard { file, bytes, .. } = shard;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if file.strip_suffix(".shard").is_none_or(|name| name.is_empty() || !name.chars().all(plain)) {
        return Err(format!("{file:?} is no name of a shard"));
    }
    let mut end = 0;
    for (number, record) in records.iter().enumerate() {
        end += u64::from(record.bytes);
        if record.bytes > MOST_ENTRY_BYTES {
            let most = MOST_ENTRY_BYTES;
            return Err(format!(
                "image {number} of {file} has {} bytes, expected at most {most}",
                record.bytes
            ));
        }
        if record.class as usize >= classes {
            let class = record.class;
            return Err(format!(
                "image {number} of {file} is of class {class}, expected less than {classes}"
            ));
        }
    }
    if end != *bytes {
        return Err(format!("the images of {file} have {end} bytes together, the shard {bytes}"));
    }
    Ok(())
}
