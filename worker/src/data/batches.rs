//! From images on the host to normalised batches on the device.

use std::sync::Arc;

use cnx_proto::Spec;
use tch::{Device, Kind, Tensor};

use super::Images;
use super::augment::Augmentation;
use super::order::order;
use super::prefetch::Prefetch;
use crate::failure::Result;

/// Some images and their labels.
#[derive(Debug)]
pub struct Batch {
    /// [n, 3, h, w], bytes.
    pub images: Tensor,
    /// [n], 64-bit integers.
    pub labels: Tensor,
}

impl Batch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.numel()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A batch before libtorch knows of it: threads make these.
struct HostBatch {
    pixels: Vec<u8>,
    labels: Vec<i64>,
    size: usize,
}

impl HostBatch {
    fn upload(self, device: Device) -> Result<Batch> {
        let (n, size) = (self.labels.len() as i64, self.size as i64);
        let images = Tensor::f_from_data_size(&self.pixels, &[n, 3, size, size], Kind::Uint8)?;
        let labels = Tensor::f_from_slice(&self.labels)?;
        Ok(Batch { images: images.f_to_device(device)?, labels: labels.f_to_device(device)? })
    }
}

/// Steps an epoch takes; the last one takes what is left.
pub fn steps_per_epoch(images: usize, batch_size: u32) -> u64 {
    images.div_ceil(batch_size.max(1) as usize) as u64
}

/// The training batches of an epoch (from 0): shuffled, cropped and flipped by seed and epoch alone.
pub fn training(
    images: &Arc<Images>,
    spec: &Spec,
    epoch: u32,
    device: Device,
) -> impl Iterator<Item = Result<Batch>> {
    training_from(images, spec, epoch, 0, device)
}

/// The same without the first `done` batches, which cost nothing.
pub fn training_from(
    images: &Arc<Images>,
    spec: &Spec,
    epoch: u32,
    done: usize,
    device: Device,
) -> impl Iterator<Item = Result<Batch>> {
    let images = Arc::clone(images);
    let (seed, augment) = (spec.train.seed, spec.data.augment);
    let order = order(seed, epoch, images.len() as u32);
    let size = spec.train.batch_size as usize;
    let batches = order.len().div_ceil(size);
    let make = move |number: usize| {
        let number = done + number;
        let chosen = &order[number * size..order.len().min((number + 1) * size)];
        gather(&images, chosen.iter().copied(), |index, image, out| {
            if augment {
                Augmentation::draw(seed, epoch, index).apply(image, images.size, out);
            } else {
                out.extend_from_slice(image);
            }
        })
    };
    Prefetch::new(batches.saturating_sub(done), spec.data.workers as usize, make)
        .map(move |batch| batch.upload(device))
}

/// Batches of images as they are, in their order, for evaluating.
pub fn in_order(images: &Arc<Images>, size: usize, device: Device) -> impl Iterator<Item = Result<Batch>> {
    let images = Arc::clone(images);
    let batches = images.len().div_ceil(size);
    let make = move |number: usize| {
        let chosen = (number * size) as u32..images.len().min((number + 1) * size) as u32;
        gather(&images, chosen, |_, image, out| out.extend_from_slice(image))
    };
    Prefetch::new(batches, 1, make).map(move |batch| batch.upload(device))
}

/// Copies images, through `prepare`, into one batch.
fn gather(
    images: &Images,
    chosen: impl ExactSizeIterator<Item = u32>,
    prepare: impl Fn(u32, &[u8], &mut Vec<u8>),
) -> HostBatch {
    let mut pixels = Vec::with_capacity(chosen.len() * 3 * images.size * images.size);
    let mut labels = Vec::with_capacity(chosen.len());
    for index in chosen {
        prepare(index, images.image(index as usize), &mut pixels);
        labels.push(i64::from(images.labels[index as usize]));
    }
    HostBatch { pixels, labels, size: images.size }
}

/// (x/255 − mean) / std, a channel.
#[derive(Debug)]
pub struct Normalisation {
    mean: Tensor,
    deviation: Tensor,
}

impl Normalisation {
    /// That of a spec's dataset.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(spec: &Spec, kind: Kind, device: Device) -> Result<Normalisation> {
        let (mean, deviation) = spec.data.dataset.normalisation();
        let channel = |values: [f64; 3]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_kind(kind)?.f_to_device(device)?)
        };
        Ok(Normalisation { mean: channel(mean)?, deviation: channel(deviation)? })
    }

    /// From bytes to what the network sees.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn apply(&self, images: &Tensor) -> Result<Tensor> {
        let images = images.f_to_kind(self.mean.kind())?.f_div_scalar(255.0)?;
        Ok(images.f_sub(&self.mean)?.f_div(&self.deviation)?)
    }
}
