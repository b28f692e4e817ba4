//! The 1×1 convolution with vectors of outputs, for small maps: a few pixels by two vectors of outputs at a time, each input broadcast
//! from a panel of clipped pixels; or by four vectors, each input clipped on its way from its plane. Weights are read in their order.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::{Buffer, Weights};
use crate::instructions::Core;
use crate::layout::{Along, BLOCK, Layout};
use crate::network;
use crate::place::Place;
use crate::pointwise::blocks::Blocks;
use crate::pointwise::clip::Clips;
use crate::prefetch::{Ahead, prefetch_line};
use crate::rows::{Rows, Window};
use crate::tile::{outer_clipped, outer_panel};

/// Vectors of a wide tile of sums.
const WIDE: usize = 4;

/// A 1×1 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Pointwise {
    groups: Vec<Clips>,
    /// The pieces of its work, by groups.
    pub units: Vec<Unit>,
    /// Of all channels that it gives: the block of the middle, and the place in it.
    pub order: Vec<(usize, usize)>,
    weights: Weights,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    group: usize,
    /// Blocks of the middle that it makes.
    pub blocks: usize,
    /// Vectors of outputs.
    vectors: usize,
    /// How many of them go into a tile of sums: 1, 2 or, for all units of a group, `WIDE`.
    tile: usize,
    /// Where its bias and its weights begin: for each tile of vectors, [1 + inputs][outputs]
    weights: usize,
}

impl Pointwise {
    /// `side`: channels of a block of the middle.
    pub fn new(conv: &network::Pointwise, side: usize, core: Core) -> Pointwise {
        let lanes = core.lanes;
        let (mut units, mut order, mut weights) = (Vec::new(), vec![(0, 0); conv.outputs], Vec::new());
        let (mut block, mut groups) = (0, Vec::new());
        for (g, group) in conv.groups.iter().enumerate() {
            let (clips, folded) = Clips::new(group);
            groups.push(clips);
            let all: Vec<usize> = (0..group.outputs.len()).collect();
            // Where clips cost nothing, many outputs, of long vectors, are worth clipping inputs for each tile of them.
            let wide = core.beside && lanes == 16 && all.len().is_multiple_of(WIDE * lanes);
            let most = if wide { WIDE } else { 2 };
            for rows in all.chunks((most * lanes).max(BLOCK)) {
                let width = rows.len().next_multiple_of(side.max(lanes));
                let blocks = width / side;
                for (i, &row) in rows.iter().enumerate() {
                    order[group.outputs[row]] = (block + i / side, i % side);
                }
                block += blocks;
                let inputs = group.inputs.len();
                let vectors = width / lanes;
                let tile = if vectors.is_multiple_of(most) { most } else { 1 };
                units.push(Unit { group: g, blocks, vectors, tile, weights: weights.len() });
                for first in (0..width).step_by(tile * lanes) {
                    let row = |f: &dyn Fn(usize) -> f32| {
                        let rows = (first..first + tile * lanes).map(|i| rows.get(i));
                        rows.map(|row| row.map_or(0.0, |&row| f(row))).collect::<Vec<f32>>()
                    };
                    weights.extend(row(&|row| folded.bias[row]));
                    (0..inputs)
                        .for_each(|input| weights.extend(row(&|row| folded.weights[row * inputs + input])));
                }
            }
        }
        Pointwise { groups, units, order, weights: Weights::from(weights.as_slice()) }
    }
}

impl Pointwise {
    /// All weights.
    pub fn weights(&mut self) -> &mut Weights {
        &mut self.weights
    }
}

/// What a thread does of a convolution.
pub(crate) struct Work<'a> {
    pub conv: &'a Pointwise,
    pub units: Range<usize>,
    /// Everybody's features, and where each channel lies.
    pub features: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub layout: &'a Layout,
    /// Where each pixel lies in a block of the middle.
    pub pixels: &'a [u32],
    /// Blocks of its outputs, one after another.
    pub to: &'a mut [f32],
    pub panel: &'a mut Buffer,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.layout.along {
            Along::Channels(4) | Along::Squares(4) => self.blocks::<S, 4>(simd),
            Along::Channels(8) | Along::Squares(8) => self.blocks::<S, 8>(simd),
            _ => self.blocks::<S, BLOCK>(simd),
        }
    }
}

impl Work<'_> {
    /// To blocks of `B` channels.
    #[inline(always)]
    fn blocks<S: Simd, const B: usize>(self, simd: S) {
        match S::F32_LANES {
            16 => self.tiles::<S, 7, 16, 1, B>(simd),
            // As few as can be in the last tile; smaller maps have more inputs.
            8 if self.pixels.len() < 64 => self.tiles::<S, 5, 16, 2, B>(simd),
            8 => self.tiles::<S, 6, 24, 3, B>(simd),
            _ => self.tiles::<S, 4, 16, 4, B>(simd),
        }
    }

    /// `X` pixels at a time, out of a panel of `P`, which are `V` vectors: those of all inputs of a group lie in the first-level cache, while
    /// the group's weights stream by.
    #[inline(always)]
    fn tiles<S: Simd, const X: usize, const P: usize, const V: usize, const B: usize>(self, simd: S) {
        let Work { conv, units, features, places, layout, pixels, to, panel } = self;
        let (most, tiles) = (P / X * X, pixels.len().div_ceil(X));
        let plane = |&input: &usize| places[input].of(features, 0);
        let mut planes = Rows::new(pixels.len().next_multiple_of(most) - most + P);
        let mut to = to;
        let mut groups = conv.units[units].chunk_by(|a, b| a.group == b.group).peekable();
        while let Some(units) = groups.next() {
            let clips = &conv.groups[units[0].group];
            planes.clear();
            planes.extend(clips.inputs.iter().map(plane));
            let blocks: usize = units.iter().map(|unit| unit.blocks).sum();
            let (own, rest) = to.split_at_mut(blocks * layout.middle_plane);
            to = rest;
            let mut made = Blocks::<B>::new(own, layout.middle_plane, pixels);
            let weights = &conv.weights.get()[units[0].weights..];
            let columns: Vec<Column<'_>> =
                columns(units, weights, clips.inputs.len(), S::F32_LANES).collect();
            if units[0].tile == WIDE {
                for (column, first) in columns.iter().flat_map(|c| (0..tiles).map(move |tile| (c, tile * X)))
                {
                    column.clipped::<S, X, B>(simd, planes.window(first, X), clips, &mut made, first);
                }
                continue;
            }
            let floats: usize = columns.iter().map(|column| column.weights.len()).sum();
            let mut ahead = Ahead::new(&weights[floats..], floats, columns.len() * tiles);
            let next = groups.peek().map_or(&[][..], |units| &conv.groups[units[0].group].inputs);
            let panel = panel.room(clips.inputs.len() * P);
            for first in (0..pixels.len()).step_by(most) {
                let count = most.min(pixels.len() - first);
                fill::<S, V>(simd, panel, planes.window(first, P), clips, most);
                if first + count == pixels.len() {
                    next.iter().for_each(|input| prefetch_line(plane(input).as_ptr()));
                }
                let panel = panel.as_chunks::<P>().0;
                for column in &columns {
                    for from in (0..count).step_by(X) {
                        ahead.step();
                        match column.vectors {
                            1 => column.sums::<S, X, 1, P, B>(simd, panel, from, &mut made, first + from),
                            _ => column.sums::<S, X, 2, P, B>(simd, panel, from, &mut made, first + from),
                        }
                    }
                }
            }
        }
    }
}

/// Some pixels of each input, clipped; of what comes `most` pixels later, the end is asked for.
#[inline(always)]
fn fill<S: Simd, const V: usize>(simd: S, panel: &mut [f32], planes: Window<'_>, clips: &Clips, most: usize) {
    let panel = S::as_mut_simd_f32s(panel).0.as_chunks_mut::<V>().0;
    let (up, down) = panel.split_at_mut(clips.rising);
    let limits = clips.limits.split_at(clips.rising);
    let planes = planes.split_at(clips.rising);
    clip::<S, V, true>(simd, up, planes.0, limits.0, most);
    clip::<S, V, false>(simd, down, planes.1, limits.1, most);
}

/// Inputs that are held from below, or from above.
#[inline(always)]
fn clip<S: Simd, const V: usize, const RISING: bool>(
    simd: S,
    to: &mut [[S::f32s; V]],
    planes: Window<'_>,
    limits: &[f32],
    most: usize,
) {
    for (k, ((pixels, &limit), to)) in planes.vectors::<S, V>(simd).zip(limits).zip(to).enumerate() {
        let limit = simd.splat_f32s(limit);
        for v in 0..V {
            to[v] = if RISING { simd.max_f32s(pixels[v], limit) } else { simd.min_f32s(pixels[v], limit) };
        }
        planes.ahead(k, most + V * S::F32_LANES - 1);
    }
}

/// The tiles of sums that a group's outputs go into.
#[inline(always)]
fn columns<'a>(
    units: &'a [Unit],
    weights: &'a [f32],
    inputs: usize,
    lanes: usize,
) -> impl Iterator<Item = Column<'a>> {
    let tiles = units.iter().flat_map(|unit| (0..unit.vectors / unit.tile).map(|_| unit.tile));
    tiles.scan((weights, 0), move |(left, first), vectors| {
        let (weights, rest) = left.split_at((1 + inputs) * vectors * lanes);
        let column = Column { first: *first, vectors, weights };
        (*left, *first) = (rest, *first + vectors * lanes);
        Some(column)
    })
}

/// Some vectors of outputs of a group.
struct Column<'a> {
    /// The first output, counted in the order of the units.
    first: usize,
    vectors: usize,
    /// Bias and weights: [1 + inputs][outputs]
    weights: &'a [f32],
}

impl Column<'_> {
    /// `X` pixels from `from` on of a panel; they become those from `first` on of all.
    #[inline(always)]
    fn sums<S: Simd, const X: usize, const N: usize, const P: usize, const B: usize>(
        &self,
        simd: S,
        panel: &[[f32; P]],
        from: usize,
        to: &mut Blocks<'_, B>,
        first: usize,
    ) {
        let Some((bias, weights)) = S::as_simd_f32s(self.weights).0.as_chunks::<N>().0.split_first() else {
            return;
        };
        let mut sums = [*bias; X];
        outer_panel::<S, X, N, P>(simd, &mut sums, panel, from, weights);
        to.put::<S, X, N>(simd, &sums, self.first, first);
    }

    /// `X` pixels of planes, clipped on their way; they become those from `first` on of all.
    #[inline(always)]
    fn clipped<S: Simd, const X: usize, const B: usize>(
        &self,
        simd: S,
        planes: Window<'_>,
        clips: &Clips,
        to: &mut Blocks<'_, B>,
        first: usize,
    ) {
        let Some((bias, weights)) = S::as_simd_f32s(self.weights).0.as_chunks::<WIDE>().0.split_first()
        else {
            return;
        };
        let mut sums = [*bias; X];
        outer_clipped::<S, X, WIDE>(simd, &mut sums, planes, clips.rising, &clips.limits, weights);
        to.put::<S, X, WIDE>(simd, &sums, self.first, first);
    }
}
