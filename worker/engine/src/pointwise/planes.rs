//! The 1×1 convolution with vectors of pixels: a few vectors of every input of a group, clipped on the way into the registers.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::instructions::Core;
use crate::layout::{Layout, Run};
use crate::network;
use crate::place::Place;
use crate::pointwise::clip::{Clips, Folded};
use crate::rows::{Rows, Window};
use crate::tile::{add, add_kept, clip, runs, store};

/// A 1×1 convolution as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Pointwise {
    groups: Vec<Clips>,
    /// The pieces of its work, by groups.
    pub units: Vec<Unit>,
    /// Where the channels lie, of all those that it gives, counted in the order of the units.
    pub order: Vec<usize>,
    /// Whether what a tile has clipped is kept for the others of its group.
    keep: bool,
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
    pub fn new(conv: &network::Pointwise, core: Core) -> Pointwise {
        let (mut groups, mut units) = (Vec::new(), Vec::new());
        let mut order = vec![0; conv.outputs];
        let mut number = 0;
        for (g, group) in conv.groups.iter().enumerate() {
            let (clips, folded) = Clips::new(group);
            groups.push(clips);
            let all: Vec<usize> = (0..group.outputs.len()).collect();
            for rows in all.chunks(8) {
                let height = if rows.len() <= 4 { 4 } else { 8 };
                units.push(Unit::new(g, &folded, rows, height));
                for &row in rows {
                    order[group.outputs[row]] = number;
                    number += 1;
                }
            }
        }
        // Where registers are few, a group has many small tiles, which read what is kept in fewer instructions than they clip it anew.
        Pointwise { groups, units, order, keep: !(core.beside && core.many_registers) }
    }
}

impl Unit {
    fn new(number: usize, group: &Folded, rows: &[usize], height: usize) -> Unit {
        let inputs = group.weights.len() / group.bias.len();
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

/// A band of rows of the middle, and the zeros around it.
pub(crate) struct Band<'a> {
    pub conv: &'a Pointwise,
    pub units: Range<usize>,
    /// What it is made of, from above.
    pub pieces: &'a [Piece<'a>],
    /// Where each channel lies in the features of each piece.
    pub places: &'a [Place],
    pub layout: &'a Layout,
    /// Whether its first rows are those of the band before, and whether nothing is below it.
    pub carried: bool,
    pub last: bool,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
    /// For clipped inputs.
    pub panel: &'a mut Buffer,
}

/// Rows of the features.
pub(crate) struct Piece<'a> {
    pub features: &'a [&'a [f32]],
    pub rows: Range<usize>,
    /// Where the first of them comes to lie, counted from the row above the band.
    pub first: usize,
}

impl WithSimd for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Band { conv, units, pieces, places, layout, carried, last, to, panel } = self;
        for plane in to.chunks_exact_mut(layout.middle_plane) {
            if carried {
                layout.carry(plane);
            } else {
                layout.begin(plane);
            }
        }
        for &Piece { features, ref rows, first } in pieces {
            let work = Work {
                conv,
                units: units.clone(),
                features,
                places,
                run: layout.middle_run(rows, first),
                floor: 0.0,
                to: &mut *to,
                plane: layout.middle_plane,
                panel: &mut *panel,
            };
            work.with_simd(simd);
        }
        let (first, count) = (pieces[0].first, pieces.iter().map(|piece| piece.rows.len()).sum());
        for plane in to.chunks_exact_mut(layout.middle_plane) {
            layout.pad(plane, first, count, last);
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
    pub run: Run,
    /// The smallest that a result may be: 0, or nothing.
    pub floor: f32,
    /// Planes of its outputs, one after another.
    pub to: &'a mut [f32],
    /// Floats from plane to plane.
    pub plane: usize,
    /// For clipped inputs.
    pub panel: &'a mut Buffer,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Work { conv, units, features, places, run, floor, to, plane, panel } = self;
        let mut made = Made { conv, run, floor, to, plane };
        let units = &conv.units[units];
        let many = S::REGISTER_COUNT >= 32;
        let Run { vectors, from, .. } = run;
        let mut first = 0;
        let mut inputs = Rows::new(vectors * S::F32_LANES);
        for units in units.chunk_by(|a, b| a.group == b.group) {
            let clips = &conv.groups[units[0].group];
            inputs.clear();
            inputs.extend(clips.inputs.iter().map(|&channel| places[channel].of(features, from)));
            let low = units.iter().all(|unit| unit.height == 4);
            let most = if many && low { 6 } else { 3 };
            let keep = conv.keep && (units.len() > 1 || !low && !many);
            let panel = panel.room(if keep { clips.inputs.len() * most * S::F32_LANES } else { 0 });
            for (at, vectors, count) in runs(vectors, most) {
                let at = at * S::F32_LANES;
                macro_rules! run {
                    ($vectors:literal) => {
                        if keep {
                            made.run::<S, $vectors, true>(simd, units, first, &inputs, panel, (at, count))
                        } else {
                            made.run::<S, $vectors, false>(simd, units, first, &inputs, panel, (at, count))
                        }
                    };
                }
                match vectors {
                    1 => run!(1),
                    2 => run!(2),
                    3 => run!(3),
                    4 => run!(4),
                    5 => run!(5),
                    _ => run!(6),
                }
            }
            first += units.iter().map(|unit| unit.outputs).sum::<usize>();
        }
    }
}

/// Where its outputs go.
struct Made<'a> {
    conv: &'a Pointwise,
    run: Run,
    floor: f32,
    to: &'a mut [f32],
    plane: usize,
}

impl Made<'_> {
    /// The outputs of some units of a group, `V` vectors at a time: `count` times from `at` on. `KEEP`: clipped inputs are kept in the panel,
    /// for all units.
    #[inline(always)]
    fn run<S: Simd, const V: usize, const KEEP: bool>(
        &mut self,
        simd: S,
        units: &[Unit],
        first: usize,
        inputs: &Rows<'_>,
        panel: &mut [f32],
        (at, count): (usize, usize),
    ) {
        if let ([unit], false) = (units, KEEP) {
            if unit.height == 4 {
                return self.tiles::<S, 4, V>(simd, unit, first, inputs, (at, count));
            } else if S::REGISTER_COUNT >= 32 && V <= 3 {
                return self.tiles::<S, 8, V>(simd, unit, first, inputs, (at, count));
            }
        }
        let floor = simd.splat_f32s(self.floor);
        let clips = &self.conv.groups[units[0].group];
        let kept = S::as_mut_simd_f32s(panel).0.as_chunks_mut::<V>().0;
        for at in (0..count).map(|i| at + i * V * S::F32_LANES) {
            let mut source = Source { clips, inputs: inputs.window(at, V * S::F32_LANES), kept: &mut *kept };
            let at = self.run.to + at;
            let mut number = first;
            for unit in units {
                let leads = number == first;
                let to = &mut self.to[number * self.plane..][..unit.outputs * self.plane];
                if unit.height == 4 {
                    let results = source.sums::<4, 4, 0, KEEP>(simd, unit, leads);
                    put(simd, floor, to, self.plane, at, unit.outputs, results);
                } else if S::REGISTER_COUNT >= 32 && V <= 3 {
                    let results = source.sums::<8, 8, 0, KEEP>(simd, unit, leads);
                    put(simd, floor, to, self.plane, at, unit.outputs, results);
                } else {
                    let results = source.sums::<4, 8, 0, KEEP>(simd, unit, leads);
                    put(simd, floor, to, self.plane, at, unit.outputs, results);
                    let results = source.sums::<4, 8, 4, KEEP>(simd, unit, false);
                    put(simd, floor, &mut to[4 * self.plane..], self.plane, at, unit.outputs - 4, results);
                }
                number += unit.outputs;
            }
        }
    }

    /// The `R` outputs of the only unit of a group, likewise. What is the same for all tiles is looked up once: of few inputs, a tile costs
    /// little more.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        unit: &Unit,
        first: usize,
        inputs: &Rows<'_>,
        (from, count): (usize, usize),
    ) {
        let floats = V * S::F32_LANES;
        let Clips { limits, rising, .. } = &self.conv.groups[unit.group];
        let inputs = inputs.window(from, count * floats).split_at(*rising);
        let limits = limits.split_at(*rising);
        let weights = unit.weights.get().as_chunks::<R>().0.split_at(*rising);
        let (bias, floor) = (&unit.bias[..R], simd.splat_f32s(self.floor));
        let (plane, start) = (self.plane, self.run.to + from);
        let to = &mut self.to[first * plane..][..unit.outputs * plane];
        for at in (0..count).map(|i| i * floats) {
            let mut sums: [[S::f32s; V]; R] = std::array::from_fn(|r| [simd.splat_f32s(bias[r]); V]);
            macro_rules! add {
                ($kind:expr, $side:tt) => {
                    add::<S, R, R, 0, V, { $kind | clip::AHEAD }>(
                        simd,
                        &mut sums,
                        inputs.$side.part(at, floats),
                        limits.$side,
                        &mut [],
                        weights.$side,
                    );
                };
            }
            add!(clip::RISING, 0);
            add!(clip::FALLING, 1);
            put(simd, floor, to, plane, start + at, unit.outputs, sums);
        }
    }
}

/// What the outputs of a group are made of.
struct Source<'a, S: Simd, const V: usize> {
    clips: &'a Clips,
    inputs: Window<'a>,
    /// Clipped, of each input.
    kept: &'a mut [[S::f32s; V]],
}

impl<S: Simd, const V: usize> Source<'_, S, V> {
    /// bias[row] + Σ over inputs of weights[input][row] · clipped input[vector], for `R` rows from `FIRST` on of a unit of `HEIGHT`.
    /// `leads`: it is the first tile of its vectors: it brings those that follow closer and, with `KEEP`, keeps what it has clipped; with
    /// `KEEP`, the other tiles read that.
    #[inline(always)]
    fn sums<const R: usize, const HEIGHT: usize, const FIRST: usize, const KEEP: bool>(
        &mut self,
        simd: S,
        unit: &Unit,
        leads: bool,
    ) -> [[S::f32s; V]; R] {
        let bias = &unit.bias[FIRST..][..R];
        let mut sums: [[S::f32s; V]; R] = std::array::from_fn(|r| [simd.splat_f32s(bias[r]); V]);
        let weights = unit.weights.get().as_chunks::<HEIGHT>().0;
        let Clips { limits, rising, inputs } = self.clips;
        if KEEP && !leads {
            let kept = &self.kept[..inputs.len()];
            add_kept::<S, R, HEIGHT, FIRST, V>(simd, &mut sums, kept, weights);
            return sums;
        }
        let (inputs, limits, weights) =
            (self.inputs.split_at(*rising), limits.split_at(*rising), weights.split_at(*rising));
        let kept: (&mut [_], &mut [_]) =
            if KEEP { self.kept.split_at_mut(*rising) } else { (&mut [], &mut []) };
        macro_rules! add {
            ($besides:expr) => {
                add::<S, R, HEIGHT, FIRST, V, { clip::RISING | $besides }>(
                    simd, &mut sums, inputs.0, limits.0, kept.0, weights.0,
                );
                add::<S, R, HEIGHT, FIRST, V, { clip::FALLING | $besides }>(
                    simd, &mut sums, inputs.1, limits.1, kept.1, weights.1,
                );
            };
        }
        if KEEP {
            add!(clip::AHEAD | clip::KEEP);
        } else if leads {
            add!(clip::AHEAD);
        } else {
            add!(clip::NONE);
        }
        sums
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
