//! The state folder: made for its owner only, held by one coordinator, with the token that others present and the
//! endpoint where they find it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use cnx_proto::state_dir::StateDir;

use crate::chance::Chance;

/// A state folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct Folder {
    dir: StateDir,
    token: String,
    /// The lock goes with the file, also when the process is killed.
    _lock: File,
}

/// Length of the token, in bytes before it is written in hexadecimal.
const TOKEN_BYTES: usize = 32;

impl Folder {
    /// Makes the folder if it is missing and takes hold of it.
    ///
    /// # Errors
    /// When another coordinator holds it, or it cannot be written.
    pub fn claim(dir: &StateDir) -> anyhow::Result<Folder> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.path())
            .with_context(|| format!("cannot make the state folder {}", dir.path().display()))?;
        let lock = lock(dir)?;
        let token = token(dir).with_context(|| format!("cannot use the token {}", dir.token().display()))?;
        Ok(Folder { dir: dir.clone(), token, _lock: lock })
    }

    /// What callers present.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where callers find the token.
    pub fn token_file(&self) -> PathBuf {
        self.dir.token()
    }

    /// Tells others where to call, once somebody listens there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, address: SocketAddr) -> anyhow::Result<()> {
        write_atomically(&self.dir.endpoint(), &format!("http://{address}\n"))
            .with_context(|| format!("cannot write {}", self.dir.endpoint().display()))
    }

    /// Takes the announcement back.
    pub fn withdraw(&self) {
        if let Err(error) = fs::remove_file(self.dir.endpoint()) {
            tracing::debug!("the endpoint file was gone already: {error}");
        }
    }
}

fn lock(dir: &StateDir) -> anyhow::Result<File> {
    let path = dir.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder's number is a courtesy; without it the refusal still stands.
            let _ = file.read_to_string(&mut holder);
            let holder = Some(holder.trim()).filter(|pid| !pid.is_empty()).unwrap_or("unknown");
            bail!(
                "the state folder {} is taken: another cnxd (pid {holder}) runs on it; stop that one, or give \
                 another folder with --state",
                dir.path().display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// Reads the token, or makes it if there is none.
fn token(dir: &StateDir) -> io::Result<String> {
    let path = dir.token();
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= TOKEN_BYTES => Ok(text.trim().to_owned()),
        Ok(_) => {
            Err(io::Error::other("it is shorter than a token; remove it, and the next start makes a new one"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = Chance::System.hex(TOKEN_BYTES)?;
            write_atomically(&path, &format!("{token}\n"))?;
            Ok(token)
        }
        Err(error) => Err(error),
    }
}

/// Whole or absent: written beside, synced, renamed. Readable by the owner only.
fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state(root: &tempfile::TempDir) -> StateDir {
        StateDir::locate(Some(&root.path().join("a/b")), |_| None).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_and_its_token_are_the_owners_only_and_the_token_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let token = Folder::claim(&dir).unwrap().token().to_owned();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_eq!((mode(dir.path()), mode(&dir.token())), (0o700, 0o600));
        assert_eq!(Folder::claim(&dir).unwrap().token(), token);
    }

    #[test]
    fn a_second_claim_names_the_folder_and_the_holder() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let _held = Folder::claim(&dir).unwrap();
        let refusal = Folder::claim(&dir).unwrap_err().to_string();
        assert!(refusal.contains(&dir.path().display().to_string()), "{refusal}");
        assert!(refusal.contains(&format!("pid {}", std::process::id())), "{refusal}");
    }

    #[test]
    fn a_cut_token_is_refused_rather_than_guessed() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        drop(Folder::claim(&dir).unwrap());
        fs::write(dir.token(), "abc").unwrap();
        assert!(format!("{:#}", Folder::claim(&dir).unwrap_err()).contains("remove it"));
    }
}
