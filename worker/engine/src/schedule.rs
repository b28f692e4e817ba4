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
    /// Floats of each thread's features at which it writes.
    pub to: Vec<usize>,
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
        let stem = (0..threads).map(|t| packed.stem.channels(share(packed.stem.units(), t, threads)));
        let mut entering: Vec<Range<usize>> = stem.collect();
        let mut blocks = Vec::new();
        for (i, block) in packed.blocks.iter().enumerate() {
            blocks.push(Block::new(block, packed, threads, &entering));
            let next = packed.blocks.get(i + 1).map_or(0, |next| next.entering);
            entering = (0..threads).map(|t| share(next, t, threads)).collect();
        }
        Schedule { threads, blocks }
    }
}

impl Block {
    /// `entering`: the channels that enter, by the threads that make them.
    fn new(block: &packed::Block, packed: &Packed, threads: usize, entering: &[Range<usize>]) -> Block {
        let layout = Layout::of(block, packed.registers, threads);
        let mut places = Vec::new();
        let mut features = vec![0; threads];
        let mut append = |places: &mut Vec<Place>, thread: usize, channels: usize| {
            let floats: &mut usize = &mut features[thread];
            places.extend((0..channels).map(|i| Place::new(thread, *floats + i * layout.plane)));
            *floats += channels * layout.plane;
            *floats - channels * layout.plane
        };
        for (thread, channels) in entering.iter().enumerate() {
            append(&mut places, thread, channels.len());
        }
        let mut middle = vec![0; threads];
        let mut layers = Vec::new();
        for layer in &block.layers {
            let (planes, outputs): (Planes, Vec<usize>) = match layer {
                packed::Layer::Planes(pointwise, spatial) => (
                    Planes::new(pointwise, threads, layout.middle_plane),
                    spatial.units.iter().map(|unit| unit.outputs).collect(),
                ),
                packed::Layer::Channels(pointwise, spatial) => (
                    Planes::blocks(pointwise, threads, layout.middle_plane),
                    spatial.units.iter().map(|unit| unit.outputs).collect(),
                ),
            };
            for (most, count) in middle.iter_mut().zip(&planes.counts) {
                *most = count.saturating_mul(layout.middle_plane).max(*most);
            }
            let units: Vec<_> = (0..threads).map(|t| share(outputs.len(), t, threads)).collect();
            let sum = |units: &Range<usize>| outputs[units.clone()].iter().sum();
            let to = units.iter().enumerate().map(|(t, units)| append(&mut places, t, sum(units))).collect();
            layers.push(Layer { middle: planes, units, to });
        }
        let transition = block.transition.as_ref().map(|conv| Planes::new(conv, threads, layout.plane));
        let pixels = if layout.along == Along::Channels { layout.pixels() } else { Vec::new() };
        Block { layout, pixels, places, features, middle, layers, transition }
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
        let made: Vec<[usize; 2]> = counts
            .iter()
            .enumerate()
            .flat_map(|(thread, &count)| (0..count).map(move |i| [thread, i * plane]))
            .collect();
        let place = |(number, at): (usize, usize)| Place::new(made[number][0], made[number][1] + at);
        Planes { units, counts, places: order.map(place).collect() }
    }
}
