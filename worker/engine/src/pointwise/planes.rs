//! The 1×1 convolution with vectors of pixels: a panel of a few vectors of every input of a group, normalised and rectified, lies in
//! the first-level cache while the group's outputs are summed up over it.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::layout::Runs;
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
    /// Scale and shift of each.
    norm: Vec<[f32; 2]>,
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
        let groups = conv.groups.iter().map(|group| Group {
            inputs: group.inputs.clone(),
            norm: group.norm.scale.iter().zip(&group.norm.shift).map(|(&a, &b)| [a, b]).collect(),
        });
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
        for units in units.chunk_by(|a, b| a.group == b.group) {
            let low = units.iter().all(|unit| unit.height == 4);
            let most = if many && low { 6 } else { 3 };
            for run in 0..self.runs.count {
                for (at, vectors) in stretches(self.runs.vectors, most) {
                    let at = (run, at * S::F32_LANES);
                    match vectors {
                        1 => self.stretch::<S, 1>(simd, units, first, at),
                        2 => self.stretch::<S, 2>(simd, units, first, at),
                        3 => self.stretch::<S, 3>(simd, units, first, at),
                        4 => self.stretch::<S, 4>(simd, units, first, at),
                        5 => self.stretch::<S, 5>(simd, units, first, at),
                        _ => self.stretch::<S, 6>(simd, units, first, at),
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
        (run, at): (usize, usize),
    ) {
        let group = &self.conv.groups[units[0].group];
        let floats = group.inputs.len() * V * S::F32_LANES;
        if self.panel.len() < floats {
            self.panel.resize(floats, 0.0);
        }
        let panel = &mut self.panel[..floats];
        self::panel::<S, V>(
            simd,
            panel,
            group,
            self.features,
            self.places,
            self.runs.from + run * self.runs.from_step + at,
        );
        let (panel, _) = S::as_simd_f32s(panel).0.as_chunks::<V>();
        let floor = simd.splat_f32s(self.floor);
        let mut number = first;
        for unit in units {
            let to = &mut self.to[number * self.plane..][..unit.outputs * self.plane];
            let at = self.runs.to + run * self.runs.to_step + at;
            let weights = unit.weights.get();
            if unit.height == 4 {
                let results = sums::<S, 4, V>(simd, weights.as_chunks().0, panel);
                put(simd, to, self.plane, at, floor, &unit.bias, &results);
            } else if S::REGISTER_COUNT >= 32 {
                let results = sums::<S, 8, V>(simd, weights.as_chunks().0, panel);
                put(simd, to, self.plane, at, floor, &unit.bias, &results);
            } else {
                let halves = weights.as_chunks::<8>().0;
                let results = half_sums::<S, 0, V>(simd, halves, panel);
                put(simd, to, self.plane, at, floor, &unit.bias, &results);
                let results = half_sums::<S, 4, V>(simd, halves, panel);
                put(simd, &mut to[4 * self.plane..], self.plane, at, floor, &unit.bias[4..], &results);
            }
            number += unit.outputs;
        }
    }
}

/// relu(scale·x + shift) of the inputs of a group.
#[inline(always)]
fn panel<S: Simd, const V: usize>(
    simd: S,
    panel: &mut [f32],
    group: &Group,
    features: &[&[f32]],
    places: &[Place],
    at: usize,
) {
    let zero = simd.splat_f32s(0.0);
    let (panel, _) = S::as_mut_simd_f32s(panel).0.as_chunks_mut::<V>();
    for ((row, &input), &[scale, shift]) in panel.iter_mut().zip(&group.inputs).zip(&group.norm) {
        let from: [S::f32s; V] = load(simd, places[input].of(features, at));
        let (scale, shift) = (simd.splat_f32s(scale), simd.splat_f32s(shift));
        for v in 0..V {
            row[v] = simd.max_f32s(simd.mul_add_e_f32s(scale, from[v], shift), zero);
        }
    }
}

/// Sums of four rows of tiles of eight.
#[inline(always)]
fn half_sums<S: Simd, const FIRST: usize, const V: usize>(
    simd: S,
    weights: &[[f32; 8]],
    panel: &[[S::f32s; V]],
) -> [[S::f32s; V]; 4] {
    let mut sums = [[simd.splat_f32s(0.0); V]; 4];
    for (weights, pixels) in weights.iter().zip(panel) {
        for r in 0..4 {
            let weight = simd.splat_f32s(weights[FIRST + r]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[r][v]);
            }
        }
    }
    sums
}

/// Writes rows that there are, with their bias, at `at` of their planes.
#[inline(always)]
fn put<S: Simd, const R: usize, const V: usize>(
    simd: S,
    to: &mut [f32],
    plane: usize,
    at: usize,
    floor: S::f32s,
    bias: &[f32],
    results: &[[S::f32s; V]; R],
) {
    for (r, to) in to.chunks_exact_mut(plane).enumerate().take(R) {
        let bias = simd.splat_f32s(bias[r]);
        let mut row = results[r];
        for v in 0..V {
            row[v] = simd.max_f32s(simd.add_f32s(row[v], bias), floor);
        }
        store::<S, V>(&mut to[at..], row);
    }
}
