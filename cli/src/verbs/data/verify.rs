//! `cnx data verify`.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use super::dataset::{Batch, Cifar};
use super::imported::Note;
use super::{VerifyArgs, at, images};
use crate::context::{Context, stdout};
use crate::failure::{Failure, Result};
use crate::term::format::thousands;

/// Problems that are listed; more of them say nothing new.
const MOST_PROBLEMS: usize = 20;

pub fn run(context: &Context, args: &VerifyArgs) -> Result {
    let found = Cifar::find(&args.folder);
    let image_sets = images::find(&args.folder);
    if found.is_empty() && image_sets.is_empty() {
        let (ten, hundred) = (Cifar::Cifar10, Cifar::Cifar100);
        return Err(Failure::refused(format!(
            "no dataset in {}: expected {} … {} (CIFAR-10's binary format), or {} and {} (CIFAR-100's), there, in {} or in {}, \
             or ImageNet: train and val with a folder a class, or a pack; cnx data fetch downloads CIFAR",
            args.folder.display(),
            ten.train()[0].name,
            ten.test().name,
            hundred.train()[0].name,
            hundred.test().name,
            ten.folder(),
            hundred.folder(),
        )));
    }
    let mut failures = Vec::new();
    for (cifar, folder) in found {
        match check(cifar, &folder).and_then(|counts| Ok((counts, check_import(&folder)?))) {
            Ok((counts, origin)) => {
                writeln!(stdout(), "{}: {}{origin}", folder.display(), counts.describe(cifar))?;
            }
            Err(failure) => failures.push(failure.message),
        }
    }
    for folder in image_sets {
        match images::check(context, &folder) {
            Ok(said) => writeln!(stdout(), "{}: {said}", folder.display())?,
            Err(failure) => failures.push(failure.message),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::refused(failures.join("\n"))) }
}

/// Whether an imported set is still what was imported; says so.
fn check_import(folder: &Path) -> Result<&'static str> {
    let Some(note) = Note::find(folder)? else { return Ok("") };
    match note.differing(folder).as_slice() {
        [] => Ok("; imported from PNGs, in another order than the published files"),
        files => Err(Failure::refused(format!(
            "{} is damaged: changed since it was imported: {}",
            folder.display(),
            files.join(", ")
        ))),
    }
}

/// Images found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub train: u64,
    pub test: u64,
}

impl Counts {
    /// Whether these are the images of the full set.
    pub fn is_full(self, cifar: Cifar) -> bool {
        self.train == cifar.train().iter().map(|b| b.records).sum::<u64>()
            && self.test == cifar.test().records
    }

    fn describe(self, cifar: Cifar) -> String {
        let full = if self.is_full(cifar) { "the full set" } else { "not the full set" };
        let classes = cifar.labels().last().map_or(0, |(_, classes)| *classes);
        let (train, test) = (thousands(self.train), thousands(self.test));
        format!("fine; {train} training and {test} test images of {classes} classes, {full}")
    }
}

/// Reads every record.
///
/// # Errors
/// Everything that is wrong, with file and record.
pub fn check(cifar: Cifar, folder: &Path) -> Result<Counts> {
    let mut problems = Vec::new();
    let mut train = 0;
    for (i, batch) in cifar.train().iter().enumerate() {
        // A part of the set has the first file, and may lack others.
        if i == 0 || folder.join(batch.name).exists() {
            train += check_file(cifar, folder, batch, &mut problems);
        }
    }
    let test = check_file(cifar, folder, &cifar.test(), &mut problems);
    if problems.is_empty() {
        return Ok(Counts { train, test });
    }
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    problems.truncate(MOST_PROBLEMS);
    if more > 0 {
        problems.push("… and more of the same".to_owned());
    }
    let list: Vec<String> = problems.iter().map(|p| format!("\n  {p}")).collect();
    Err(Failure::refused(format!("{} is damaged:{}", folder.display(), list.concat())))
}

/// Notes problems of a file and returns its whole records.
fn check_file(cifar: Cifar, folder: &Path, batch: &Batch, problems: &mut Vec<String>) -> u64 {
    let path = folder.join(batch.name);
    match read_records(cifar, &path, problems) {
        Ok(0) => {
            problems.push(format!("{} is empty", batch.name));
            0
        }
        Ok(records) => records,
        Err(failure) => {
            problems.push(failure.message);
            0
        }
    }
}

fn read_records(cifar: Cifar, path: &Path, problems: &mut Vec<String>) -> Result<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = File::open(path).map_err(at(path, "read"))?;
    let size = file.metadata().map_err(at(path, "read"))?.len();
    let record_bytes = cifar.record_bytes();
    let (whole, rest) = (size / record_bytes as u64, size % record_bytes as u64);
    if rest != 0 {
        problems.push(format!(
            "{name} has {size} bytes, which is {whole} records of {record_bytes} bytes and {rest} bytes more: it was cut off, or is no CIFAR file"
        ));
    }
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut record = vec![0; record_bytes];
    for number in 0..whole {
        reader.read_exact(&mut record).map_err(at(path, "read"))?;
        for (&found, (label, classes)) in record.iter().zip(cifar.labels()) {
            if found >= *classes && problems.len() <= MOST_PROBLEMS {
                let offset = number * record_bytes as u64;
                problems.push(format!(
                    "{name}, record {number} (byte {offset}): {label} is {found}, expected 0 to {}",
                    classes - 1
                ));
            }
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn set(train_records: usize, test_records: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let records = |n: usize| {
            (0..n).flat_map(|i| [vec![(i % 10) as u8], vec![0; 3072]].concat()).collect::<Vec<u8>>()
        };
        fs::write(folder.path().join("data_batch_1.bin"), records(train_records)).unwrap();
        fs::write(folder.path().join("test_batch.bin"), records(test_records)).unwrap();
        folder
    }

    #[test]
    fn a_part_of_the_set_is_fine() {
        let folder = set(20, 10);
        let counts = check(Cifar::Cifar10, folder.path()).unwrap();
        assert_eq!(counts, Counts { train: 20, test: 10 });
        assert!(!counts.is_full(Cifar::Cifar10));
    }

    #[test]
    fn a_cut_file_is_named_with_its_sizes() {
        let folder = set(20, 10);
        let path = folder.path().join("data_batch_1.bin");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
        let said = check(Cifar::Cifar10, folder.path()).unwrap_err().message;
        assert!(said.contains("data_batch_1.bin has 61360 bytes, which is 19 records"), "{said}");
    }

    #[test]
    fn a_label_beyond_the_classes_is_placed() {
        let folder = set(20, 10);
        let path = folder.path().join("test_batch.bin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3 * 3073] = 10;
        fs::write(&path, bytes).unwrap();
        let said = check(Cifar::Cifar10, folder.path()).unwrap_err().message;
        assert!(
            said.contains("test_batch.bin, record 3 (byte 9219): label is 10, expected 0 to 9"),
            "{said}"
        );
    }

    #[test]
    fn a_missing_test_file_is_a_problem() {
        let folder = set(20, 10);
        fs::remove_file(folder.path().join("test_batch.bin")).unwrap();
        let said = check(Cifar::Cifar10, folder.path()).unwrap_err().message;
        assert!(said.contains("test_batch.bin cannot be read"), "{said}");
    }
}
