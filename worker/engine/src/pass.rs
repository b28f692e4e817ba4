//! One image through the network, by some threads in step: each calls [`Pass::run`], does its share of each step, and waits for
//! the others at a barrier.

use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::barrier::{Barrier, Broken};
use crate::buffer::Buffer;
use crate::instructions::Vectors;
use crate::layout::Layout;
use crate::packed::{self, Packed};
use crate::place::share;
use crate::profile::{Step, step};
use crate::schedule::{self, Schedule};
use crate::{head, pointwise, pool, spatial, stem};

/// A buffer that one thread writes in some steps, and all read in others; the barriers between keep them from ever waiting here.
type Part = RwLock<Buffer>;

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
    features: Vec<Part>,
    middle: Vec<Part>,
    transition: Vec<Part>,
}

fn part(floats: usize) -> Part {
    RwLock::new(Buffer::new(floats))
}

fn read(part: &Part) -> RwLockReadGuard<'_, Buffer> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(part: &Part) -> RwLockWriteGuard<'_, Buffer> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

/// All parts, to be read.
struct All<'a>(Vec<RwLockReadGuard<'a, Buffer>>);

impl<'a> All<'a> {
    fn of(parts: &'a [Part]) -> All<'a> {
        All(parts.iter().map(read).collect())
    }

    fn get(&self) -> Vec<&[f32]> {
        self.0.iter().map(|part| part.get()).collect()
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
        let parts = |block: &schedule::Block| Parts {
            features: block.features.iter().map(|&floats| part(floats)).collect(),
            middle: block.middle.iter().map(|&floats| part(floats)).collect(),
            transition: block
                .transition
                .iter()
                .flat_map(|planes| planes.counts.iter().map(|count| part(count * block.layout.plane)))
                .collect(),
        };
        let shares = |count: usize| (0..threads).map(move |t| share(count, t, threads).len());
        let head = &packed.head;
        Pass {
            barrier: Barrier::new(threads),
            image: part(packed.stem.floats()),
            blocks: schedule.blocks.iter().map(parts).collect(),
            means: shares(head.inputs()).map(part).collect(),
            logits: shares(head.tiles()).map(|tiles| part(tiles * head.width())).collect(),
            schedule,
        }
    }

    /// Nobody needs to wait any more: a thread has died.
    pub fn break_up(&self) {
        self.barrier.break_up();
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
        self.barrier.wait()?;
        step(Step::Stem, || self.stem(packed, vectors, member));
        self.barrier.wait()?;
        for (i, block) in packed.blocks.iter().enumerate() {
            self.block(i, block, vectors, member)?;
        }
        step(Step::Head, || self.head(packed, vectors, member))
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
        vectors.run(stem::Work {
            stem: &packed.stem,
            units: share(packed.stem.units(), member.thread, self.schedule.threads),
            image: read(&self.image).get(),
            layout: &schedule.layout,
            to: write(&parts.features[member.thread]).get_mut(),
        });
    }

    /// A dense block, and half of it for the next.
    fn block(
        &self,
        i: usize,
        block: &packed::Block,
        vectors: Vectors,
        member: &mut Member,
    ) -> Result<(), Broken> {
        let (schedule, parts, thread) = (&self.schedule.blocks[i], &self.blocks[i], member.thread);
        if block.transition.is_none() {
            self.halve(i, vectors, thread, &parts.features, 0..schedule.entering[thread]);
        }
        for (layer, plan) in block.layers.iter().zip(&schedule.layers) {
            self.layer(i, vectors, member, (layer, plan))?;
            if block.transition.is_none() {
                self.halve(i, vectors, thread, &parts.features, plan.to[thread].clone());
            }
            self.barrier.wait()?;
        }
        if let (Some(conv), Some(planes)) = (&block.transition, &schedule.transition) {
            step(Step::Transition(i + 1), || {
                vectors.run(pointwise::planes::Work {
                    conv,
                    units: planes.units[thread].clone(),
                    features: &All::of(&parts.features).get(),
                    places: &schedule.places,
                    run: schedule.layout.whole(),
                    floor: f32::NEG_INFINITY,
                    to: write(&parts.transition[thread]).get_mut(),
                    plane: schedule.layout.plane,
                    panel: &mut member.scratch,
                })
            });
            self.halve(i, vectors, thread, &parts.transition, 0..planes.counts[thread]);
            self.barrier.wait()?;
        }
        Ok(())
    }

    /// Planes that a thread has made in a block, into the next.
    fn halve(&self, i: usize, vectors: Vectors, thread: usize, from: &[Part], planes: Range<usize>) {
        let (Some(next), Some(into)) = (self.schedule.blocks.get(i + 1), self.blocks.get(i + 1)) else {
            return;
        };
        let (from_layout, into_layout) = (&self.schedule.blocks[i].layout, &next.layout);
        let floats = |layout: &Layout| planes.start * layout.plane..planes.end * layout.plane;
        step(Step::Transition(i + 1), || {
            vectors.run(pool::Work {
                planes: &read(&from[thread]).get()[floats(from_layout)],
                from: from_layout,
                into: into_layout,
                to: &mut write(&into.features[thread]).get_mut()[floats(into_layout)],
            })
        });
    }

    /// 1×1 and 3×3; the last barrier is the caller's.
    fn layer(
        &self,
        i: usize,
        vectors: Vectors,
        member: &mut Member,
        (layer, plan): (&packed::Layer, &schedule::Layer),
    ) -> Result<(), Broken> {
        let (schedule, parts) = (&self.schedule.blocks[i], &self.blocks[i]);
        let (thread, layout) = (member.thread, &schedule.layout);
        let to = plan.to[thread].start * layout.plane;
        match layer {
            packed::Layer::Planes(pointwise, spatial) => {
                let mut done = 0;
                for band in layout.bands() {
                    let end = band.end;
                    let rows = done..(band.end + 1).min(layout.size);
                    done = rows.end;
                    let first = rows.start + 1 - band.start;
                    step(Step::Pointwise(i + 1), || {
                        vectors.run(pointwise::planes::Band {
                            carried: band.start > 0,
                            last: band.end == layout.size,
                            first,
                            rows: rows.clone(),
                            layout,
                            work: pointwise::planes::Work {
                                conv: pointwise,
                                units: plan.middle.units[thread].clone(),
                                features: &All::of(&parts.features).get(),
                                places: &schedule.places,
                                run: layout.middle_run(&rows, first),
                                floor: 0.0,
                                to: &mut write(&parts.middle[thread]).get_mut()
                                    [..plan.middle.counts[thread] * layout.middle_plane],
                                plane: layout.middle_plane,
                                panel: &mut member.scratch,
                            },
                        })
                    });
                    self.barrier.wait()?;
                    step(Step::Spatial(i + 1), || {
                        vectors.run(spatial::planes::Work {
                            conv: spatial,
                            units: plan.units[thread].clone(),
                            middle: &All::of(&parts.middle).get(),
                            places: &plan.middle.places,
                            layout,
                            rows: band,
                            to: &mut write(&parts.features[thread]).get_mut()[to..],
                        })
                    });
                    if end < layout.size {
                        self.barrier.wait()?;
                    }
                }
            }
            packed::Layer::Blocks(pointwise, spatial) => {
                step(Step::Pointwise(i + 1), || {
                    vectors.run(pointwise::channels::Work {
                        conv: pointwise,
                        units: plan.middle.units[thread].clone(),
                        features: &All::of(&parts.features).get(),
                        places: &schedule.places,
                        layout,
                        pixels: &schedule.pixels,
                        to: write(&parts.middle[thread]).get_mut(),
                        panel: &mut member.scratch,
                    })
                });
                self.barrier.wait()?;
                step(Step::Spatial(i + 1), || {
                    vectors.run(spatial::blocks::Work {
                        conv: spatial,
                        units: plan.units[thread].clone(),
                        middle: &All::of(&parts.middle).get(),
                        places: &plan.middle.places,
                        layout,
                        to: &mut write(&parts.features[thread]).get_mut()[to..],
                        scratch: &mut member.scratch,
                    })
                });
            }
        }
        Ok(())
    }

    fn head(&self, packed: &Packed, vectors: Vectors, member: &Member) -> Result<(), Broken> {
        let (Some(schedule), Some(parts)) = (self.schedule.blocks.last(), self.blocks.last()) else {
            return Ok(());
        };
        let (thread, threads, head) = (member.thread, self.schedule.threads, &packed.head);
        vectors.run(head::Means {
            head,
            inputs: share(head.inputs(), thread, threads),
            features: &All::of(&parts.features).get(),
            places: &schedule.places,
            layout: &schedule.layout,
            to: write(&self.means[thread]).get_mut(),
        });
        self.barrier.wait()?;
        vectors.run(head::Classify {
            head,
            tiles: share(head.tiles(), thread, threads),
            means: &All::of(&self.means).get(),
            to: write(&self.logits[thread]).get_mut(),
        });
        self.barrier.wait()
    }
}
