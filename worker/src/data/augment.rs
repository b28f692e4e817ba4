//! Random crop and horizontal flip: a pure function of seed, epoch and image (paper, section 4.1).

use cnx_proto::random::{Purpose, Stream};

/// Black pixels around the image that a crop may show. They are black before normalising, so not zero after it.
pub const PADDING: u32 = 4;

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augmentation {
    /// Column of the padded image where the crop starts, 0 … 8; 4 is the image itself.
    pub left: u32,
    /// Row of the padded image where the crop starts.
    pub top: u32,
    /// Whether left and right are swapped.
    pub flip: bool,
}

impl Augmentation {
    /// The augmentation of an image in an epoch (from 0).
    pub fn draw(seed: u64, epoch: u32, image: u32) -> Augmentation {
        let mut random = Stream::new(seed, Purpose::Augmentation, [epoch, image]);
        let (left, top) = (random.below(2 * PADDING + 1), random.below(2 * PADDING + 1));
        Augmentation { left, top, flip: random.below(2) == 1 }
    }

    /// Appends the crop of an image of planar `size`×`size` channels to `out`.
    pub fn apply(self, image: &[u8], size: usize, out: &mut Vec<u8>) {
        let inside = |position: usize, start: u32| {
            (position + start as usize).checked_sub(PADDING as usize).filter(|&p| p < size)
        };
        for plane in image.chunks_exact(size * size) {
            for y in 0..size {
                let row = inside(y, self.top).map(|y| &plane[y * size..][..size]);
                out.extend((0..size).map(|x| {
                    let x = if self.flip { size - 1 - x } else { x };
                    match (row, inside(x, self.left)) {
                        (Some(row), Some(x)) => row[x],
                        _ => 0,
                    }
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(left: u32, top: u32, flip: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Augmentation { left, top, flip }.apply(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 3, &mut out);
        out
    }

    #[test]
    fn the_middle_crop_is_the_image() {
        assert_eq!(applied(4, 4, false), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_flip_swaps_left_and_right() {
        assert_eq!(applied(4, 4, true), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
    }

    #[test]
    fn crops_beyond_the_edge_are_black() {
        assert_eq!(applied(5, 3, false), [0, 0, 0, 2, 3, 0, 5, 6, 0]);
        assert_eq!(applied(0, 0, false), [0; 9]);
    }

    #[test]
    fn draws_cover_every_crop_and_both_flips() {
        let mut seen = std::collections::HashSet::new();
        for image in 0..5000 {
            let Augmentation { left, top, flip } = Augmentation::draw(1, 0, image);
            assert!(left <= 8 && top <= 8);
            seen.insert((left, top, flip));
        }
        assert_eq!(seen.len(), 9 * 9 * 2);
    }
}
