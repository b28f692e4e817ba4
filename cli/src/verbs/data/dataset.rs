//! CIFAR's binary format: files of records, a record a label (CIFAR-100: a coarse and a fine one) and an image.

use std::path::{Path, PathBuf};

use cnx_proto::synthetic::IMAGE_BYTES;

/// The two CIFAR datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Cifar {
    #[value(name = "cifar10")]
    Cifar10,
    #[value(name = "cifar100")]
    Cifar100,
}

/// A file of a dataset and the records that the full set has in it.
pub struct Batch {
    pub name: &'static str,
    pub records: u64,
}

const fn batch(name: &'static str, records: u64) -> Batch {
    Batch { name, records }
}

impl Cifar {
    pub const ALL: [Cifar; 2] = [Cifar::Cifar10, Cifar::Cifar100];

    /// Its folder below the folder of the datasets, and in the archive.
    pub fn folder(self) -> &'static str {
        match self {
            Cifar::Cifar10 => "cifar-10-batches-bin",
            Cifar::Cifar100 => "cifar-100-binary",
        }
    }

    /// The archive on its home page.
    pub fn archive(self) -> &'static str {
        match self {
            Cifar::Cifar10 => "cifar-10-binary.tar.gz",
            Cifar::Cifar100 => "cifar-100-binary.tar.gz",
        }
    }

    /// MD5 of the archive, in hexadecimal, as the home page gives it.
    pub fn md5(self) -> &'static str {
        match self {
            Cifar::Cifar10 => "c32a1d4ab5d03f1284b67883e8d87530",
            Cifar::Cifar100 => "03b5dce01913d631647c71ecec9e9cb8",
        }
    }

    /// Files of training images. The first must be there; a part of the set may lack the others.
    pub fn train(self) -> &'static [Batch] {
        match self {
            Cifar::Cifar10 => {
                const {
                    &[
                        batch("data_batch_1.bin", 10_000),
                        batch("data_batch_2.bin", 10_000),
                        batch("data_batch_3.bin", 10_000),
                        batch("data_batch_4.bin", 10_000),
                        batch("data_batch_5.bin", 10_000),
                    ]
                }
            }
            Cifar::Cifar100 => const { &[batch("train.bin", 50_000)] },
        }
    }

    /// The file of test images.
    pub fn test(self) -> Batch {
        match self {
            Cifar::Cifar10 => batch("test_batch.bin", 10_000),
            Cifar::Cifar100 => batch("test.bin", 10_000),
        }
    }

    /// Classes of each label byte of a record.
    pub fn labels(self) -> &'static [(&'static str, u8)] {
        match self {
            Cifar::Cifar10 => &[("label", 10)],
            Cifar::Cifar100 => &[("coarse label", 20), ("fine label", 100)],
        }
    }

    /// Bytes of a record.
    pub fn record_bytes(self) -> usize {
        self.labels().len() + IMAGE_BYTES
    }

    /// Where it lies: in the folder itself, or below it.
    pub fn find(folder: &Path) -> Vec<(Cifar, PathBuf)> {
        let holds = |cifar: Cifar, folder: &Path| {
            let mut files = cifar.train().iter().map(|b| b.name).chain([cifar.test().name]);
            files.any(|name| folder.join(name).exists())
        };
        let candidates = Cifar::ALL.map(|c| [(c, folder.to_path_buf()), (c, folder.join(c.folder()))]);
        candidates.into_iter().flatten().filter(|(c, folder)| holds(*c, folder)).collect()
    }
}
