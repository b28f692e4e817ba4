//! The durable reports of one lease, on disk until the coordinator has them.
//!
//! A file of frames: length (u32, little-endian), CRC-32 of the payload (likewise), payload (a `Report`). Appended
//! and fsynced a batch at a time. A crash can leave a torn frame at the end only; opening cuts it off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cnx_proto::v1::{Lease, Report, report::Body};
use prost::Message;

/// Largest report that is kept, in bytes.
pub const MAX_REPORT_BYTES: usize = 1 << 20;

const HEADER_BYTES: u64 = 8;
const EXTENSION: &str = "reports";

/// The spool file of one lease, open for appending and reading.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: File,
    /// Bytes of whole frames.
    len: u64,
}

/// What an opened spool holds.
#[derive(Debug, Default, PartialEq)]
pub struct Content {
    /// The lease that its reports belong to; `None` when it is empty.
    pub lease: Option<Lease>,
    /// Sequence number of its first report.
    pub first: u64,
    /// Sequence number of its last report.
    pub last: u64,
    /// Whether that is an outcome: the attempt is over and only has to be told.
    pub complete: bool,
    /// Bytes of a torn tail that were cut off.
    pub cut: u64,
}

impl Spool {
    /// Starts the empty spool of a lease in `folder`.
    ///
    /// # Errors
    /// When the file cannot be made, with its path.
    pub fn create(folder: &Path, lease: &Lease) -> io::Result<Spool> {
        // The token is not a safe file name, but it is what tells leases of a re-made coordinator apart.
        let token = crc32fast::hash(lease.token.as_bytes());
        let name = format!("{}-{}-{token:08x}.{EXTENSION}", lease.experiment, lease.attempt);
        let path = folder.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| at(&path, error))?;
        sync_folder(folder)?;
        Ok(Spool { path, file, len: 0 })
    }

    /// Opens a spool that an earlier agent left, cutting off a torn tail.
    ///
    /// # Errors
    /// When the file cannot be read or shortened, with its path.
    pub fn open(path: &Path) -> io::Result<(Spool, Content)> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| at(path, error))?;
        let on_disk = file.metadata().map_err(|error| at(path, error))?.len();
        let mut spool = Spool { path: path.to_owned(), file, len: on_disk };
        let mut content = Content::default();
        let mut position = 0;
        while let Some((report, next)) = spool.read(position)? {
            if content.lease.is_none() {
                content.first = report.sequence;
                content.lease.clone_from(&report.lease);
            }
            content.last = report.sequence;
            content.complete = matches!(report.body, Some(Body::Outcome(_)));
            position = next;
        }
        content.cut = on_disk - position;
        if content.cut > 0 {
            spool.len = position;
            spool.cut_to_length()?;
        }
        Ok((spool, content))
    }

    /// The spools that lie in `folder`, in the order of their names.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| at(folder, error))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Appends reports and waits until they are on the disk, all or none.
    ///
    /// # Errors
    /// When they could not be written; the spool is then as it was before.
    pub fn append(&mut self, reports: &[Report]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for report in reports {
            let payload = report.encode_to_vec();
            let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
            bytes.extend_from_slice(&payload);
        }
        let written = self.file.write_all_at(&bytes, self.len).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What is behind `len` is a torn tail now; should cutting it fail too, the next `open` does it.
            let _ = self.cut_to_length();
            return Err(at(&self.path, error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The report at `position` (0: the first) and the position behind it; `None` at the end, or where a frame is
    /// torn or damaged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, position: u64) -> io::Result<Option<(Report, u64)>> {
        if position + HEADER_BYTES > self.len {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES as usize];
        self.file.read_exact_at(&mut header, position).map_err(|error| at(&self.path, error))?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let end = position + HEADER_BYTES + length as u64;
        if length > MAX_REPORT_BYTES || end > self.len {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.file
            .read_exact_at(&mut payload, position + HEADER_BYTES)
            .map_err(|error| at(&self.path, error))?;
        if crc32fast::hash(&payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Ok(None);
        }
        Ok(Report::decode(payload.as_slice()).ok().map(|report| (report, end)))
    }

    /// Where the next report will be appended.
    pub fn end(&self) -> u64 {
        self.len
    }

    /// Forgets everything: all of it is on the coordinator's disk.
    pub fn clear(&mut self) {
        self.len = 0;
        // A failure leaves old frames behind; they are overwritten, and a coordinator knows them should they return.
        let _ = self.cut_to_length();
    }

    /// Deletes the file.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot delete {}: {error}", self.path.display());
        }
    }

    fn cut_to_length(&mut self) -> io::Result<()> {
        self.file.set_len(self.len).and_then(|()| self.file.flush()).map_err(|error| at(&self.path, error))
    }
}

/// The error, saying where.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| at(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::v1::{LogLine, Outcome};

    fn lease() -> Lease {
        Lease { experiment: 12, attempt: 2, token: "../secret".into() }
    }

    fn report(sequence: u64, body: Body) -> Report {
        Report { lease: Some(lease()), sequence, at_ms: 1, body: Some(body) }
    }

    fn log(sequence: u64) -> Report {
        report(sequence, Body::Log(LogLine { text: format!("line {sequence}"), ..LogLine::default() }))
    }

    fn all(spool: &Spool) -> Vec<u64> {
        let (mut position, mut found) = (0, vec![]);
        while let Some((report, next)) = spool.read(position).expect("readable") {
            found.push(report.sequence);
            position = next;
        }
        found
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), &lease()).expect("created");
        spool.append(&[log(1), log(2)]).expect("appended");
        spool.append(&[report(3, Body::Outcome(Outcome::default()))]).expect("appended");
        drop(spool);
        let paths = Spool::list(folder.path()).expect("listed");
        assert_eq!(paths.len(), 1, "{paths:?}");
        let (spool, content) = Spool::open(&paths[0]).expect("opened");
        assert_eq!(content, Content { lease: Some(lease()), first: 1, last: 3, complete: true, cut: 0 });
        assert_eq!(all(&spool), [1, 2, 3]);
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_tore() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), &lease()).expect("created");
        spool.append(&[log(1), log(2)]).expect("appended");
        let whole = spool.end();
        spool.append(&[log(3)]).expect("appended");
        let full = spool.end();
        let path = spool.path.clone();
        let bytes = fs::read(&path).expect("read");
        for torn in whole..full {
            fs::write(&path, &bytes[..torn as usize]).expect("written");
            let (mut spool, content) = Spool::open(&path).expect("opened");
            assert_eq!((content.last, content.cut), (2, torn - whole));
            spool.append(&[log(4)]).expect("appended");
            assert_eq!(all(&spool), [1, 2, 4]);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_readable_part() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), &lease()).expect("created");
        spool.append(&[log(1)]).expect("appended");
        let first = spool.end();
        spool.append(&[log(2)]).expect("appended");
        let path = spool.path.clone();
        let mut bytes = fs::read(&path).expect("read");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("written");
        let (spool, content) = Spool::open(&path).expect("opened");
        assert_eq!((content.last, spool.end()), (1, first));
    }

    #[test]
    fn a_failed_append_leaves_the_spool_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), &lease()).expect("created");
        spool.append(&[log(1)]).expect("appended");
        // Read-only: every write is refused, as on a full disk.
        spool.file = File::open(&spool.path).expect("opened");
        let error = spool.append(&[log(2)]).expect_err("refused");
        assert!(error.to_string().contains("12-2-"), "{error}");
        assert_eq!(all(&spool), [1]);
    }

    #[test]
    fn an_unreadable_file_is_empty_not_fatal() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1-1-0.reports");
        fs::write(&path, [255; 100]).expect("written");
        let (spool, content) = Spool::open(&path).expect("opened");
        assert_eq!((content.lease, spool.end()), (None, 0));
    }
}
