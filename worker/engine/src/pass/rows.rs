//! A dense block whose rows threads share.

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
    pub(super) fn by_rows(
        &self,
        i: usize,
        block: &packed::Block,
        vectors: Vectors,
        member: &mut Member,
    ) -> Result<(), Broken> {
        let schedule = &self.schedule.blocks[i];
        self.halve(i, 0, vectors, member.thread);
        for (l, (layer, plan)) in block.layers.iter().zip(&schedule.layers).enumerate() {
            let packed::Layer::Planes(pointwise, spatial) = layer else {
                unreachable!("threads share rows only where vectors go along pixels")
            };
            self.rows(i, l, vectors, member, (pointwise, spatial, plan));
            self.wait()?;
            self.halve(i, l + 1, vectors, member.thread);
        }
        self.wait()
    }

    /// A thread's rows of a layer.
    fn rows(
        &self,
        i: usize,
        l: usize,
        vectors: Vectors,
        member: &mut Member,
        (pointwise, spatial, plan): (
            &pointwise::planes::Pointwise,
            &spatial::planes::Spatial,
            &schedule::Layer,
        ),
    ) {
        let (schedule, parts) = (&self.schedule.blocks[i], &self.blocks[i]);
        let (thread, layout) = (member.thread, &schedule.layout);
        // What this layer sees of a thread's features. Nobody writes it: what a layer makes has a part of its own.
        let seen = |thread: usize| All::of(&parts.features[thread][..=l]);
        let own = seen(thread);
        let above = thread.checked_sub(1).map(seen);
        let below = (thread + 1 < self.schedule.threads).then(|| seen(thread + 1));
        let (own, above, below) = (own.get(), above.as_ref().map(All::get), below.as_ref().map(All::get));
        let count = schedule.rows[thread].len();
        let mut middle = write(&parts.middle[thread]);
        let middle = middle.get_mut();
        let mut done = 0;
        for band in layout.bands(count) {
            let rows = done..(band.end + 1).min(count);
            done = rows.end;
            let (begins, ends) = (band.start == 0, band.end == count);
            let mut pieces = Vec::with_capacity(3);
            if let (true, Some(features), Some(thread)) = (begins, &above, thread.checked_sub(1)) {
                let last = schedule.rows[thread].len();
                pieces.push(Piece { features, rows: last - 1..last, first: 0 });
            }
            let first = rows.start + 1 - band.start;
            pieces.push(Piece { features: &own, rows, first });
            if let (true, Some(features)) = (ends, &below) {
                pieces.push(Piece { features, rows: 0..1, first: band.len() + 1 });
            }
            step(Step::Pointwise(i + 1), || {
                vectors.run(pointwise::planes::Band {
                    conv: pointwise,
                    units: plan.middle.units[0].clone(),
                    pieces: &pieces,
                    places: &schedule.places,
                    layout,
                    carried: !begins,
                    last: ends && below.is_none(),
                    to: &mut middle[..plan.middle.counts[0] * layout.middle_plane],
                    panel: &mut member.scratch,
                })
            });
            step(Step::Spatial(i + 1), || {
                vectors.run(spatial::planes::Work {
                    conv: spatial,
                    units: plan.units[0].clone(),
                    middle: &[&*middle],
                    places: &plan.middle.places,
                    layout,
                    rows: band,
                    to: write(&parts.features[thread][l + 1]).get_mut(),
                })
            });
        }
    }
}
