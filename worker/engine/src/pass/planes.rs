//! A dense block whose planes threads share.

use crate::barrier::Broken;
use crate::instructions::Vectors;
use crate::packed;
use crate::pass::part::{All, write};
use crate::pass::{Member, Pass};
use crate::pointwise::planes::Piece;
use crate::profile::{Step, step};
use crate::schedule;
use crate::{pointwise, spatial};

impl Pass {
    /// The block, and half of it for the next.
    pub(super) fn by_planes(
        &self,
        i: usize,
        block: &packed::Block,
        vectors: Vectors,
        member: &mut Member,
    ) -> Result<(), Broken> {
        let (schedule, parts, thread) = (&self.schedule.blocks[i], &self.blocks[i], member.thread);
        if block.transition.is_none() {
            self.halve(i, 0, vectors, thread);
        }
        for (l, (layer, plan)) in block.layers.iter().zip(&schedule.layers).enumerate() {
            self.layer(i, vectors, member, (layer, plan))?;
            if block.transition.is_none() {
                self.halve(i, l + 1, vectors, thread);
            }
            self.wait()?;
        }
        if let (Some(conv), Some(planes)) = (&block.transition, &schedule.transition) {
            step(Step::Transition(i + 1), || {
                vectors.run(pointwise::planes::Work {
                    conv,
                    units: planes.units[thread].clone(),
                    features: &parts.planes().get(),
                    places: &schedule.places,
                    run: schedule.layout.whole(),
                    floor: f32::NEG_INFINITY,
                    to: write(&parts.transition[thread]).get_mut(),
                    plane: schedule.layout.plane,
                    panel: &mut member.scratch,
                })
            });
            self.halve(i, 0, vectors, thread);
            self.wait()?;
        }
        Ok(())
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
                for band in layout.bands(layout.size) {
                    let end = band.end;
                    let rows = done..(end + 1).min(layout.size);
                    done = rows.end;
                    let first = rows.start + 1 - band.start;
                    step(Step::Pointwise(i + 1), || {
                        vectors.run(pointwise::planes::Band {
                            conv: pointwise,
                            units: plan.middle.units[thread].clone(),
                            pieces: &[Piece { features: &parts.planes().get(), rows, first }],
                            places: &schedule.places,
                            layout,
                            carried: band.start > 0,
                            last: end == layout.size,
                            to: &mut write(&parts.middle[thread]).get_mut()
                                [..plan.middle.counts[thread] * layout.middle_plane],
                            panel: &mut member.scratch,
                        })
                    });
                    self.wait()?;
                    step(Step::Spatial(i + 1), || {
                        vectors.run(spatial::planes::Work {
                            conv: spatial,
                            units: plan.units[thread].clone(),
                            middle: &All::of(&parts.middle).get(),
                            places: &plan.middle.places,
                            layout,
                            rows: band,
                            to: &mut write(&parts.features[thread][0]).get_mut()[to..],
                        })
                    });
                    if end < layout.size {
                        self.wait()?;
                    }
                }
            }
            packed::Layer::Blocks(pointwise, spatial) => {
                step(Step::Pointwise(i + 1), || {
                    vectors.run(pointwise::channels::Work {
                        conv: pointwise,
                        units: plan.middle.units[thread].clone(),
                        features: &parts.planes().get(),
                        places: &schedule.places,
                        layout,
                        pixels: &schedule.pixels,
                        to: write(&parts.middle[thread]).get_mut(),
                        panel: &mut member.scratch,
                    })
                });
                self.wait()?;
                step(Step::Spatial(i + 1), || {
                    vectors.run(spatial::blocks::Work {
                        conv: spatial,
                        units: plan.units[thread].clone(),
                        middle: &All::of(&parts.middle).get(),
                        places: &plan.middle.places,
                        layout,
                        to: &mut write(&parts.features[thread][0]).get_mut()[to..],
                        scratch: &mut member.scratch,
                    })
                });
            }
        }
        Ok(())
    }
}
