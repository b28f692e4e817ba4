//! From images on the host to normalised batches on the device.

use std::sync::Arc;

use cnx_proto::Spec;
use tch::{Device, Kind, Tensor};

use super::images::{Images, Purpose};
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

/// A batch, or a part of one, before libtorch knows of it: threads make these.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Planar RGB, image after image.
    pub pixels: Vec<u8>,
    /// A class for each image.
    pub labels: Vec<i64>,
}

impl Part {
    fn append(&mut self, mut other: Part) {
        if self.labels.is_empty() {
            *self = other;
        } else {
            self.pixels.append(&mut other.pixels);
            self.labels.append(&mut other.labels);
        }
    }

    fn upload(self, size: usize, device: Device) -> Result<Batch> {
        let (n, size) = (self.labels.len() as i64, size as i64);
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
pub fn training(images: &Arc<Images>, spec: &Spec, epoch: u32, device: Device) -> Batches {
    training_from(images, spec, epoch, 0, device)
}

/// The same without the first `done` batches, which cost nothing.
pub fn training_from(images: &Arc<Images>, spec: &Spec, epoch: u32, done: usize, device: Device) -> Batches {
    let (seed, augment) = (spec.train.seed, spec.data.augment);
    let order = order(seed, epoch, images.len() as u32);
    let purpose = Purpose::Train { seed, epoch, augment };
    Batches::new(images, order, spec.train.batch_size as usize, done, purpose, spec.data.workers, device)
}

/// Batches of images as they are tested, in their order. Fewer images than the set has are in them where some are damaged
/// ([`Images::usable`]).
pub fn in_order(images: &Arc<Images>, spec: &Spec, size: usize, device: Device) -> Batches {
    let order = (0..images.len() as u32).collect();
    Batches::new(images, order, size, 0, Purpose::Test, spec.data.workers, device)
}

/// Prepares batches on threads, and hands them out in order. What is in them does not depend on the threads.
pub struct Batches {
    parts: Prefetch<Result<Part>>,
    parts_left: usize,
    /// Of each batch but the last, which may have fewer.
    parts_per_batch: usize,
    /// Height and width of the images.
    size: usize,
    device: Device,
}

/// Batches that are prepared ahead.
const AHEAD: usize = 2;

impl Batches {
    fn new(
        images: &Arc<Images>,
        order: Vec<u32>,
        batch: usize,
        done: usize,
        purpose: Purpose,
        workers: u32,
        device: Device,
    ) -> Batches {
        let images = Arc::clone(images);
        let (size, batch) = (images.size(), batch.max(1));
        let part = images.a_part().min(batch);
        let parts_per_batch = batch.div_ceil(part);
        let start = done.saturating_mul(batch).min(order.len());
        let rest = order.len() - start;
        let jobs = rest / batch * parts_per_batch + (rest % batch).div_ceil(part);
        let make = move |job: usize| {
            let of_batch = start + job / parts_per_batch * batch;
            let begin = of_batch + job % parts_per_batch * part;
            let end = (begin + part).min(of_batch + batch).min(order.len());
            let mut made = Part::default();
            made.pixels.reserve_exact((end - begin) * 3 * size * size);
            images.gather(&order[begin..end], purpose, &mut made)?;
            Ok(made)
        };
        // More threads than cores make nothing sooner.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (workers as usize).clamp(1, cores);
        // Small batches: as many as threads work at, and two more each. Large ones, of many parts: two batches.
        let ahead =
            if parts_per_batch == 1 { threads * (AHEAD + 1) } else { threads + AHEAD * parts_per_batch };
        let parts = Prefetch::new(jobs, threads, ahead, make);
        Batches { parts, parts_left: jobs, parts_per_batch, size, device }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    /// Ends early only where a thread panicked.
    fn next(&mut self) -> Option<Result<Batch>> {
        let parts = self.parts_per_batch.min(self.parts_left);
        if parts == 0 {
            return None;
        }
        self.parts_left -= parts;
        let mut batch = Part::default();
        for _ in 0..parts {
            match self.parts.next()? {
                Ok(part) => batch.append(part),
                Err(failure) => return Some(Err(failure)),
            }
        }
        Some(batch.upload(self.size, self.device))
    }
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
