//! Who of some threads makes what, and where it lies. In buffers of its own each thread makes whole planes or, of the large maps at the
//! beginning, some rows of every plane; so none writes what another writes, not even of the same cache line.

mod halves;
mod planes;
mod rows;
#[cfg(test)]
mod tests;

use std::iter::once;
use std::ops::Range;

use crate::layout::{Along, Layout};
use crate::packed::{self, Packed};
use crate::place::{Place, share};

pub(crate) use halves::Half;
pub(crate) use planes::Planes;

/// The work of some threads on one image.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub threads: usize,
    pub blocks: Vec<Block>,
}

/// A dense block's.
#[derive(Debug)]
pub(crate) struct Block {
    pub layout: Layout,
    /// Where each pixel lies in a block of channels, if vectors go along them.
    pub pixels: Vec<u32>,
    /// Each thread's rows, where threads share rows; nothing where they share planes.
    pub rows: Vec<Range<usize>>,
    /// Where each channel of its features lies: in which thread's part or, where threads share rows, in which of each thread's parts.
    pub places: Vec<Place>,
    /// Floats of the features of each thread: of its only part or, where threads share rows, of what enters, then of what each layer makes.
    pub features: Vec<Vec<usize>>,
    /// Floats of each thread's middle.
    pub middle: Vec<usize>,
    /// Where threads share rows, each has the work of a single one.
    pub layers: Vec<Layer>,
    pub transition: Option<Planes>,
    /// Once the features that enter are there, and after each layer: what each thread puts into the next block. With a transition,
    /// only after it.
    pub halves: Vec<Vec<Vec<Half>>>,
}

/// A dense layer's.
#[derive(Debug)]
pub(crate) struct Layer {
    pub middle: Planes,
    /// Pieces of the 3×3 convolution, each thread's.
    pub units: Vec<Range<usize>>,
    /// Planes that it makes of them, counted among those of the part.
    pub to: Vec<Range<usize>>,
}

impl Schedule {
    pub fn new(packed: &Packed, threads: usize) -> Schedule {
        let rows = rows::shares(&packed.blocks, threads);
        let sharing = if rows.is_empty() { threads } else { 1 };
        let stem = (0..sharing).map(|t| packed.stem.channels(share(packed.stem.units(), t, sharing)).len());
        let mut entering: Vec<[usize; 2]> = planes::numbered(stem);
        let mut blocks = Vec::new();
        for (i, block) in packed.blocks.iter().enumerate() {
            let mut planned = match rows.get(i) {
                Some(rows) => Block::by_rows(block, packed, rows.clone(), entering.len()),
                None => Block::by_planes(block, packed, threads, &entering),
            };
            if let Some(next) = packed.blocks.get(i + 1) {
                let rows = rows.get(i + 1).map(Vec::as_slice);
                (planned.halves, entering) = planned.leaving(next.size, rows, threads, &entering);
            }
            blocks.push(planned);
        }
        Schedule { threads, blocks }
    }
}

impl Block {
    /// `entering`: of each channel that enters, the thread that makes it and the number of its plane there.
    fn by_planes(block: &packed::Block, packed: &Packed, threads: usize, entering: &[[usize; 2]]) -> Block {
        let layout = Layout::new(block.along, block.size, block.middle, packed.core, threads);
        let mut planes = vec![0; threads];
        entering.iter().for_each(|&[thread, _]| planes[thread] += 1);
        let place = |[thread, number]: [usize; 2]| Place::new(thread, number * layout.plane);
        let mut places: Vec<Place> = entering.iter().copied().map(place).collect();
        let mut middle = vec![0; threads];
        let mut layers = Vec::new();
        for layer in &block.layers {
            let (made, outputs) = Planes::of_layer(layer, threads, layout.middle_plane);
            for (most, count) in middle.iter_mut().zip(&made.counts) {
                *most = count.saturating_mul(layout.middle_plane).max(*most);
            }
            let units: Vec<_> = (0..threads).map(|t| share(outputs.len(), t, threads)).collect();
            let to = units.iter().enumerate().map(|(thread, units)| {
                let first = planes[thread];
                planes[thread] += outputs[units.clone()].iter().sum::<usize>();
                places.extend((first..planes[thread]).map(|number| place([thread, number])));
                first..planes[thread]
            });
            let to = to.collect();
            layers.push(Layer { middle: made, units, to });
        }
        let transition = block.transition.as_ref().map(|conv| Planes::new(conv, threads, layout.plane));
        let blocks = matches!(layout.along, Along::Channels(_) | Along::Squares(_));
        let pixels = if blocks { layout.pixels() } else { Vec::new() };
        let features = planes.iter().map(|planes| vec![planes * layout.plane]).collect();
        Block {
            layout,
            pixels,
            rows: Vec::new(),
            places,
            features,
            middle,
            layers,
            transition,
            halves: Vec::new(),
        }
    }

    /// `entering`: how many channels enter.
    fn by_rows(block: &packed::Block, packed: &Packed, rows: Vec<Range<usize>>, entering: usize) -> Block {
        let most = rows.iter().map(Range::len).max().unwrap_or(0);
        let layout = Layout::of_rows(block.along, block.size, most, block.middle, packed.core);
        let mut planes = vec![entering];
        let mut middle = 0;
        let mut layers = Vec::new();
        for layer in &block.layers {
            let (made, outputs) = Planes::of_layer(layer, 1, layout.middle_plane);
            middle = made.counts[0].saturating_mul(layout.middle_plane).max(middle);
            let count = outputs.iter().sum();
            planes.push(count);
            layers.push(Layer {
                middle: made,
                units: once(0..outputs.len()).collect(),
                to: once(0..count).collect(),
            });
        }
        let parts = planes.iter().enumerate();
        let places = parts
            .flat_map(|(part, &count)| (0..count).map(move |number| Place::new(part, number * layout.plane)));
        Block {
            layout,
            pixels: Vec::new(),
            places: places.collect(),
            features: vec![planes.iter().map(|planes| planes * layout.plane).collect(); rows.len()],
            middle: vec![middle; rows.len()],
            rows,
            layers,
            transition: None,
            halves: Vec::new(),
        }
    }
}
