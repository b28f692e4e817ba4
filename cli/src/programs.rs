//! Finds the other programs of cnx.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// cnx-worker: of `$CNX_WORKER`, else beside this program, else in PATH.
pub fn worker() -> Result<PathBuf> {
    find("cnx-worker", "CNX_WORKER", "cargo build --release -p cnx-worker (needs libtorch: make setup)")
}

/// cnxd: of `$CNX_DAEMON`, else beside this program, else in PATH.
pub fn daemon() -> Result<PathBuf> {
    find("cnxd", "CNX_DAEMON", "cargo build --release -p cnx-daemon")
}

fn find(name: &str, variable: &str, how: &str) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from) {
        return match named.is_file() {
            true => Ok(named),
            false => {
                Err(Failure::usage(format!("${variable} names {}, which is not a file", named.display())))
            }
        };
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(name));
    let path = std::env::var_os("PATH");
    beside.into_iter().chain(in_path(name, path)).find(|file| file.is_file()).ok_or_else(|| {
        Failure::refused(format!(
            "{name} is neither beside cnx nor in PATH; build it: {how}, or set {variable}"
        ))
    })
}

fn in_path(name: &str, path: Option<OsString>) -> Vec<PathBuf> {
    path.map_or_else(Vec::new, |path| std::env::split_paths(&path).map(|folder| folder.join(name)).collect())
}
