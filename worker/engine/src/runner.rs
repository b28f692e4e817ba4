//! Runs a model.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::pass::{Member, Pass};
use crate::{Error, Model};

/// A model's planned memory and its threads.
#[derive(Debug)]
pub struct Runner {
    model: Arc<Model>,
    pass: Arc<Pass>,
    member: Member,
    logits: Vec<f32>,
}

impl Runner {
    /// Memory and threads for a model. More threads than CPUs make it slower.
    pub fn new(model: Arc<Model>, threads: NonZeroUsize) -> Runner {
        let _ = threads;
        let pass = Arc::new(Pass::new(&model.packed, 1));
        Runner { model, pass, member: Member::new(0), logits: Vec::new() }
    }

    /// Normalised images [n, 3, size, size] → logits [n, classes].
    ///
    /// # Errors
    /// When they are no whole images, or none.
    pub fn logits(&mut self, images: &[f32]) -> Result<&[f32], Error> {
        let packed = &self.model.packed;
        let (found, each, size) = (images.len(), packed.image(), packed.size);
        if found == 0 || !found.is_multiple_of(each) {
            return Err(Error::Images { found, each, size });
        }
        self.logits.resize(found / each * packed.classes, 0.0);
        for (image, logits) in images.chunks_exact(each).zip(self.logits.chunks_exact_mut(packed.classes)) {
            let ran = self.pass.run(packed, self.model.vectors, &mut self.member, Some(image));
            ran.map_err(|_| Error::Threads("one of them has died".to_owned()))?;
            self.pass.logits(logits);
        }
        Ok(&self.logits)
    }
}
