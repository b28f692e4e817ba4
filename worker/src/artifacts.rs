//! Where artifacts are kept: a local folder, or an object store by URL.
//!
//! A file is whole or absent. Beside each `<name>` stands `<name>.sha256` (as `sha256sum` writes it), which is in place
//! before the file is: a file without it, or that differs from it, is damaged.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cnx_proto::v1::FailureClass;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use url::Url;

use crate::failure::{Failure, Result};
use crate::hex;

/// What the name of an unfinished file ends with.
const UNFINISHED: &str = ".part";
const HASH: &str = ".sha256";

/// A place for artifacts; names are relative to it, with `/` between folders.
#[derive(Debug)]
pub enum Artifacts {
    /// A folder of this machine.
    Folder(PathBuf),
    /// An object store.
    Remote(Remote),
}

/// An object store, and the runtime that talks to it.
#[derive(Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    runtime: tokio::runtime::Runtime,
}

/// What a file that was put is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl Artifacts {
    /// Opens a place by its URL: `file://…`, or, with the feature `cloud`, `s3://…`, `gs://…`, `az://…`.
    ///
    /// # Errors
    /// When the URL names nothing that this build can reach.
    pub fn open(url: &str) -> Result<Artifacts> {
        let parsed = Url::parse(url).map_err(|e| {
            Failure::bad_spec(format!("artifacts URL {url:?} is no URL ({e}); e.g. file:///var/lib/cnx"))
        })?;
        if parsed.scheme() == "file" {
            let folder = parsed.to_file_path().map_err(|()| {
                Failure::bad_spec(format!(
                    "artifacts URL {url:?} names no local folder; e.g. file:///var/lib/cnx"
                ))
            })?;
            return Ok(Artifacts::Folder(folder));
        }
        let (store, prefix) = object_store::parse_url_opts(&parsed, std::env::vars()).map_err(|e| {
            Failure::bad_spec(format!(
                "artifacts URL {url:?} cannot be used ({e}); object stores need a worker built with --features cloud"
            ))
        })?;
        Artifacts::remote(Arc::from(store), prefix)
    }

    /// Artifacts in an object store, below `prefix`.
    ///
    /// # Errors
    /// When the runtime cannot start.
    pub fn remote(store: Arc<dyn ObjectStore>, prefix: Key) -> Result<Artifacts> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
                Failure::internal(format!("cannot start the object store's runtime: {error}"))
            })?;
        Ok(Artifacts::Remote(Remote { store, prefix, runtime }))
    }

    /// Puts a file there, replacing one of the same name in one step. `attempt` tells unfinished files apart.
    ///
    /// # Errors
    /// DISK_FULL, or what went wrong.
    pub fn put(&self, name: &str, bytes: Vec<u8>, attempt: u32) -> Result<Stored> {
        let stored = Stored { sha256: hex(&Sha256::digest(&bytes)), bytes: bytes.len() as u64 };
        let file = name.rsplit('/').next().unwrap_or(name);
        let hash = format!("{}  {file}\n", stored.sha256);
        match self {
            Artifacts::Folder(root) => {
                let path = root.join(name);
                // Both are on disk before either is in place: a full disk leaves the old pair as it was.
                let hash_path = with_suffix(&path, HASH);
                let hash = write_beside(&hash_path, hash.as_bytes(), attempt)?;
                let file =
                    write_beside(&path, &bytes, attempt).inspect_err(|_| drop(fs::remove_file(&hash)))?;
                put_in_place(&hash, &hash_path)?;
                put_in_place(&file, &path)?;
            }
            Artifacts::Remote(remote) => {
                remote.put(&format!("{name}{HASH}"), hash.into_bytes())?;
                remote.put(name, bytes)?;
            }
        }
        Ok(stored)
    }

    /// A file, checked against its hash.
    ///
    /// # Errors
    /// In words, why it cannot be used.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        let read = |name: &str| match self {
            Artifacts::Folder(root) => {
                fs::read(root.join(name)).map_err(|e| format!("cannot read {name}: {e}"))
            }
            Artifacts::Remote(remote) => remote.get(name).map_err(|e| format!("cannot read {name}: {e}")),
        };
        let hash = String::from_utf8_lossy(&read(&format!("{name}{HASH}"))?).into_owned();
        let bytes = read(name)?;
        let (expected, found) = (hash.split(' ').next().unwrap_or_default(), hex(&Sha256::digest(&bytes)));
        if expected != found {
            return Err(format!("its SHA-256 is {found}, expected {expected}: it is damaged"));
        }
        Ok(bytes)
    }

    /// Names of the whole files of a folder.
    ///
    /// # Errors
    /// When the folder cannot be read; one that does not exist is empty.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = match self {
            Artifacts::Folder(root) => file_names(&root.join(folder))?,
            Artifacts::Remote(remote) => remote.list(folder)?,
        };
        names.retain(|name| !name.ends_with(HASH) && !name.ends_with(UNFINISHED));
        names.sort();
        Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
    }

    /// Deletes files and their hashes; those that are gone already do not matter.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn delete(&self, names: &[String]) -> Result<()> {
        for name in names {
            match self {
                Artifacts::Folder(root) => {
                    // The hash last: a file is never there without it.
                    let path = root.join(name);
                    remove(&path)?;
                    remove(&with_suffix(&path, HASH))?;
                }
                Artifacts::Remote(remote) => {
                    remote.delete(name)?;
                    remote.delete(&format!("{name}{HASH}"))?;
                }
            }
        }
        Ok(())
    }

    /// Removes what earlier attempts left unfinished in a folder.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn clear_unfinished(&self, folder: &str, attempt: u32) -> Result<()> {
        let Artifacts::Folder(root) = self else { return Ok(()) };
        let folder = root.join(folder);
        for name in file_names(&folder)? {
            let of = name
                .strip_suffix(UNFINISHED)
                .and_then(|n| n.rsplit_once(".a"))
                .map(|(_, a)| a.parse::<u32>());
            if matches!(of, Some(Ok(of)) if of < attempt) {
                remove(&folder.join(name))?;
            }
        }
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Writes a file: after a crash, the old one or the new one is there.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], attempt: u32) -> Result<()> {
    put_in_place(&write_beside(path, bytes, attempt)?, path)
}

/// Writes and syncs a file beside the one that it will replace.
fn write_beside(path: &Path, bytes: &[u8], attempt: u32) -> Result<PathBuf> {
    let failed = |doing: &'static str| move |error: std::io::Error| Failure::file(doing, path, &error);
    fs::create_dir_all(parent(path)).map_err(failed("make the folder of"))?;
    let beside = with_suffix(path, &format!(".a{attempt}{UNFINISHED}"));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // It may be what filled the disk.
        drop(fs::remove_file(&beside));
        return Err(failed("write")(error));
    }
    Ok(beside)
}

/// Renames a written file to its name, and syncs the folder.
fn put_in_place(beside: &Path, path: &Path) -> Result<()> {
    let folder = parent(path);
    fs::rename(beside, path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| Failure::file("put in place", path, &error))
}

/// The folder of a file.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("delete", path, &error))
        }
        _ => Ok(()),
    }
}

fn file_names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Failure::file("list", folder, &error))?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    Ok(entries.filter_map(name).collect())
}

impl Remote {
    fn key(&self, name: &str) -> Key {
        name.split('/').fold(self.prefix.clone(), |key, part| key.join(part))
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let key = self.key(name);
        let put = self.store.put(&key, PutPayload::from(bytes));
        self.runtime.block_on(put).map(drop).map_err(|e| failed("upload", name, &e))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, object_store::Error> {
        self.runtime.block_on(async { Ok(self.store.get(&self.key(name)).await?.bytes().await?.to_vec()) })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let key = self.key(folder);
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&key)));
        let objects = listed.map_err(|e| failed("list", folder, &e))?.objects;
        Ok(objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.store.delete(&self.key(name))) {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(failed("delete", name, &error)),
        }
    }
}

/// Another attempt, perhaps elsewhere, may reach the store: of the classes that are tried again, DEVICE is the nearest.
fn failed(doing: &str, name: &str, error: &object_store::Error) -> Failure {
    Failure::new(FailureClass::Device, format!("cannot {doing} {name} in the object store: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, [Artifacts; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        let local = Artifacts::open(url.as_str()).unwrap();
        let memory = object_store::memory::InMemory::new();
        (folder, [local, Artifacts::remote(Arc::new(memory), Key::from("some/prefix")).unwrap()])
    }

    #[test]
    fn what_is_put_is_listed_got_replaced_and_deleted() {
        let (_folder, places) = places();
        for place in places {
            assert_eq!(place.list("experiments/1").unwrap(), Vec::<String>::new());
            let name = "experiments/1/checkpoint".to_owned();
            place.put(&name, b"old".to_vec(), 1).unwrap();
            let stored = place.put(&name, b"new!".to_vec(), 1).unwrap();
            assert_eq!(stored.bytes, 4);
            assert_eq!(place.list("experiments/1").unwrap(), [name.as_str()]);
            assert_eq!(place.get(&name).unwrap(), b"new!");
            place.delete(&[name.clone(), "experiments/1/gone".to_owned()]).unwrap();
            assert!(place.get(&name).is_err());
            assert!(place.list("experiments/1").unwrap().is_empty());
        }
    }

    #[test]
    fn a_file_that_differs_from_its_hash_is_not_given_out() {
        let (folder, [place, _]) = places();
        place.put("a", vec![0; 1000], 1).unwrap();
        let mut bytes = fs::read(folder.path().join("a")).unwrap();
        bytes[500] ^= 1;
        fs::write(folder.path().join("a"), &bytes).unwrap();
        assert!(place.get("a").unwrap_err().contains("damaged"));
        fs::write(folder.path().join("a"), &bytes[..400]).unwrap();
        assert!(place.get("a").is_err());
    }

    #[test]
    fn what_an_earlier_attempt_left_unfinished_is_cleared() {
        let (folder, [place, _]) = places();
        for name in ["x.a1.part", "x.a2.part", "x"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        place.clear_unfinished("", 2).unwrap();
        assert!(!folder.path().join("x.a1.part").exists());
        assert!(folder.path().join("x.a2.part").exists() && folder.path().join("x").exists());
    }

    #[test]
    fn a_url_that_nothing_can_reach_says_what_would_do() {
        assert!(Artifacts::open("not a url").unwrap_err().message.contains("file:///"));
        assert!(Artifacts::open("ftp://host/x").unwrap_err().message.contains("--features cloud"));
    }
}
