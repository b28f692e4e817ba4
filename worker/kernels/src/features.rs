//! The features of a dense block: the maps that enter it and those that its layers add, side by side in one buffer.

use crate::norm::{Moments, Sums, Upstream};

/// Shape of a batch of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Images of the batch.
    pub images: usize,
    /// Channels.
    pub channels: usize,
    /// Height, in pixels.
    pub height: usize,
    /// Width, in pixels.
    pub width: usize,
}

impl Shape {
    /// Pixels of a plane.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Floats of an image.
    pub fn image(self) -> usize {
        self.channels * self.pixels()
    }

    /// Floats in all.
    pub fn floats(self) -> usize {
        self.images * self.image()
    }

    /// What a channel's statistics are over.
    pub fn count(self) -> f64 {
        (self.images * self.pixels()) as f64
    }
}

/// Features, what is known of them, and what comes back to them.
#[derive(Debug, Default)]
pub struct Features {
    /// Of `values`.
    pub shape: Shape,
    /// [images, channels, height, width]
    pub values: Vec<f32>,
    /// Statistics of each channel.
    pub moments: Vec<Moments>,
    /// Σ γ·dz over the batch norms that see a feature, of the same shape as `values`. What comes back otherwise is added
    /// times sqrt(variance + ε), so that one [`Upstream`] fits all.
    pub gradient: Vec<f32>,
    /// Σ γ·(sums of dz) over the batch norms that see a channel.
    pub sums: Vec<Sums>,
}

impl Features {
    /// Room for a batch; of no value yet.
    pub fn resize(&mut self, shape: Shape) {
        self.shape = shape;
        self.values.resize(shape.floats(), 0.0);
        self.moments.resize(shape.channels, Moments { mean: 0.0, variance: 1.0 });
    }

    /// Nothing has come back yet.
    pub fn clear_gradient(&mut self) {
        self.gradient.clear();
        self.gradient.resize(self.shape.floats(), 0.0);
        self.sums.clear();
        self.sums.resize(self.shape.channels, Sums::default());
    }

    /// How the gradients of channels `from`… `to` follow from what came back; all that see them must have answered.
    pub fn upstream(&self, from: usize, to: usize) -> Upstream {
        let ones = std::iter::repeat_n(1.0, to - from);
        Upstream::through(ones, &self.moments[from..to], &self.sums[from..to], self.shape.count())
    }

    /// Notes the statistics of channels from `from` on.
    pub fn note(&mut self, from: usize, sums: &[Sums]) {
        let count = self.shape.count();
        for (moments, &sums) in self.moments[from..].iter_mut().zip(sums) {
            *moments = Moments::of(sums, count);
        }
    }

    /// Adds what a batch norm of these weights over the first channels sent back.
    pub fn add_sums(&mut self, weights: &[f32], sums: &[Sums]) {
        for ((own, &weight), sums) in self.sums.iter_mut().zip(weights).zip(sums) {
            own.sum += f64::from(weight) * sums.sum;
            own.product += f64::from(weight) * sums.product;
        }
    }
}
