//! Who of some threads makes what, and where it lies. Each thread makes whole planes, in buffers of its own; so none writes what
//! another writes, not even of the same cache line.

use std::ops::Range;

use crate::layout::Layout;
use crate::packed::{self, Packed};
use crate::place::{Place, share};
use crate::pointwise::planes::Pointwise;

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
            let planes = Planes::new(&layer.pointwise, threads, layout.middle_plane);
            for (most, count) in middle.iter_mut().zip(&planes.counts) {
                *most = count.saturating_mul(layout.middle_plane).max(*most);
            }
            let units: Vec<_> = (0..threads).map(|t| share(layer.spatial.units.len(), t, threads)).collect();
            let outputs =
                |units: &Range<usize>| layer.spatial.units[units.clone()].iter().map(|u| u.outputs).sum();
            let to =
                units.iter().enumerate().map(|(t, units)| append(&mut places, t, outputs(units))).collect();
            layers.push(Layer { middle: planes, units, to });
        }
        let transition = block.transition.as_ref().map(|conv| Planes::new(conv, threads, layout.plane));
        Block { layout, places, features, middle, layers, transition }
    }
}

impl Planes {
    fn new(conv: &Pointwise, threads: usize, plane: usize) -> Planes {
        let units: Vec<_> = (0..threads).map(|t| share(conv.units.len(), t, threads)).collect();
        let outputs = |units: &Range<usize>| conv.units[units.clone()].iter().map(|unit| unit.outputs).sum();
        let counts: Vec<usize> = units.iter().map(outputs).collect();
        let made: Vec<Place> = counts
            .iter()
            .enumerate()
            .flat_map(|(thread, &count)| (0..count).map(move |i| Place::new(thread, i * plane)))
            .collect();
        Planes { units, places: conv.order.iter().map(|&number| made[number]).collect(), counts }
    }
}
