//! Datasets: sets of images with their labels ([`Images`]), small ones in memory, ImageNet's in files. Decoding, order,
//! augmentation and normalisation happen on the way to the network ([`batches`]).

mod augment;
pub mod batches;
mod cifar;
mod encoded;
mod imagenet;
mod images;
pub mod order;
mod prefetch;
pub(crate) mod resident;
mod synthetic;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cnx_proto::Spec;
use cnx_proto::spec::Dataset;

use crate::failure::{Failure, Result};
pub use images::{Images, Pixels};

/// A training set and a test set.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// What the network learns from.
    pub train: Arc<Images>,
    /// What it is measured on.
    pub test: Arc<Images>,
    /// SHA-256, in hexadecimal, over the files (of ImageNet's class folders: over their names and sizes), or over what the images
    /// are generated from.
    pub hash: String,
}

/// Loads the dataset of a spec. `folder` is where datasets are kept unless the spec says otherwise.
///
/// # Errors
/// DATA_MISSING when files are absent or damaged.
pub fn load(spec: &Spec, folder: Option<&Path>) -> Result<Data> {
    let data = &spec.data;
    let in_memory = |(mut train, mut test, hash): (Pixels, Pixels, String)| {
        train.truncate(data.train_images);
        test.truncate(data.test_images);
        (train.into(), test.into(), hash)
    };
    let (train, test, hash): (Images, Images, String) = match data.dataset {
        Dataset::Cifar10 => in_memory(cifar::load(&cifar::CIFAR_10, &root(spec, folder)?, data)?),
        Dataset::Cifar100 => in_memory(cifar::load(&cifar::CIFAR_100, &root(spec, folder)?, data)?),
        Dataset::Synthetic => in_memory(synthetic::make(data)),
        Dataset::ImageNet => imagenet::load(&root(spec, folder)?, data)?,
    };
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
