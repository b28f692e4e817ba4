//! Datasets: images as bytes on the host, [n, 3, 32, 32] with their labels. Order, augmentation and normalisation happen
//! on the way to the network ([`batches`]).

mod augment;
pub mod batches;
mod cifar;
pub mod order;
mod prefetch;
mod synthetic;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cnx_proto::Spec;
use cnx_proto::spec::Dataset;

use crate::failure::{Failure, Result};

/// Images and labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// Planar RGB, image after image.
    pub pixels: Vec<u8>,
    /// A class for each image.
    pub labels: Vec<u8>,
    /// Height and width, in pixels.
    pub size: usize,
}

impl Images {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of one image.
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = 3 * self.size * self.size;
        &self.pixels[index * bytes..][..bytes]
    }

    fn truncate(&mut self, images: Option<u32>) {
        let images = images.map_or(usize::MAX, |n| n as usize).min(self.len());
        self.labels.truncate(images);
        self.pixels.truncate(images * 3 * self.size * self.size);
    }
}

/// A training set and a test set.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// What the network learns from.
    pub train: Arc<Images>,
    /// What it is measured on.
    pub test: Arc<Images>,
    /// SHA-256, in hexadecimal, over the files, or over what the images are generated from.
    pub hash: String,
}

/// Loads the dataset of a spec. `folder` is where datasets are kept unless the spec says otherwise.
///
/// # Errors
/// DATA_MISSING when files are absent or damaged.
pub fn load(spec: &Spec, folder: Option<&Path>) -> Result<Data> {
    let data = &spec.data;
    let (mut train, mut test, hash) = match data.dataset {
        Dataset::Cifar10 => cifar::load(&cifar::CIFAR_10, &root(spec, folder)?, data)?,
        Dataset::Cifar100 => cifar::load(&cifar::CIFAR_100, &root(spec, folder)?, data)?,
        Dataset::Synthetic => synthetic::make(data),
        Dataset::ImageNet => {
            let message = "this version trains on cifar10, cifar100 and synthetic; imagenet is not there yet";
            return Err(Failure::bad_spec(message));
        }
    };
    train.truncate(data.train_images);
    test.truncate(data.test_images);
    Ok(Data { train: Arc::new(train), test: Arc::new(test), hash })
}

/// Loads only what a model is measured on: the training images may be missing.
///
/// # Errors
/// DATA_MISSING when the test images are absent or damaged.
pub fn load_test(spec: &Spec, folder: Option<&Path>) -> Result<Data> {
    let mut spec = spec.clone();
    spec.data.train_images = Some(0);
    load(&spec, folder)
}

/// `data.root` of the spec, else the worker's folder.
fn root(spec: &Spec, folder: Option<&Path>) -> Result<PathBuf> {
    let root = spec.data.root.clone().or_else(|| self::folder(folder));
    root.ok_or_else(|| Failure::data("no data folder: set data.root, give --data DIR, or set CNX_DATA"))
}

/// Where this worker keeps datasets: the folder that was named, else `$CNX_DATA`, else `~/.cache/cnx`.
pub fn folder(named: Option<&Path>) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named
        .map(Path::to_path_buf)
        .or_else(|| variable("CNX_DATA"))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/cnx")))
}
