//! The index of a pack, as bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `CNXPACK1` |
//! | 8 | length of the contents, little endian, as all numbers |
//! | … | [`Contents`] as JSON |
//! | 12 each | [`Record`]s, split after split, shard after shard |
//! | 32 | SHA-256 of all before |

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"CNXPACK1";
const HASH_BYTES: usize = 32;
pub(super) const RECORD_BYTES: usize = 12;

/// What a pack holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    /// Names of the classes; a class's number is its place.
    pub classes: Vec<String>,
    /// The shorter side that larger images were made to have, in pixels; none: the files as they were.
    pub shorter_side: Option<u32>,
    /// SHA-256 over what was packed: names, sizes, options. Tells whether a folder is packed already.
    pub source: String,
    pub splits: Vec<SplitContents>,
}

/// What a split holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitContents {
    pub name: String,
    pub shards: Vec<Shard>,
}

/// A file of entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shard {
    pub file: String,
    pub bytes: u64,
    pub images: u32,
    /// In hexadecimal.
    pub sha256: String,
}

/// An entry: where it is follows from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the whole entry.
    pub bytes: u32,
    pub class: u32,
    /// CRC-32 of the whole entry.
    pub crc32: u32,
}

/// The bytes of an index, and its hash.
pub(super) fn encode(contents: &Contents, records: &[Record]) -> serde_json::Result<(Vec<u8>, [u8; 32])> {
    let text = serde_json::to_vec(contents)?;
    let mut out = Vec::with_capacity(16 + text.len() + records.len() * RECORD_BYTES + HASH_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(&text);
    for record in records {
        for number in [record.bytes, record.class, record.crc32] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    let hash: [u8; 32] = Sha256::digest(&out).into();
    out.extend_from_slice(&hash);
    Ok((out, hash))
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// What is wrong with it. Nothing is allocated that is not in the bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<(Contents, Vec<Record>, [u8; 32]), String> {
    let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or("it is too short for an index")?;
    let rest = body.strip_prefix(MAGIC).ok_or("it does not begin as an index of a pack does")?;
    if Sha256::digest(body).as_slice() != hash {
        return Err("its checksum is another".to_owned());
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or("it ends within its head")?;
    let length =
        usize::try_from(u64::from_le_bytes(*length)).map_err(|_| "its contents cannot be so long")?;
    let (text, records) = rest.split_at_checked(length).ok_or("it ends within its contents")?;
    let contents: Contents =
        serde_json::from_slice(text).map_err(|error| format!("its contents: {error}"))?;
    let images: u64 = contents.splits.iter().flat_map(|s| &s.shards).map(|s| u64::from(s.images)).sum();
    let found = records.len();
    if images.checked_mul(RECORD_BYTES as u64) != Some(found as u64) {
        return Err(format!(
            "it has {found} bytes of records, expected {RECORD_BYTES} for each of {images} images"
        ));
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
    let records = records.chunks_exact(RECORD_BYTES).map(|r| Record {
        bytes: number(&r[..4]),
        class: number(&r[4..8]),
        crc32: number(&r[8..]),
    });
    Ok((contents, records.collect(), *hash))
}
