//! A small disk that can be filled, freed and made read-only: a tmpfs in a mount namespace of the calling thread's, seen by
//! this thread and what it starts, and gone with them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

const FILLER: &str = "filler";

/// See the head of this file.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// A disk of so many KiB. `None` where mounting is impossible: then the test says so and ends, except in CI, where
    /// it fails.
    pub fn or_skip(kib: u32) -> Option<Disk> {
        match Disk::mount(kib) {
            Ok(disk) => Some(disk),
            Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
                panic!("a disk cannot be mounted ({why}), and in CI this test has to run")
            }
            Err(why) => {
                println!("NOT TESTED: a disk cannot be mounted here ({why}); it needs root on Linux");
                None
            }
        }
    }

    fn mount(kib: u32) -> nix::Result<Disk> {
        let folder = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS)?;
        // What is mounted from here on stays in here.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let disk = Disk { folder };
        mount(
            Some("cnx-e2e"),
            disk.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={kib}k").as_str()),
        )?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder on it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Leaves not a byte free.
    pub fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.path().join(FILLER)).unwrap();
        while filler.write_all(&[0; 1024]).is_ok() {}
    }

    /// Takes back what [`Disk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.path().join(FILLER)).unwrap();
    }

    /// Nothing more can be written.
    pub fn make_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, self.path(), None::<&str>, flags, None::<&str>).expect("remounted, read-only");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}
