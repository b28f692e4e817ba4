//! Runs a model.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::{Error, Model, reference};

/// A model's planned memory and its threads.
#[derive(Debug)]
pub struct Runner {
    model: Arc<Model>,
    logits: Vec<f32>,
}

impl Runner {
    /// Memory and threads for a model. More threads than CPUs make it slower.
    pub fn new(model: Arc<Model>, threads: NonZeroUsize) -> Runner {
        let _ = threads;
        Runner { model, logits: Vec::new() }
    }

    /// Normalised images [n, 3, size, size] → logits [n, classes].
    ///
    /// # Errors
    /// When they are no whole images, or none.
    pub fn logits(&mut self, images: &[f32]) -> Result<&[f32], Error> {
        let size = self.model.spec().data.dataset.image_size() as usize;
        let (found, each) = (images.len(), 3 * size * size);
        if found == 0 || !found.is_multiple_of(each) {
            return Err(Error::Images { found, each, size });
        }
        let logits = |image| reference::logits(self.model.spec(), &self.model.state, image);
        self.logits = images.chunks(each).flat_map(logits).map(|x| x as f32).collect();
        Ok(&self.logits)
    }
}
