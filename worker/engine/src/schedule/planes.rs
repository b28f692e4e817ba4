//! Planes that threads share.

use std::ops::Range;

use crate::packed;
use crate::place::{Place, share};
use crate::pointwise::{channels, planes};

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

impl Planes {
    pub fn new(conv: &planes::Pointwise, threads: usize, plane: usize) -> Planes {
        let outputs: Vec<usize> = conv.units.iter().map(|unit| unit.outputs).collect();
        Planes::made(&outputs, threads, plane, conv.order.iter().map(|&number| (number, 0)))
    }

    /// Of a layer, and outputs of each piece of its 3×3 convolution.
    pub fn of_layer(layer: &packed::Layer, threads: usize, plane: usize) -> (Planes, Vec<usize>) {
        match layer {
            packed::Layer::Planes(pointwise, spatial) => (
                Planes::new(pointwise, threads, plane),
                spatial.units.iter().map(|unit| unit.outputs).collect(),
            ),
            packed::Layer::Blocks(pointwise, spatial) => (
                Planes::blocks(pointwise, threads, plane),
                spatial.units.iter().map(|unit| unit.outputs).collect(),
            ),
        }
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
pub(super) fn numbered(counts: impl Iterator<Item = usize>) -> Vec<[usize; 2]> {
    counts.enumerate().flat_map(|(thread, count)| (0..count).map(move |number| [thread, number])).collect()
}
