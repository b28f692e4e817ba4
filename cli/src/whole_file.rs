//! Files that are whole or not there.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// Writes a file beside its place and puts it there in one step, over one that is there: whatever happens, the old one or the
/// new one is there.
pub fn write(path: &Path, bytes: &[u8]) -> Result {
    let show = path.display();
    if path.is_dir() {
        return Err(Failure::refused(format!("cannot write {show}: it is a folder; name a file in it")));
    }
    let folder = folder(path);
    if !folder.is_dir() {
        let folder = folder.display();
        return Err(Failure::refused(format!(
            "cannot write {show}: there is no folder {folder}; make it first"
        )));
    }
    put(path, &folder, bytes).map_err(|error| Failure::refused(format!("cannot write {show}: {error}")))
}

fn put(path: &Path, folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As the umask allows; temporary files are for their owner alone.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let file = builder.prefix(".cnx-").suffix(".part").tempfile_in(folder);
    // The kind alone: the name of the temporary file means nothing to the person.
    let mut file = file.map_err(|error| io::Error::from(error.kind()))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_replaces_what_is_there_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        for text in ["old and longer", "new"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| write(path, b"x").unwrap_err().message;
        assert!(said(folder.path()).contains("it is a folder"));
        let missing = folder.path().join("none").join("model");
        assert!(
            said(&missing).contains("there is no folder") && said(&missing).contains("none"),
            "{}",
            said(&missing)
        );
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(said(&folder.path().join("file/model")).contains("there is no folder"));
    }
}
