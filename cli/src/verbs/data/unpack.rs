//! Unpacks an archive that came over the network: only the files that are expected, in the folder that is expected, of bounded
//! size; all of them or nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use super::at;
use super::dataset::Cifar;
use crate::failure::{Failure, Result};

/// More than any file of the datasets has.
const MOST_BYTES_A_FILE: u64 = 400 << 20;
const MOST_FILES: usize = 64;

/// Unpacks `archive` into `root`, as the dataset's folder, once `check` is content with what is in it.
pub fn unpack(archive: &Path, cifar: Cifar, root: &Path, check: impl Fn(&Path) -> Result) -> Result<PathBuf> {
    let target = root.join(cifar.folder());
    let beside = tempfile::Builder::new().prefix(&format!(".{}-", cifar.folder())).tempdir_in(root);
    let beside = beside.map_err(at(root, "written"))?;
    let unpacked = beside.path().join(cifar.folder());
    fs::create_dir(&unpacked).map_err(at(&unpacked, "made"))?;
    let file = File::open(archive).map_err(at(archive, "read"))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(io::BufReader::new(file)));
    let broken =
        |error: io::Error| Failure::refused(format!("{} cannot be unpacked: {error}", archive.display()));
    for (i, entry) in tar.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let kind = entry.header().entry_type();
        let size = entry.size();
        if i >= MOST_FILES || size > MOST_BYTES_A_FILE {
            return Err(refused(archive, &path, "is more than the dataset holds"));
        }
        match (kind, place(&path, cifar)) {
            (tar::EntryType::Directory, Some(_)) => {}
            (tar::EntryType::Regular, Some(Some(name))) => {
                write(&mut entry, &unpacked.join(name), size).map_err(broken)?;
            }
            (tar::EntryType::Regular | tar::EntryType::Directory, _) => {
                return Err(refused(archive, &path, &format!("lies outside of {}", cifar.folder())));
            }
            _ => return Err(refused(archive, &path, "is neither a file nor a folder")),
        }
    }
    check(&unpacked)?;
    // Durable before it has its name: who sees the folder sees all of it.
    File::open(&unpacked).and_then(|folder| folder.sync_all()).map_err(at(&unpacked, "written"))?;
    fs::rename(&unpacked, &target).map_err(at(&target, "written"))?;
    Ok(target)
}

fn refused(archive: &Path, path: &Path, why: &str) -> Failure {
    let message =
        format!("{} holds {}, which {why}; nothing was unpacked", archive.display(), path.display());
    Failure::refused(message)
}

/// The file's name in the dataset's folder (the folder itself: none inside); nothing for what lies elsewhere.
fn place(path: &Path, cifar: Cifar) -> Option<Option<&std::ffi::OsStr>> {
    let parts: Vec<Component<'_>> = path.components().filter(|c| *c != Component::CurDir).collect();
    match parts.as_slice() {
        [Component::Normal(folder)] if *folder == cifar.folder() => Some(None),
        [Component::Normal(folder), Component::Normal(name)] if *folder == cifar.folder() => Some(Some(name)),
        _ => None,
    }
}

fn write(entry: &mut impl Read, path: &Path, size: u64) -> io::Result<()> {
    let mut out = File::create_new(path)?;
    let copied = io::copy(&mut entry.take(size), &mut out)?;
    if copied != size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it ends within {}", path.display()),
        ));
    }
    out.flush()?;
    out.sync_all()
}
