//! The 1×1 convolution with vectors of pixels: a panel of a few vectors of every input of a group, normalised and rectified, lies in
//! the first-level cache while the group's outputs are summed up over it.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::{Layout, Runs};
use crate::network;
use crate::place::Place;
use crate::tile::{load, store, stretches, sums};

/// A 1×1 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Pointwise {
    groups: Vec<Group>,
    /// The pieces of its work, by groups.
    pub units: Vec<Unit>,
    /// Where the channels lie, of all those that it gives, counted in the order of the units.
    pub order: Vec<usize>,
}

#[derive(Debug)]
struct Group {
    inputs: Vec<usize>,
    norm: network::Norm,
}

/// Some outputs of a group.
#[derive(Debug)]
pub(crate) struct Unit {
    group: usize,
    /// How many there are; at most `height`.
    pub outputs: usize,
    /// Rows of the tile: 4 or 8.
    height: usize,
    /// [inputs][height]
    weights: Buffer,
    bias: Vec<f32>,
}

impl Pointwise {
    pub fn new(conv: &network::Pointwise) -> Pointwise {
        let mut units = Vec::new();
        let mut order = vec![0; conv.outputs];
        let mut number = 0;
        for (g, group) in conv.groups.iter().enumerate() {
            let all: Vec<usize> = (0..group.outputs.len()).collect();
            for rows in all.chunks(8) {
                let height = if rows.len() <= 4 { 4 } else { 8 };
                units.push(Unit::new(g, group, rows, height));
                for &row in rows {
                    order[group.outputs[row]] = number;
                    number += 1;
                }
            }
        }
        let groups =
            conv.groups.iter().map(|group| Group { inputs: group.inputs.clone(), norm: group.norm.clone() });
        Pointwise { groups: groups.collect(), units, order }
    }
}

impl Unit {
    fn new(number: usize, group: &network::Group, rows: &[usize], height: usize) -> Unit {
        let inputs = group.inputs.len();
        let mut weights = vec![0.0; inputs * height];
        let mut bias = vec![0.0; height];
        for (r, &row) in rows.iter().enumerate() {
            for input in 0..inputs {
                weights[input * height + r] = group.weights[row * inputs + input];
            }
            bias[r] = group.bias[row];
        }
        Unit { group: number, outputs: rows.len(), height, weights: Buffer::from(weights.as_slice()), bias }
    }
}

/// A band of rows of the middle: what [`Work`] makes, and the zeros around it.
pub(crate) struct Band<'a> {
    pub work: Work<'a>,
    pub layout: &'a Layout,
    pub rows: Range<usize>,
    /// Where the first of them lies, counted from the row above the band.
    pub first: usize,
    /// Whether there is a band before, and whether there is none after.
    pub carried: bool,
    pub last: bool,
}

impl WithSimd for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Band { work, layout, rows, first, carried, last } = self;
        let Work { conv, units, features, places, runs, floor, to, plane, panel } = work;
        for plane in to.chunks_exact_mut(plane) {
            if carried {
                layout.carry(plane, layout.band);
            } else {
                plane[..layout.middle_stride].fill(0.0);
            }
        }
        Work { conv, units, features, places, runs, floor, to: &mut *to, plane, panel }.with_simd(simd);
        for plane in to.chunks_exact_mut(plane) {
            layout.pad(plane, first, rows.len(), last);
        }
    }
}

/// What a thread does of a convolution.
pub(crate) struct Work<'a> {
    pub conv: &'a Pointwise,
    pub units: Range<usize>,
    /// Everybody's features, and where each channel lies.
    pub features: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub runs: Runs,
    /// The smallest that a result may be: 0, or nothing.
    pub floor: f32,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
    /// Floats from plane to plane.
    pub plane: usize,
    pub panel: &'a mut Vec<f32>,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let units = &self.conv.units[self.units.clone()];
        let many = S::REGISTER_COUNT >= 32;
        let mut first = 0;
        let mut inputs = Vec::new();
        for units in units.chunk_by(|a, b| a.group == b.group) {
            let channels = self.conv.groups[units[0].group].inputs.iter();
            inputs.clear();
            inputs.extend(channels.map(|&channel| self.places[channel].of(self.features, self.runs.from)));
            let low = units.iter().all(|unit| unit.height == 4);
            let most = match self.runs.vectors {
                _ if many && low => 6,
                4 => 4,
                _ => 3,
            };
            for run in 0..self.runs.count {
                for (at, vectors) in stretches(self.runs.vectors, most) {
                    let at = (run, at * S::F32_LANES);
                    match vectors {
                        1 => self.stretch::<S, 1>(simd, units, first, &inputs, at),
                        2 => self.stretch::<S, 2>(simd, units, first, &inputs, at),
                        3 => self.stretch::<S, 3>(simd, units, first, &inputs, at),
                        4 => self.stretch::<S, 4>(simd, units, first, &inputs, at),
                        5 => self.stretch::<S, 5>(simd, units, first, &inputs, at),
                        _ => self.stretch::<S, 6>(simd, units, first, &inputs, at),
                    }
                }
            }
            first += units.iter().map(|unit| unit.outputs).sum::<usize>();
        }
    }
}

impl Work<'_> {
    /// `V` vectors of the outputs of some units of a group.
    #[inline(always)]
    fn stretch<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        units: &[Unit],
        first: usize,
        inputs: &[&[f32]],
        (run, at): (usize, usize),
    ) {
        let group = &self.conv.groups[units[0].group];
        let floats = group.inputs.len() * V * S::F32_LANES;
        if self.panel.len() < floats {
            self.panel.resize(floats, 0.0);
        }
        let panel = &mut self.panel[..floats];
        self::panel::<S, V>(simd, panel, group, inputs, run * self.runs.from_step + at);
        let (panel, _) = S::as_simd_f32s(panel).0.as_chunks::<V>();
        let floor = simd.splat_f32s(self.floor);
        let mut number = first;
        for unit in units {
            let to = &mut self.to[number * self.plane..][..unit.outputs * self.plane];
            let at = self.runs.to + run * self.runs.to_step + at;
            let weights = unit.weights.get();
            if unit.height == 4 {
                let results = sums::<S, 4, 4, 0, V>(simd, &unit.bias, weights, panel);
                put(simd, floor, to, self.plane, at, unit.outputs, results);
            } else if S::REGISTER_COUNT >= 32 && V <= 3 {
                let results = sums::<S, 8, 8, 0, V>(simd, &unit.bias, weights, panel);
                put(simd, floor, to, self.plane, at, unit.outputs, results);
            } else {
                let results = sums::<S, 4, 8, 0, V>(simd, &unit.bias, weights, panel);
                put(simd, floor, to, self.plane, at, unit.outputs, results);
                let results = sums::<S, 4, 8, 4, V>(simd, &unit.bias, weights, panel);
                put(simd, floor, &mut to[4 * self.plane..], self.plane, at, unit.outputs - 4, results);
            }
            number += unit.outputs;
        }
    }
}

/// relu(scale·x + shift) of the inputs of a group.
#[inline(always)]
fn panel<S: Simd, const V: usize>(simd: S, panel: &mut [f32], group: &Group, inputs: &[&[f32]], at: usize) {
    let zero = simd.splat_f32s(0.0);
    let (panel, _) = S::as_mut_simd_f32s(panel).0.as_chunks_mut::<V>();
    let norm = group.norm.scale.iter().zip(&group.norm.shift);
    for ((row, &input), (scale, shift)) in panel.iter_mut().zip(inputs).zip(norm) {
        let from: [S::f32s; V] = load(simd, &input[at..]);
        let (scale, shift) = (simd.splat_f32s(*scale), simd.splat_f32s(*shift));
        for v in 0..V {
            row[v] = simd.max_f32s(simd.mul_add_e_f32s(scale, from[v], shift), zero);
        }
    }
}

/// Writes the first `count` rows at `at` of their planes, none smaller than `floor`.
#[inline(always)]
fn put<S: Simd, const R: usize, const V: usize>(
    simd: S,
    floor: S::f32s,
    to: &mut [f32],
    plane: usize,
    at: usize,
    count: usize,
    mut results: [[S::f32s; V]; R],
) {
    for r in 0..R {
        for v in 0..V {
            results[r][v] = simd.max_f32s(results[r][v], floor);
        }
        if r < count {
            store::<S, V>(&mut to[r * plane + at..], results[r]);
        }
    }
}
