//! The container of torch 1.6 and later: a zip archive of `NAME/data.pkl` and the storages `NAME/data/KEY`, stored
//! without compression. An archive that someone compressed afterwards is read as well.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use flate2::read::DeflateDecoder;
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::Storage;
use super::tensors::{Storages, storage_bytes};
use crate::ReadError;
use crate::budget::Budget;
use crate::error::shown;

/// What an entry of the directory begins with.
const ENTRY: &[u8] = b"PK\x01\x02";
/// And what it costs.
const ENTRY_BYTES: u64 = 512;

/// The archive's entries.
pub(super) struct Archive<'a> {
    entries: BTreeMap<String, Entry<'a>>,
    /// `NAME/`.
    root: String,
}

struct Entry<'a> {
    stored: &'a [u8],
    deflated: bool,
    bytes: u64,
    /// 0 where none was computed.
    crc32: u32,
}

impl<'a> Entry<'a> {
    fn of(file: &ZipFile<'_, Cursor<&[u8]>>, name: &str, bytes: &'a [u8]) -> Result<Entry<'a>, ReadError> {
        let deflated = match file.compression() {
            _ if file.encrypted() => return Err(ReadError::unsupported("it is encrypted")),
            CompressionMethod::Stored => false,
            CompressionMethod::DEFLATE => true,
            other => {
                let message = format!("its compression ({other}) is not read; unpack it");
                return Err(ReadError::unsupported(message));
            }
        };
        let stored = || {
            let start = usize::try_from(file.data_start()?).ok()?;
            bytes.get(start..)?.get(..usize::try_from(file.compressed_size()).ok()?)
        };
        let stored = stored().ok_or_else(|| {
            ReadError::damaged(format!("its entry {} lies beyond its end", shown(name.as_bytes())))
        })?;
        Ok(Entry { stored, deflated, bytes: file.size(), crc32: file.crc32() })
    }
}

impl<'a> Archive<'a> {
    /// Reads the directory.
    pub fn open(bytes: &'a [u8], budget: &mut Budget) -> Result<Archive<'a>, ReadError> {
        let malformed = |error| ReadError::damaged(format!("its zip directory cannot be read ({error})"));
        // Charged by what is there, since what the directory says of itself may be a lie.
        let entries = bytes.windows(ENTRY.len()).filter(|window| *window == ENTRY).count();
        budget.spend(ENTRY_BYTES.saturating_mul(entries as u64))?;
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(malformed)?;
        let mut entries = BTreeMap::new();
        for index in 0..zip.len() {
            let file = zip.by_index_raw(index).map_err(malformed)?;
            let name = file.name().map_err(malformed)?.into_owned();
            let entry = Entry::of(&file, &name, bytes)?;
            drop(file);
            entries.insert(name, entry);
        }
        // The outermost, if there are several.
        let roots = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
        let roots = roots.filter(|root| root.is_empty() || root.ends_with('/'));
        let root = roots.min_by_key(|root| root.len()).map(str::to_owned);
        let root =
            root.ok_or_else(|| ReadError::NotACheckpoint("it is a zip archive without data.pkl".to_owned()))?;
        Ok(Archive { entries, root })
    }

    /// The entry that holds the pickle.
    pub fn pickle(&self, budget: &mut Budget) -> Result<Cow<'a, [u8]>, ReadError> {
        if self.entries.contains_key(&format!("{}constants.pkl", self.root)) {
            return Err(ReadError::unsupported(
                "it is a TorchScript program; save the state dict instead: torch.save(model.state_dict(), FILE)",
            ));
        }
        if let Some(order) = self.entry("byteorder", budget)?
            && *order != *b"little"
        {
            return Err(ReadError::unsupported(
                "it was saved on a big-endian machine; load it with torch and save it on another",
            ));
        }
        let missing = || ReadError::damaged("its archive has no data.pkl");
        self.entry("data.pkl", budget)?.ok_or_else(missing)
    }

    /// The spec that lies beside the tensors in a file that cnx exported.
    pub fn spec_json(&self, budget: &mut Budget) -> Result<Option<String>, ReadError> {
        let Some(content) = self.entry("extra/spec.json", budget)? else { return Ok(None) };
        budget.spend(content.len() as u64)?;
        Ok(String::from_utf8(content.into_owned()).ok())
    }

    /// The content of an entry below the root, checked against its checksum.
    fn entry(&self, name: &str, budget: &mut Budget) -> Result<Option<Cow<'a, [u8]>>, ReadError> {
        let Some(entry) = self.entries.get(&format!("{}{name}", self.root)) else { return Ok(None) };
        let contradiction =
            || ReadError::damaged(format!("its entry {} is not as long as it says", shown(name.as_bytes())));
        let content = if entry.deflated {
            // Charged before anything is inflated, and never more inflated than charged.
            budget.spend(entry.bytes)?;
            let mut content = Vec::with_capacity(usize::try_from(entry.bytes).map_err(|_| contradiction())?);
            let inflated = DeflateDecoder::new(entry.stored).take(entry.bytes + 1).read_to_end(&mut content);
            inflated.map_err(|error| {
                ReadError::damaged(format!("its entry {name} cannot be inflated ({error})"))
            })?;
            Cow::Owned(content)
        } else {
            Cow::Borrowed(entry.stored)
        };
        if content.len() as u64 != entry.bytes {
            return Err(contradiction());
        }
        if entry.crc32 != 0 && crc32fast::hash(&content) != entry.crc32 {
            let name = shown(name.as_bytes());
            return Err(ReadError::damaged(format!("the checksum of its entry {name} is wrong")));
        }
        Ok(Some(content))
    }
}

impl Storages for Archive<'_> {
    fn load(&self, key: &[u8], storage: &Storage, budget: &mut Budget) -> Result<Cow<'_, [u8]>, ReadError> {
        let key = shown(key);
        let content = self
            .entry(&format!("data/{key}"), budget)?
            .ok_or_else(|| ReadError::damaged(format!("its storage {key} is missing")))?;
        if storage_bytes(storage) != Some(content.len()) {
            let (found, elements) = (content.len(), storage.len);
            return Err(ReadError::damaged(format!(
                "its storage {key} has {found} bytes, which are not the {elements} elements that the pickle says"
            )));
        }
        Ok(content)
    }
}
