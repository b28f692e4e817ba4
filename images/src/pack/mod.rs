//! Packs: class folders in a few large files, which a disk reads far faster than a million small ones.
//!
//! A pack is a folder:
//!
//! * `train-00000.shard`, …: entries back to back. An entry is the length of a name (two bytes, little endian), the name
//!   (`class/file`, UTF-8), and the bytes of the image as they were.
//! * `index.cnx`: what is where ([`index`]), with a checksum of every entry and the SHA-256 of every shard and of itself.
//!   It is written last: a folder without it is no pack.
//!
//! Shards are read with positioned reads, not mapped: a disk that fails is then an error with a name and no signal, no unsafe
//! code is needed, and slots on one machine share the page cache either way. Beside the index (12 bytes an image on disk, 24
//! in memory) nothing is kept in memory.

mod index;
mod reader;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use reader::{Entry, Pack, Split};
pub use writer::{Options, Packed, pack};

/// The name of the index in a pack's folder.
pub const INDEX: &str = "index.cnx";

/// Bytes that one entry may have: a hundred times those of a large photograph.
const MOST_ENTRY_BYTES: u32 = 256 << 20;

/// What is wrong with a pack, or with what should become one.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// Reads on as "cannot …".
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pack is not what its index, or the index not what its checksum says.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found, and what was expected.
        why: String,
    },
    /// The folder to write is in use.
    #[error("{}", .0)]
    Refused(String),
}

impl PackError {
    fn file<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> PackError + 'a {
        move |source| PackError::File { doing, path: path.to_path_buf(), source }
    }

    fn damaged(path: &Path, why: impl Into<String>) -> PackError {
        PackError::Damaged { path: path.to_path_buf(), why: why.into() }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
