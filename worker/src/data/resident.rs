//! A training set that lies on the device which computes: its bytes go there once, and each epoch's images are cropped, flipped and
//! put in order there.

use tch::{Device, Kind, Tensor};

use super::Pixels;
use super::augment::{Augmentation, PADDING};
use super::batches::Batch;
use super::order::order;
use crate::failure::Result;

/// Bytes of images that are cropped at a time: each needs 8 bytes for its index.
const CHUNK_BYTES: i64 = 6 << 20;

/// A training set on a device, and the epoch that is made of it.
#[derive(Debug)]
pub struct Resident {
    /// Planar RGB, image after image, with black around each where crops may show it.
    pixels: Tensor,
    /// [images].
    labels: Tensor,
    /// Height and width, in pixels.
    size: i64,
    /// Black pixels on each side.
    padding: i64,
    /// The epoch's images [images, 3, size, size] and labels, in its order.
    epoch: Batch,
}

impl Resident {
    /// Copies a set to a device. `augment`: its images will be cropped and flipped.
    ///
    /// # Errors
    /// When libtorch fails, e.g. for want of memory.
    pub fn new(pixels: &Pixels, augment: bool, device: Device) -> Result<Resident> {
        let (images, size) = (pixels.len() as i64, pixels.size as i64);
        let padding = if augment { i64::from(PADDING) } else { 0 };
        let plain = Tensor::f_from_data_size(&pixels.pixels, &[images, 3, size, size], Kind::Uint8)?;
        let plain = plain.f_to_device(device)?;
        let labels = Tensor::f_from_slice(&pixels.labels)?.f_to_device(device)?.f_to_kind(Kind::Int64)?;
        let epoch = Batch { images: plain.f_empty_like()?, labels: labels.f_empty_like()? };
        let pixels = plain.f_constant_pad_nd([padding; 4])?.f_flatten(0, -1)?;
        Ok(Resident { pixels, labels, size, padding, epoch })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.numel()
    }

    /// Lays out an epoch (from 0): the same images that [`super::batches::training`] gives, to the bit.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn start(&mut self, seed: u64, epoch: u32) -> Result<()> {
        let order = order(seed, epoch, self.len() as u32);
        let (mut starts, mut flips) = (Vec::new(), Vec::new());
        let padded = self.size + 2 * self.padding;
        for &image in &order {
            let mut start = i64::from(image) * 3 * padded * padded;
            let mut flip = false;
            if self.padding > 0 {
                let augmentation = Augmentation::draw(seed, epoch, image);
                start += i64::from(augmentation.top) * padded + i64::from(augmentation.left);
                flip = augmentation.flip;
            }
            starts.push(start);
            flips.push(i64::from(flip));
        }
        let device = self.labels.device();
        let [starts, flips] = [starts, flips].map(|numbers| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(&numbers)?.f_to_device(device)?.f_view([-1, 1, 1, 1])?)
        });
        let order: Vec<i64> = order.into_iter().map(i64::from).collect();
        let order = Tensor::f_from_slice(&order)?.f_to_device(device)?;
        self.epoch.labels.f_copy_(&self.labels.f_index_select(0, &order)?)?;
        self.crop(&starts?, &flips?)
    }

    /// Fills the epoch's images; `starts`: where each crop's first pixel lies, `flips`: 1 where left and right are swapped.
    fn crop(&mut self, starts: &Tensor, flips: &Tensor) -> Result<()> {
        let (size, padded) = (self.size, self.size + 2 * self.padding);
        let options = (Kind::Int64, starts.device());
        let column = Tensor::f_arange(size, options)?;
        let row = column.f_mul_scalar(padded)?.f_view([1, 1, size, 1])?;
        let plane = Tensor::f_arange(3, options)?.f_mul_scalar(padded * padded)?.f_view([1, 3, 1, 1])?;
        // From a column to the one that swapping puts in its place.
        let swap = column.f_mul_scalar(-2)?.f_add_scalar(size - 1)?;
        let fixed = plane.f_add(&row)?.f_add(&column)?;
        let images = self.len() as i64;
        let chunk = (CHUNK_BYTES / (3 * size * size).max(1)).max(1);
        for start in (0..images).step_by(chunk as usize) {
            let chunk = chunk.min(images - start);
            let of = |tensor: &Tensor| tensor.f_narrow(0, start, chunk);
            let index = of(flips)?.f_mul(&swap)?.f_add(&of(starts)?)?.f_add(&fixed)?;
            of(&self.epoch.images)?.f_copy_(&self.pixels.f_take(&index)?)?;
        }
        Ok(())
    }

    /// Images of the epoch; `rows` says which of its order, [n] 64-bit integers on the device.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn batch(&self, rows: &Tensor) -> Result<Batch> {
        let Batch { images, labels } = &self.epoch;
        Ok(Batch { images: images.f_index_select(0, rows)?, labels: labels.f_index_select(0, rows)? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cnx_proto::recipe::recipe;
    use cnx_proto::spec::{Arch, Dataset};

    use super::*;
    use crate::data::batches;
    use crate::data::images::Images;

    #[test]
    fn an_epoch_on_the_device_is_the_epoch_of_the_loader_to_the_bit() {
        let mut spec = recipe(Arch::CondenseNet, Dataset::Synthetic);
        (spec.train.batch_size, spec.data.train_images) = (64, Some(2100));
        let data = crate::data::load(&spec, None).unwrap();
        let Images::InMemory(pixels) = data.train.as_ref() else { panic!("it is in files") };
        for (augment, seed) in [(true, 3), (true, u64::MAX), (false, 3)] {
            (spec.data.augment, spec.train.seed) = (augment, seed);
            let mut resident = Resident::new(pixels, augment, Device::Cpu).unwrap();
            for epoch in [0, 5] {
                resident.start(seed, epoch).unwrap();
                let mut start = 0;
                for batch in batches::training(&Arc::clone(&data.train), &spec, epoch, Device::Cpu) {
                    let batch = batch.unwrap();
                    let end = start + batch.len() as i64;
                    let found = resident
                        .batch(&Tensor::arange_start(start, end, (Kind::Int64, Device::Cpu)))
                        .unwrap();
                    assert_eq!((found.images, found.labels), (batch.images, batch.labels));
                    start = end;
                }
                assert_eq!(start, 2100);
            }
        }
    }
}
