//! Runs a model.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use crate::barrier::Broken;
use crate::pass::{Member, Pass};
use crate::place::share;
use crate::team::Team;
use crate::{Error, Model};

/// A model's planned memory and its threads. Where there are as many images as threads, each thread takes images of its own; else
/// all take each image together.
#[derive(Debug)]
pub struct Runner {
    model: Arc<Model>,
    threads: usize,
    /// What takes an image together; made when it is first needed.
    team: Option<Team>,
    /// What takes images apart, one a thread; made when they are first needed.
    alone: Vec<(Pass, Member)>,
    logits: Vec<f32>,
}

impl Runner {
    /// Memory and threads for a model. More threads than CPUs make it slower.
    pub fn new(model: Arc<Model>, threads: NonZeroUsize) -> Runner {
        Runner { model, threads: threads.get(), team: None, alone: Vec::new(), logits: Vec::new() }
    }

    /// Normalised images [n, 3, size, size] → logits [n, classes].
    ///
    /// # Errors
    /// When they are no whole images, or none; when threads cannot be started.
    pub fn logits(&mut self, images: &[f32]) -> Result<&[f32], Error> {
        let packed = &self.model.packed;
        let (found, each, size) = (images.len(), packed.image(), packed.size);
        if found == 0 || !found.is_multiple_of(each) {
            return Err(Error::Images { found, each, size });
        }
        let count = found / each;
        self.logits.resize(count * packed.classes, 0.0);
        if count < self.threads {
            self.together(images)?
        } else {
            self.apart(images, count)?
        }
        Ok(&self.logits)
    }

    fn together(&mut self, images: &[f32]) -> Result<(), Error> {
        let team = match &mut self.team {
            Some(team) => team,
            none => none.insert(Team::new(&self.model, self.threads)?),
        };
        let packed = &self.model.packed;
        let logits = self.logits.chunks_exact_mut(packed.classes);
        images
            .chunks_exact(packed.image())
            .zip(logits)
            .try_for_each(|(image, logits)| team.logits(image, logits))
    }

    fn apart(&mut self, images: &[f32], count: usize) -> Result<(), Error> {
        let model = &*self.model;
        self.alone.resize_with(self.threads, || (Pass::new(&model.packed, 1), Member::new(0)));
        let (mut images, mut logits) = (images, self.logits.as_mut_slice());
        let mut parts = Vec::with_capacity(self.threads);
        for (thread, alone) in self.alone.iter_mut().enumerate() {
            let share = share(count, thread, self.threads).len();
            let (own_images, other_images) = images.split_at(share * model.packed.image());
            let (own_logits, other_logits) = logits.split_at_mut(share * model.packed.classes);
            (images, logits) = (other_images, other_logits);
            parts.push(move || run(model, alone, own_images, own_logits));
        }
        let Some(mut own) = parts.pop() else { return Ok(()) };
        let died = || Error::Threads("one of them has died".to_owned());
        thread::scope(|scope| {
            let start = |part| thread::Builder::new().spawn_scoped(scope, part);
            let others = parts.into_iter().map(start).collect::<Result<Vec<_>, _>>();
            let others = others.map_err(|error| Error::Threads(error.to_string()))?;
            let own = own();
            let others = others.into_iter().map(|other| other.join().unwrap_or(Err(Broken)));
            others.chain([own]).collect::<Result<(), Broken>>().map_err(|Broken| died())
        })
    }
}

/// Takes images through the network on one thread.
fn run(model: &Model, alone: &mut (Pass, Member), images: &[f32], logits: &mut [f32]) -> Result<(), Broken> {
    let packed = &model.packed;
    let (pass, member) = alone;
    for (image, logits) in images.chunks_exact(packed.image()).zip(logits.chunks_exact_mut(packed.classes)) {
        pass.run(packed, model.vectors, member, Some(image))?;
        pass.logits(logits);
    }
    Ok(())
}
