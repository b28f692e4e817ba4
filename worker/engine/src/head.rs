//! After the last block: batch norm, ReLU, the mean of each channel, the classifier.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::buffer::Weights;
use crate::layout::Layout;
use crate::network::{Classifier, Norm};
use crate::place::Place;
use crate::tile::{load, store};

/// Vectors of classes of a tile.
const VECTORS: usize = 4;

/// The head as its inner loops read it.
#[derive(Debug)]
pub(crate) struct Head {
    /// The channels that the classifier sees, and the last batch norm of each.
    inputs: Vec<(usize, [f32; 2])>,
    /// Classes of a tile.
    width: usize,
    /// Pieces of the classifier's work: its bias, then its weights; [1 + inputs][width]
    tiles: Vec<Weights>,
}

impl Head {
    pub fn new(last: &Norm, classifier: &Classifier, lanes: usize) -> Head {
        let width = VECTORS * lanes;
        let inputs = classifier.inputs.len();
        let classes: Vec<usize> = (0..classifier.bias.len()).collect();
        let tile = |classes: &[usize]| {
            let mut floats = vec![0.0; (1 + inputs) * width];
            for (c, &class) in classes.iter().enumerate() {
                floats[c] = classifier.bias[class];
                for input in 0..inputs {
                    floats[(1 + input) * width + c] = classifier.weights[class * inputs + input];
                }
            }
            Weights::from(floats.as_slice())
        };
        Head {
            inputs: classifier.inputs.iter().map(|&c| (c, [last.scale[c], last.shift[c]])).collect(),
            width,
            tiles: classes.chunks(width).map(tile).collect(),
        }
    }

    /// All weights.
    pub fn weights(&mut self) -> impl Iterator<Item = &mut Weights> {
        self.tiles.iter_mut()
    }

    /// Means that there are.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Tiles of classes.
    pub fn tiles(&self) -> usize {
        self.tiles.len()
    }

    /// Classes of a tile.
    pub fn width(&self) -> usize {
        self.width
    }
}

/// What a thread does of the means.
pub(crate) struct Means<'a> {
    pub head: &'a Head,
    pub inputs: Range<usize>,
    /// Everybody's features, and where each channel lies.
    pub features: &'a [&'a [f32]],
    pub places: &'a [Place],
    pub layout: &'a Layout,
    pub to: &'a mut [f32],
}

impl WithSimd for Means<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Layout { size, stride, .. } = *self.layout;
        let zero = simd.splat_f32s(0.0);
        for (&(channel, [scale, shift]), to) in self.head.inputs[self.inputs].iter().zip(self.to) {
            let plane = self.places[channel].of(self.features, 0);
            let (scales, shifts) = (simd.splat_f32s(scale), simd.splat_f32s(shift));
            let (mut sums, mut sum) = (zero, 0.0);
            // Rows without anything between them are one.
            let (rows, length) = if stride == size { (1, size * size) } else { (size, size) };
            for y in 0..rows {
                let (whole, rest) = S::as_simd_f32s(&plane[y * stride..][..length]);
                for &x in whole {
                    let x = simd.max_f32s(simd.mul_add_e_f32s(scales, x, shifts), zero);
                    sums = simd.add_f32s(sums, x);
                }
                sum += rest.iter().map(|&x| (scale * x + shift).max(0.0)).sum::<f32>();
            }
            *to = (simd.reduce_sum_f32s(sums) + sum) / (size * size) as f32;
        }
    }
}

/// What a thread does of the classifier.
pub(crate) struct Classify<'a> {
    pub head: &'a Head,
    pub tiles: Range<usize>,
    /// Everybody's means, in their order.
    pub means: &'a [&'a [f32]],
    pub to: &'a mut [f32],
}

impl WithSimd for Classify<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let tiles = self.head.tiles[self.tiles].iter();
        for (tile, to) in tiles.zip(self.to.chunks_exact_mut(VECTORS * S::F32_LANES)) {
            let (bias, weights) = tile.get().split_at(VECTORS * S::F32_LANES);
            let mut sums: [S::f32s; VECTORS] = load(simd, bias);
            let weights = S::as_simd_f32s(weights).0.as_chunks::<VECTORS>().0;
            for (weights, &mean) in weights.iter().zip(self.means.iter().copied().flatten()) {
                let mean = simd.splat_f32s(mean);
                for v in 0..VECTORS {
                    sums[v] = simd.mul_add_e_f32s(mean, weights[v], sums[v]);
                }
            }
            store::<S, VECTORS>(to, sums);
        }
    }
}
