//! The 3×3 convolution with vectors of outputs, on blocks of channels: what its two ways share, directly (`channels.rs`) and in squares of
//! pixels (`squares.rs`).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::{Buffer, Weights};
use crate::instructions::Core;
use crate::layout::{Along, Layout};
use crate::network;
use crate::place::Place;
use crate::spatial::{channels, squares};

/// Taps of a kernel.
pub(super) const TAPS: usize = 9;

/// A 3×3 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Spatial {
    /// Inputs of a group.
    pub(super) inputs: usize,
    /// Of each group, its inputs in the order in which they lie in the middle.
    channels: Vec<usize>,
    /// The pieces of its work.
    pub units: Vec<Unit>,
    weights: Weights,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(super) group: usize,
    /// How many there are.
    pub outputs: usize,
    /// Vectors that hold them: 1 or 2.
    pub(super) vectors: usize,
    /// Where its weights begin, in the order of its way.
    weights: usize,
}

impl Spatial {
    /// `order`: where the channels of the middle lie.
    pub fn new(conv: &network::Spatial, order: &[(usize, usize)], along: Along, core: Core) -> Spatial {
        let (inputs, outputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
        let squares = matches!(along, Along::Squares(_));
        let lanes = core.lanes;
        let most = if squares { squares::MOST } else { channels::most(core.many_registers) };
        let (mut channels, mut units, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for group in 0..conv.groups {
            let mut own: Vec<usize> = (group * inputs..(group + 1) * inputs).collect();
            own.sort_unstable_by_key(|&channel| order[channel]);
            let mut first = 0;
            while first < outputs {
                let vectors = ((outputs - first) / lanes).clamp(1, most);
                let count = (vectors * lanes).min(outputs - first);
                units.push(Unit { group, outputs: count, vectors, weights: weights.len() });
                let taps = |channel: usize, output: usize| {
                    let row = (group * outputs + first + output) * inputs + channel % inputs;
                    (output < count).then(|| &conv.weights[row * TAPS..][..TAPS])
                };
                weights.extend(match along {
                    Along::Squares(_) => squares::pack(&own, vectors * lanes, taps),
                    _ => channels::pack(&own, vectors * lanes, taps),
                });
                first += count;
            }
            channels.extend(own);
        }
        Spatial { inputs, channels, units, weights: Weights::from(weights.as_slice()) }
    }

    /// All weights.
    pub fn weights(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// The inputs of a unit.
    pub(super) fn seen(&self, unit: &Unit) -> &[usize] {
        &self.channels[unit.group * self.inputs..][..self.inputs]
    }

    /// The weights of a unit, and of those after it.
    pub(super) fn own(&self, unit: &Unit) -> &[f32] {
        &self.weights.get()[unit.weights..]
    }
}

/// What a thread does of a convolution.
pub(crate) struct Work<'a> {
    pub conv: &'a Spatial,
    pub units: Range<usize>,
    /// Everybody's blocks of the middle, and where each channel lies.
    pub middle: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub layout: &'a Layout,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
    /// For tiles and sums.
    pub scratch: &'a mut Buffer,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layout.along {
            Along::Squares(_) => squares::convolve(simd, self),
            _ => channels::convolve(simd, self),
        }
    }
}
