//! The note that an import leaves beside its files: that they are no copies of the published ones, and what they were.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::at;
use super::dataset::Cifar;
use crate::failure::{Failure, Result};

const NAME: &str = "imported.json";
/// More than a note has.
const MOST_BYTES: u64 = 1 << 16;

/// The note.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// What it is, for who finds it.
    about: String,
    /// SHA-256, in hexadecimal, of each file of records.
    sha256: BTreeMap<String, String>,
}

impl Note {
    /// Of the files in a folder, written into it.
    pub fn leave(cifar: Cifar, folder: &Path) -> Result {
        let mut sha256 = BTreeMap::new();
        for batch in cifar.train().iter().chain([&cifar.test()]) {
            let path = folder.join(batch.name);
            if path.exists() {
                sha256.insert(batch.name.to_owned(), hash(&path).map_err(at(&path, "read"))?);
            }
        }
        let about =
            "made from PNG folders by cnx data import; the published files have another order".to_owned();
        let path = folder.join(NAME);
        let text = serde_json::to_string_pretty(&Note { about, sha256 }).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text + "\n")).map_err(at(&path, "written"))
    }

    /// The note in a folder, if there is one.
    pub fn find(folder: &Path) -> Result<Option<Note>> {
        let path = folder.join(NAME);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path, "read")(error)),
            Ok(_) => serde_json::from_str(&text).map(Some).map_err(|error| {
                Failure::refused(format!("{} is no note of an import: {error}", path.display()))
            }),
        }
    }

    /// The files that are no longer as they were imported.
    pub fn differing(&self, folder: &Path) -> Vec<String> {
        let differs =
            |(name, sha256): &(&String, &String)| hash(&folder.join(name)).ok().as_ref() != Some(*sha256);
        self.sha256.iter().filter(differs).map(|(name, _)| name.clone()).collect()
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sha256.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => sha256.update(&buffer[..n]),
        }
    }
}
