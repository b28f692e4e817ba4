//! Where a captured step finds its images: at one address, step after step.

use std::sync::Arc;

use cnx_proto::Spec;
use tch::{Device, Kind, Tensor};

use crate::data::Images;
use crate::data::batches::{self, Batch, Batches};
use crate::data::resident::Resident;
use crate::failure::{Failure, Result};

/// The images of one step after another.
pub struct Inputs {
    source: Source,
    /// 0 … batch size − 1.
    offsets: Tensor,
    batch_size: usize,
    /// Images that the epoch has left.
    left: usize,
}

enum Source {
    /// All of them lie on the device.
    Resident(Resident),
    /// Threads prepare them, and each step's are copied to the same place. None between epochs.
    Fed { images: Arc<Images>, place: Batch, batches: Option<Batches> },
}

impl Inputs {
    /// Those of a training set.
    ///
    /// # Errors
    /// When libtorch fails, e.g. for want of memory.
    pub fn new(spec: &Spec, images: &Arc<Images>, device: Device) -> Result<Inputs> {
        let batch_size = (spec.train.batch_size as usize).min(images.len().max(1));
        let (n, size) = (batch_size as i64, images.size() as i64);
        let source = match images.as_ref() {
            Images::InMemory(pixels) => Source::Resident(Resident::new(pixels, spec.data.augment, device)?),
            Images::Encoded(_) => {
                let place = Batch {
                    images: Tensor::f_zeros([n, 3, size, size], (Kind::Uint8, device))?,
                    labels: Tensor::f_zeros([n], (Kind::Int64, device))?,
                };
                Source::Fed { images: Arc::clone(images), place, batches: None }
            }
        };
        let offsets = Tensor::f_arange(n, (Kind::Int64, device))?;
        Ok(Inputs { source, offsets, batch_size, left: 0 })
    }

    /// Those of an epoch (from 0), less the first `done` steps.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn start(&mut self, spec: &Spec, epoch: u32, done: usize) -> Result<()> {
        let all = match &mut self.source {
            Source::Resident(resident) => {
                resident.start(spec.train.seed, epoch)?;
                resident.len()
            }
            Source::Fed { images, place, batches } => {
                let device = place.labels.device();
                *batches = Some(batches::training_from(images, spec, epoch, done, device));
                images.len()
            }
        };
        self.left = all.saturating_sub(done.saturating_mul(self.batch_size));
        Ok(())
    }

    /// Puts those of the next step in their place. Returns how many they are.
    ///
    /// # Errors
    /// DATA_MISSING when too many images are damaged.
    pub fn next(&mut self) -> Result<usize> {
        let images = self.left.min(self.batch_size);
        self.left -= images;
        if let Source::Fed { place, batches, .. } = &mut self.source {
            let batch = batches.as_mut().and_then(Iterator::next);
            let died = || Failure::internal("a thread that prepares batches died while training");
            let batch = batch.ok_or_else(died)??;
            let n = images as i64;
            place.images.f_narrow(0, 0, n)?.f_copy_(&batch.images)?;
            place.labels.f_narrow(0, 0, n)?.f_copy_(&batch.labels)?;
        }
        Ok(images)
    }

    /// So many of them; `step`: which of the epoch, one integer on the device. Reads nothing on the host.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn batch(&self, images: usize, step: &Tensor) -> Result<Batch> {
        let images = images as i64;
        match &self.source {
            Source::Resident(resident) => {
                let first = step.f_mul_scalar(self.batch_size as i64)?;
                resident.batch(&self.offsets.f_narrow(0, 0, images)?.f_add(&first)?)
            }
            Source::Fed { place, .. } => Ok(Batch {
                images: place.images.f_narrow(0, 0, images)?,
                labels: place.labels.f_narrow(0, 0, images)?,
            }),
        }
    }
}
