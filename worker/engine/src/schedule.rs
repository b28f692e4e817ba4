//! Who of some threads makes what, and where it lies. Each thread makes whole planes, in buffers of its own; so none writes what
//! another writes, not even of the same cache line.

use std::ops::Range;

use crate::layout::{Along, Layout};
use crate::packed::{self, Packed};
use crate::place::{Place, share};
use crate::pointwise::{channels, planes};

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
    /// Where each channel of its features lies.
    pub places: Vec<Place>,
    /// Planes that enter, each thread's.
    pub entering: Vec<usize>,
    /// Floats of each thread's features, and of its middle.
    pub features: Vec<usize>,
    pub middle: Vec<usize>,
    pub layers: Vec<Layer>,
    pub transition: Option<Planes>,
}

/// A dense layer's.
#[derive(Debug)]
pub(crate) struct Layer {
    pub middle: Planes,
    /// Pieces of the 3×3 convolution, each thread's.
    pub units: Vec<Range<usize>>,
    /// Planes that it makes of them, counted among the features that are its own.
    pub to: Vec<Range<usize>>,
}

/// Planes that a 1×1 convolution makes.
#[derive(Debug)]
pub(crate) struct Planes {
    /// Pieces of it, each thread's.
    pub units: Vec<Range<usize>>,
    /// Planes of each thread.
    pub counts: Vec<usize>,
    /// Where each channel lies.
    pub places: Vec<Place>,
}

impl Schedule {
    pub fn new(packed: &Packed, threads: usize) -> Schedule {
        let stem = (0..threads).map(|t| packed.stem.channels(share(packed.stem.units(), t, threads)).len());
        let mut entering: Vec<[usize; 2]> = numbered(stem);
        let mut blocks = Vec::new();
        for block in &packed.blocks {
            let planned = Block::new(block, packed, threads, &entering);
            // What a thread made, it also halves: planes keep their numbers.
            let (leaving, plane) = match &planned.transition {
                Some(transition) => (&transition.places, planned.layout.plane),
                None => (&planned.places, planned.layout.plane),
            };
            entering =
                leaving.iter().map(|place| [place.part as usize, place.offset as usize / plane]).collect();
            blocks.push(planned);
        }
        Schedule { threads, blocks }
    }
}

impl Block {
    /// `entering`: of each channel that enters, the thread that makes it and the number of its plane there.
    fn new(block: &packed::Block, packed: &Packed, threads: usize, entering: &[[usize; 2]]) -> Block {
        let layout = Layout::new(block.along, block.size, block.middle, packed.core.lanes, threads);
        let mut planes = vec![0; threads];
        entering.iter().for_each(|&[thread, _]| planes[thread] += 1);
        let place = |&[thread, number]: &[usize; 2]| Place::new(thread, number * layout.plane);
        let mut places: Vec<Place> = entering.iter().map(place).collect();
        let entering = planes.clone();
        let mut middle = vec![0; threads];
        let mut layers = Vec::new();
        for layer in &block.layers {
            let (made, outputs): (Planes, Vec<usize>) = match layer {
                packed::Layer::Planes(pointwise, spatial) => (
                    Planes::new(pointwise, threads, layout.middle_plane),
                    spatial.units.iter().map(|unit| unit.outputs).collect(),
                ),
                packed::Layer::Blocks(pointwise, spatial) => (
                    Planes::blocks(pointwise, threads, layout.middle_plane),
                    spatial.units.iter().map(|unit| unit.outputs).collect(),
                ),
            };
            for (most, count) in middle.iter_mut().zip(&made.counts) {
                *most = count.saturating_mul(layout.middle_plane).max(*most);
            }
            let units: Vec<_> = (0..threads).map(|t| share(outputs.len(), t, threads)).collect();
            let to = units.iter().enumerate().map(|(thread, units)| {
                let first = planes[thread];
                planes[thread] += outputs[units.clone()].iter().sum::<usize>();
                places
                    .extend((first..planes[thread]).map(|number| Place::new(thread, number * layout.plane)));
                first..planes[thread]
            });
            let to = to.collect();
            layers.push(Layer { middle: made, units, to });
        }
        let transition = block.transition.as_ref().map(|conv| Planes::new(conv, threads, layout.plane));
        let blocks = matches!(layout.along, Along::Channels | Along::Squares);
        let pixels = if blocks { layout.pixels() } else { Vec::new() };
        let features = planes.iter().map(|planes| planes * layout.plane).collect();
        Block { layout, pixels, places, entering, features, middle, layers, transition }
    }
}

impl Planes {
    fn new(conv: &planes::Pointwise, threads: usize, plane: usize) -> Planes {
        let outputs: Vec<usize> = conv.units.iter().map(|unit| unit.outputs).collect();
        Planes::made(&outputs, threads, plane, conv.order.iter().map(|&number| (number, 0)))
    }

    /// Of blocks of channels.
    fn blocks(conv: &channels::Pointwise, threads: usize, block: usize) -> Planes {
        let blocks: Vec<usize> = conv.units.iter().map(|unit| unit.blocks).collect();
        Planes::made(&blocks, threads, block, conv.order.iter().copied())
    }

    /// `counts`: planes that each unit makes; `order`: of each channel, the plane and the float at which it lies.
    fn made(
        counts: &[usize],
        threads: usize,
        plane: usize,
        order: impl Iterator<Item = (usize, usize)>,
    ) -> Planes {
        let units: Vec<_> = (0..threads).map(|t| share(counts.len(), t, threads)).collect();
        let counts: Vec<usize> = units.iter().map(|units| counts[units.clone()].iter().sum()).collect();
        let made = numbered(counts.iter().copied());
        let place = |(number, at): (usize, usize)| {
            let [thread, number] = made[number];
            Place::new(thread, number * plane + at)
        };
        Planes { units, counts, places: order.map(place).collect() }
    }
}

/// Of planes that threads make one thread after another: whose each is, and its number there.
fn numbered(counts: impl Iterator<Item = usize>) -> Vec<[usize; 2]> {
    counts.enumerate().flat_map(|(thread, count)| (0..count).map(move |number| [thread, number])).collect()
}
