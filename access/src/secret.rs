//! Secrets: in files that nobody but their owner can read, and in memory without a way to print them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tonic::metadata::{Ascii, MetadataValue};

/// A secret. It cannot be printed: its Debug form says only that it is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Of this text; white space around it does not count.
    pub fn new(text: &str) -> Secret {
        Secret(text.trim().to_owned())
    }

    /// The text, for who compares or writes it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// As a call carries it: `Bearer …`, which no log of HTTP headers shows. None: it holds what no token has.
    pub fn bearer(&self) -> Option<MetadataValue<Ascii>> {
        let mut value = MetadataValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A caller's token, and where it is from.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub secret: Secret,
    /// For messages: the file, or the variable of the environment.
    pub from: String,
    /// Others could read the file until now: a sentence that says so.
    pub mended: Option<String>,
}

impl Token {
    /// Of a file.
    ///
    /// # Errors
    /// In words that go on from the file's name.
    pub fn read(file: &Path) -> Result<Token, String> {
        let mended = keep_private(file)?;
        let text = fs::read_to_string(file).map_err(|error| format!("cannot be read ({error})"))?;
        Ok(Token { secret: Secret::new(&text), from: file.display().to_string(), mended })
    }
}

/// Permissions that anybody but the owner has.
const OTHERS: u32 = 0o077;

/// Takes the permissions of others off a secret's file. What it says if there were any: they may have read it.
///
/// # Errors
/// When the file is not there, or is somebody else's; in words that go on from its name.
pub fn keep_private(file: &Path) -> Result<Option<String>, String> {
    let found = fs::metadata(file).map_err(|error| format!("cannot be read ({error})"))?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    fs::set_permissions(file, fs::Permissions::from_mode(mode & !OTHERS)).map_err(|error| {
        format!(
            "can be read by others (mode {mode:04o}), and that cannot be changed ({error}); make it mode 0600"
        )
    })?;
    Ok(Some(format!(
        "{} could be read by others (mode {mode:04o}); it is its owner's alone now. If somebody else uses this \
         machine, make a new one: remove the file where cnxd runs, and start cnxd again",
        file.display()
    )))
}

/// Writes a file whole or not at all: beside, synced, renamed. Readable by its owner only.
///
/// # Errors
/// Of the file system.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    write_with_mode(path, text, 0o600)
}

/// The same for what others may read.
///
/// # Errors
/// Of the file system.
pub fn write_public(path: &Path, text: &str) -> io::Result<()> {
    write_with_mode(path, text, 0o644)
}

fn write_with_mode(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // One that a crash left may have other permissions.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_secret_is_printed_nowhere() {
        let secret = Secret::new("sesame-open\n");
        let token = Token { secret: secret.clone(), from: "here".to_owned(), mended: None };
        for printed in [format!("{secret:?}"), format!("{token:?}"), format!("{:?}", secret.bearer())] {
            assert!(!printed.contains("sesame"), "{printed}");
        }
        assert_eq!(secret.reveal(), "sesame-open");
    }

    #[test]
    fn a_file_that_others_can_read_is_mended_once_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        write_public(&file, "sesame\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let token = Token::read(&file).unwrap();
        let said = token.mended.unwrap();
        assert!(said.contains("0644") && said.contains(&file.display().to_string()), "{said}");
        assert!(!said.contains("sesame"));
        assert_eq!(mode(&file), 0o600);
        assert!(Token::read(&file).unwrap().mended.is_none());
    }

    #[test]
    fn what_is_written_is_the_owners_alone_even_over_what_a_crash_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let left = folder.path().join("key.new");
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        write_private(&file, "whole").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("whole", 0o600));
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_no_token() {
        assert!(Secret::new("a\u{7}b").bearer().is_none());
        assert!(Secret::new(&"f".repeat(64)).bearer().is_some());
    }
}
