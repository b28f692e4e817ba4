//! CIFAR-10 and CIFAR-100 in their binary format: records of one or two label bytes and 3072 bytes of planar RGB.

use std::fs;
use std::path::{Path, PathBuf};

use cnx_proto::spec;
use sha2::{Digest, Sha256};

use super::Pixels;
use crate::failure::{Failure, Result};
use crate::hex;
use crate::reporter::log;

/// Height and width, in pixels.
const SIZE: usize = 32;
const IMAGE_BYTES: usize = 3 * SIZE * SIZE;

/// How a variant of CIFAR lies on disk.
pub(super) struct Layout {
    name: &'static str,
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// Bytes before the pixels of a record; the last of them is the label.
    label_bytes: usize,
    classes: u8,
    /// Training and test images of the published set.
    images: (usize, usize),
}

pub(super) const CIFAR_10: Layout = Layout {
    name: "cifar10",
    folder: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    label_bytes: 1,
    classes: 10,
    images: (50_000, 10_000),
};

pub(super) const CIFAR_100: Layout = Layout {
    name: "cifar100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    // Coarse label, fine label: the fine one counts.
    label_bytes: 2,
    classes: 100,
    images: (50_000, 10_000),
};

/// Training images, test images, and the hash over the files read.
pub(super) fn load(layout: &Layout, root: &Path, data: &spec::Data) -> Result<(Pixels, Pixels, String)> {
    let folder = layout.find(root)?;
    let mut hash = Sha256::new();
    let mut train = Pixels { size: SIZE, ..Pixels::default() };
    for file in layout.train {
        // A few images need not all batches.
        if data.train_images.is_some_and(|wanted| train.len() >= wanted as usize) {
            break;
        }
        layout.read(&folder.join(file), &mut train, &mut hash)?;
    }
    let mut test = Pixels { size: SIZE, ..Pixels::default() };
    layout.read(&folder.join(layout.test), &mut test, &mut hash)?;
    // A file may have lost whole records, and a set made by hand may be small on purpose: say so, and go on.
    let limited = (data.train_images.is_some(), data.test_images.is_some());
    for (what, found, published, limited) in [
        ("training", train.len(), layout.images.0, limited.0),
        ("test", test.len(), layout.images.1, limited.1),
    ] {
        if found != published && !limited {
            log(format!("{} has {found} {what} images, {} has {published}", folder.display(), layout.name));
        }
    }
    Ok((train, test, hex(&hash.finalize())))
}

impl Layout {
    /// The folder that holds the first batch: `root` itself, or the folder that the archive unpacks to.
    fn find(&self, root: &Path) -> Result<PathBuf> {
        let folders = [root.to_path_buf(), root.join(self.folder)];
        let holds =
            |folder: &&PathBuf| folder.join(self.test).exists() || folder.join(self.train[0]).exists();
        folders.iter().find(holds).cloned().ok_or_else(|| {
            Failure::data(format!(
                "no {} in {} (nor in {} below it): expected {} and {}; {}",
                self.name,
                root.display(),
                self.folder,
                self.train.join(", "),
                self.test,
                self.advice(root)
            ))
        })
    }

    /// Appends the records of a file.
    fn read(&self, path: &Path, images: &mut Pixels, hash: &mut Sha256) -> Result<()> {
        let show = path.display();
        let folder = path.parent().unwrap_or(path);
        let advice = || self.advice(folder);
        let bytes = fs::read(path).map_err(|error| {
            let there = match images.len() {
                0 => String::new(),
                n => format!("; data.train_images = {n} makes do with the images before it"),
            };
            Failure::data(format!("cannot read {show} of {}: {error}; {}{there}", self.name, advice()))
        })?;
        let record = self.label_bytes + IMAGE_BYTES;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let (found, whole) = (bytes.len(), bytes.len() / record);
            return Err(Failure::data(format!(
                "{show} is damaged: found {found} bytes, expected a multiple of {record} (one record an image; {whole} are \
                 whole): it may be cut off; {}",
                advice()
            )));
        }
        for (number, record) in bytes.chunks_exact(record).enumerate() {
            let label = record[self.label_bytes - 1];
            if label >= self.classes {
                let last = self.classes - 1;
                return Err(Failure::data(format!(
                    "{show} is damaged: image {number} has label {label}, expected 0 to {last}; {}",
                    advice()
                )));
            }
            images.labels.push(label);
            images.pixels.extend_from_slice(&record[self.label_bytes..]);
        }
        hash.update(&bytes);
        Ok(())
    }

    fn advice(&self, folder: &Path) -> String {
        format!("`cnx data verify {}` checks it, `cnx data fetch {}` gets it", folder.display(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::recipe::recipe;
    use cnx_proto::spec::{Arch, Dataset};
    use cnx_proto::v1::FailureClass;

    fn spec_of(dataset: Dataset, train_images: Option<u32>) -> spec::Data {
        spec::Data { train_images, ..recipe(Arch::CondenseNet, dataset).data }
    }

    /// `images` records whose labels count up from 0 and whose pixels are their number.
    fn write(path: &Path, images: u8, label_bytes: usize) {
        let records = (0..images).flat_map(|n| {
            let mut record = vec![n % 10; label_bytes];
            record.extend([n; IMAGE_BYTES]);
            record
        });
        fs::write(path, records.collect::<Vec<u8>>()).unwrap();
    }

    #[test]
    fn a_few_images_need_only_the_batches_that_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("data_batch_1.bin"), 8, 1);
        write(&folder.path().join("test_batch.bin"), 3, 1);
        let (train, test, _) = load(&CIFAR_10, folder.path(), &spec_of(Dataset::Cifar10, Some(8))).unwrap();
        assert_eq!((train.len(), test.len()), (8, 3));
        assert_eq!((train.labels[7], train.image(7)[0]), (7, 7));

        let failure = load(&CIFAR_10, folder.path(), &spec_of(Dataset::Cifar10, None)).unwrap_err();
        assert_eq!(failure.class, FailureClass::DataMissing);
        assert!(failure.message.contains("data_batch_2.bin"), "{failure}");
    }

    #[test]
    fn cifar_100_takes_the_fine_label_and_the_archive_s_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("cifar-100-binary");
        fs::create_dir(&folder).unwrap();
        let record: Vec<u8> = [3, 99].into_iter().chain([1; IMAGE_BYTES]).collect();
        fs::write(folder.join("train.bin"), &record).unwrap();
        fs::write(folder.join("test.bin"), &record).unwrap();
        let (train, _, _) = load(&CIFAR_100, root.path(), &spec_of(Dataset::Cifar100, None)).unwrap();
        assert_eq!(train.labels, [99]);
    }

    #[test]
    fn a_truncated_file_is_named_with_its_size_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data_batch_1.bin");
        write(&path, 3, 1);
        fs::write(&path, &fs::read(&path).unwrap()[..5000]).unwrap();
        let failure = load(&CIFAR_10, folder.path(), &spec_of(Dataset::Cifar10, Some(2))).unwrap_err();
        assert_eq!(failure.class, FailureClass::DataMissing);
        for part in
            ["data_batch_1.bin", "5000 bytes", "multiple of 3073", "cnx data verify", "cnx data fetch"]
        {
            assert!(failure.message.contains(part), "{failure}");
        }
    }

    #[test]
    fn a_label_out_of_range_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let record: Vec<u8> = [10].into_iter().chain([1; IMAGE_BYTES]).collect();
        fs::write(folder.path().join("data_batch_1.bin"), &record).unwrap();
        let failure = load(&CIFAR_10, folder.path(), &spec_of(Dataset::Cifar10, Some(1))).unwrap_err();
        assert!(failure.message.contains("image 0 has label 10, expected 0 to 9"), "{failure}");
    }

    #[test]
    fn an_empty_folder_says_what_was_expected_and_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let failure = load(&CIFAR_10, folder.path(), &spec_of(Dataset::Cifar10, None)).unwrap_err();
        assert_eq!(failure.class, FailureClass::DataMissing);
        assert!(failure.message.contains("cnx data fetch cifar10"), "{failure}");
    }
}
