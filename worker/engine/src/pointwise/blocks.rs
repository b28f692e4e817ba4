//! Blocks of channels of the middle, as the 1×1 convolution writes them: what is written at once is checked once.

// A check for each vector costs as much as writing it.
#![allow(unsafe_code)]

use pulp::Simd;

/// Blocks of `B` channels, one after another: [blocks][pixels][`B`].
#[derive(Debug)]
pub(crate) struct Blocks<'a, const B: usize> {
    floats: &'a mut [f32],
    /// Floats from block to block.
    block: usize,
    /// Where each pixel lies in a block, counted in pixels; none is more than `most`.
    pixels: &'a [u32],
    most: usize,
}

impl<'a, const B: usize> Blocks<'a, B> {
    pub fn new(floats: &'a mut [f32], block: usize, pixels: &'a [u32]) -> Blocks<'a, B> {
        let most = pixels.iter().max().map_or(0, |&most| most as usize);
        Blocks { floats, block, pixels, most }
    }

    /// Where the block that has channel `column` has it.
    #[inline(always)]
    fn start(&self, column: usize) -> usize {
        column / B * self.block + column % B
    }

    /// Writes `N` vectors of channels from `column` on, none smaller than 0, for `X` pixels from `first` on, or as many as there are. Panics
    /// where they have no place.
    #[inline(always)]
    pub fn put<S: Simd, const X: usize, const N: usize>(
        &mut self,
        simd: S,
        sums: &[[S::f32s; N]; X],
        column: usize,
        first: usize,
    ) {
        let lanes = S::F32_LANES;
        let pixels = &self.pixels[first..];
        assert!(B.is_multiple_of(lanes) || lanes.is_multiple_of(B));
        assert!(column.is_multiple_of(lanes));
        assert!((column + N * lanes - 1) / B * self.block + (self.most + 1) * B <= self.floats.len());
        let zero = simd.splat_f32s(0.0);
        let to = self.floats.as_mut_ptr();
        for x in 0..X {
            if x >= pixels.len() {
                break;
            }
            let at = pixels[x] as usize * B;
            for n in 0..N {
                let column = column + n * lanes;
                let sum = simd.max_f32s(sums[x][n], zero);
                // SAFETY: of the last block that is written, the last pixel is there; so all others are. A vector lies in a block, or has all
                // channels of some.
                unsafe {
                    if B >= lanes {
                        to.add(self.start(column) + at).cast::<S::f32s>().write_unaligned(sum);
                    } else {
                        let parts = (&raw const sum).cast::<[f32; B]>();
                        for part in 0..lanes / B {
                            let to = to.add(self.start(column + part * B) + at).cast::<[f32; B]>();
                            to.write(parts.add(part).read());
                        }
                    }
                }
            }
        }
    }
}
