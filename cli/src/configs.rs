//! Reads configs and sweeps from disk.

use std::path::{Path, PathBuf};

use cnx_proto::file::Override;
use cnx_proto::sweep::{self, Loaded};

use crate::failure::{Failure, Result};

/// Larger files are no configs; they are not even read.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Loads all files, or says what is wrong with each that has something wrong.
pub fn load(files: &[PathBuf], overrides: &[Override]) -> Result<Vec<Loaded>> {
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match sweep::load(file, overrides, &read) {
            Ok(one) => loaded.push(one),
            Err(found) => problems.push(found.to_string()),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(Failure::usage(problems.join("\n"))) }
}

fn read(path: &Path) -> std::io::Result<String> {
    let about = std::fs::metadata(path)?;
    if about.is_file() && about.len() > MAX_CONFIG_BYTES {
        let message = format!("it has {} bytes; a config has at most {MAX_CONFIG_BYTES}", about.len());
        return Err(std::io::Error::other(message));
    }
    std::fs::read_to_string(path)
}
