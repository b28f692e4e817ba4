//! One image through the network, by some threads in step: each calls [`Pass::run`], does its share of each step, and waits for
//! the others at a barrier.

mod part;
mod planes;
mod rows;

use crate::barrier::{Barrier, Broken};
use crate::buffer::Buffer;
use crate::instructions::Vectors;
use crate::packed::Packed;
use crate::place::share;
use crate::profile::{Step, step};
use crate::schedule::{self, Half, Schedule};
use crate::{head, pool, stem};
use part::{All, Part, part, read, write};

/// The memory of some threads, and the steps that they take.
#[derive(Debug)]
pub(crate) struct Pass {
    schedule: Schedule,
    barrier: Barrier,
    /// The image, laid out.
    image: Part,
    blocks: Vec<Parts>,
    means: Vec<Part>,
    logits: Vec<Part>,
}

/// Each thread's buffers of a block.
#[derive(Debug)]
struct Parts {
    features: Vec<Vec<Part>>,
    middle: Vec<Part>,
    transition: Vec<Part>,
}

impl Parts {
    fn new(block: &schedule::Block) -> Parts {
        let planes = block.transition.iter().flat_map(|planes| &planes.counts);
        Parts {
            features: block
                .features
                .iter()
                .map(|parts| parts.iter().copied().map(part::planes).collect())
                .collect(),
            middle: block.middle.iter().copied().map(part).collect(),
            transition: planes.map(|count| part(count * block.layout.plane)).collect(),
        }
    }

    /// Everybody's features, where threads share planes.
    fn planes(&self) -> All<'_> {
        All::of(self.features.iter().flatten())
    }
}

/// A thread's place in a pass, and memory of its own.
#[derive(Debug)]
pub(crate) struct Member {
    pub thread: usize,
    scratch: Buffer,
}

impl Member {
    pub fn new(thread: usize) -> Member {
        Member { thread, scratch: Buffer::default() }
    }
}

impl Pass {
    pub fn new(packed: &Packed, threads: usize) -> Pass {
        let schedule = Schedule::new(packed, threads);
        let shares = |count: usize| (0..threads).map(move |t| share(count, t, threads).len());
        let head = &packed.head;
        Pass {
            barrier: Barrier::new(threads),
            image: part(packed.stem.floats()),
            blocks: schedule.blocks.iter().map(Parts::new).collect(),
            means: shares(head.inputs()).map(part).collect(),
            logits: shares(head.tiles()).map(|tiles| part(tiles * head.width())).collect(),
            schedule,
        }
    }

    /// Nobody needs to wait any more: a thread has died.
    pub fn break_up(&self) {
        self.barrier.break_up();
    }

    fn wait(&self) -> Result<(), Broken> {
        step(Step::Waiting, || self.barrier.wait())
    }

    /// A thread's share of an image [3, size, size], which the first thread brings.
    ///
    /// # Errors
    /// When another thread has died.
    pub fn run(
        &self,
        packed: &Packed,
        vectors: Vectors,
        member: &mut Member,
        image: Option<&[f32]>,
    ) -> Result<(), Broken> {
        if let Some(image) = image {
            step(Step::Stem, || {
                vectors.run(stem::LayOut { stem: &packed.stem, image, to: write(&self.image).get_mut() });
            });
        }
        self.wait()?;
        step(Step::Stem, || self.stem(packed, vectors, member));
        self.wait()?;
        for (i, block) in packed.blocks.iter().enumerate() {
            if self.schedule.blocks[i].rows.is_empty() {
                self.by_planes(i, block, vectors, member)?;
            } else {
                self.by_rows(i, block, vectors, member)?;
            }
        }
        self.head(packed, vectors, member)
    }

    /// The logits, once all threads are through.
    pub fn logits(&self, to: &mut [f32]) {
        let mut left = to;
        for part in &self.logits {
            let part = read(part);
            let count = part.get().len().min(left.len());
            let (to, rest) = left.split_at_mut(count);
            to.copy_from_slice(&part.get()[..count]);
            left = rest;
        }
    }

    fn stem(&self, packed: &Packed, vectors: Vectors, member: &Member) {
        let (Some(schedule), Some(parts)) = (self.schedule.blocks.first(), self.blocks.first()) else {
            return;
        };
        let (thread, threads, units) = (member.thread, self.schedule.threads, packed.stem.units());
        let (units, rows) = match schedule.rows.get(thread) {
            Some(rows) => (0..units, rows.clone()),
            None => (share(units, thread, threads), 0..schedule.layout.size),
        };
        vectors.run(stem::Work {
            stem: &packed.stem,
            units,
            rows,
            image: read(&self.image).get(),
            layout: &schedule.layout,
            to: write(&parts.features[thread][0]).get_mut(),
        });
    }

    /// Puts halves of what a block has into the next: of what entered it (`part` 0), or of what a layer made.
    fn halve(&self, i: usize, part: usize, vectors: Vectors, thread: usize) {
        let (schedule, parts) = (&self.schedule.blocks[i], &self.blocks[i]);
        let (Some(next), Some(into)) = (self.schedule.blocks.get(i + 1), self.blocks.get(i + 1)) else {
            return;
        };
        step(Step::Transition(i + 1), || {
            for Half { from, planes, to, rows } in &schedule.halves[part][thread] {
                let from = match (&schedule.transition, schedule.rows.is_empty()) {
                    (Some(_), _) => &parts.transition[*from],
                    (None, true) => &parts.features[*from][0],
                    (None, false) => &parts.features[*from][part],
                };
                let plane = next.layout.plane;
                vectors.run(pool::Work {
                    planes: &read(from).get()
                        [planes.start * schedule.layout.plane..planes.end * schedule.layout.plane],
                    from: &schedule.layout,
                    into: &next.layout,
                    rows: rows.clone(),
                    to: &mut write(&into.features[thread][0]).get_mut()
                        [to * plane..(to + planes.len()) * plane],
                });
            }
        });
    }

    fn head(&self, packed: &Packed, vectors: Vectors, member: &Member) -> Result<(), Broken> {
        let (Some(schedule), Some(parts)) = (self.schedule.blocks.last(), self.blocks.last()) else {
            return Ok(());
        };
        let (thread, threads, head) = (member.thread, self.schedule.threads, &packed.head);
        step(Step::Head, || {
            vectors.run(head::Means {
                head,
                inputs: share(head.inputs(), thread, threads),
                features: &parts.planes().get(),
                places: &schedule.places,
                layout: &schedule.layout,
                to: write(&self.means[thread]).get_mut(),
            })
        });
        self.wait()?;
        step(Step::Head, || {
            vectors.run(head::Classify {
                head,
                tiles: share(head.tiles(), thread, threads),
                means: &All::of(&self.means).get(),
                to: write(&self.logits[thread]).get_mut(),
            })
        });
        self.wait()
    }
}
