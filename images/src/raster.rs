//! Pixels in memory.

/// An image: red, green and blue bytes of each pixel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `3 × width × height` bytes.
    pub pixels: Vec<u8>,
}

impl Raster {
    /// Appends the image as three planes (all red, all green, all blue), left and right swapped if `flip`: the form in which
    /// networks take images.
    pub fn append_planes(&self, flip: bool, out: &mut Vec<u8>) {
        let width = self.width.max(1) as usize;
        out.reserve(self.pixels.len());
        for channel in 0..3 {
            for row in self.pixels.chunks_exact(3 * width) {
                let values = row.chunks_exact(3).map(|pixel| pixel[channel]);
                if flip {
                    out.extend(values.rev());
                } else {
                    out.extend(values);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_a_channel_each_and_a_flip_swaps_left_and_right() {
        let raster = Raster { width: 2, height: 2, pixels: (1..=12).collect() };
        let planes = |flip| {
            let mut out = Vec::new();
            raster.append_planes(flip, &mut out);
            out
        };
        assert_eq!(planes(false), [1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12]);
        assert_eq!(planes(true), [4, 1, 10, 7, 5, 2, 11, 8, 6, 3, 12, 9]);
    }
}
