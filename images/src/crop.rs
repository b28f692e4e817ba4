//! Which part of an image a network sees, as torchvision chooses it: pure arithmetic, without pixels.

use cnx_proto::random::Stream;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Column of its first pixel.
    pub left: u32,
    /// Row of its first pixel.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Share of the image's area that a random crop takes.
const AREA: (f64, f64) = (0.08, 1.0);
/// Width over height of a random crop.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Draws before the largest allowed crop in the middle is taken.
const DRAWS: u32 = 10;

/// What happens to a training image: `RandomResizedCrop` and `RandomHorizontalFlip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomResizedCrop {
    /// What is cut out, to be resized.
    pub region: Region,
    /// Whether left and right are swapped.
    pub flip: bool,
}

impl RandomResizedCrop {
    /// Draws the crop of an image of `width`×`height` pixels. The same draws give the same crop on every host.
    pub fn draw(random: &mut Stream, width: u32, height: u32) -> RandomResizedCrop {
        let flip = random.below(2) == 1;
        let area = f64::from(width) * f64::from(height);
        for _ in 0..DRAWS {
            let target = area * random.between(AREA.0, AREA.1);
            let ratio = libm::exp(random.between(libm::log(RATIO.0), libm::log(RATIO.1)));
            let (w, h) =
                ((target * ratio).sqrt().round_ties_even(), (target / ratio).sqrt().round_ties_even());
            if (1.0..=f64::from(width)).contains(&w) && (1.0..=f64::from(height)).contains(&h) {
                let (w, h) = (w as u32, h as u32);
                let (top, left) = (random.below(height - h + 1), random.below(width - w + 1));
                return RandomResizedCrop { region: Region { left, top, width: w, height: h }, flip };
            }
        }
        RandomResizedCrop { region: largest(width, height), flip }
    }
}

/// The largest crop of an allowed ratio, in the middle.
fn largest(width: u32, height: u32) -> Region {
    let ratio = f64::from(width) / f64::from(height);
    let (w, h) = if ratio < RATIO.0 {
        (width, (f64::from(width) / RATIO.0).round_ties_even() as u32)
    } else if ratio > RATIO.1 {
        ((f64::from(height) * RATIO.1).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Region { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

/// What happens to a test image: `Resize(shorter)` and `CenterCrop(side)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CentreCrop {
    /// Width of the whole image after resizing.
    pub width: u32,
    /// Height of the whole image after resizing.
    pub height: u32,
    /// What is cut out of that.
    pub region: Region,
}

impl CentreCrop {
    /// For an image of `width`×`height` pixels: its shorter side becomes `shorter`, and `side`×`side` pixels of its middle
    /// are taken (`side` ≤ `shorter`).
    pub fn of(width: u32, height: u32, shorter: u32, side: u32) -> CentreCrop {
        let longer = |long: u32, short: u32| {
            let exact = u64::from(shorter) * u64::from(long) / u64::from(short.max(1));
            u32::try_from(exact).unwrap_or(u32::MAX)
        };
        let (width, height) =
            if width <= height { (shorter, longer(height, width)) } else { (longer(width, height), shorter) };
        let start = |size: u32| (f64::from(size.saturating_sub(side)) / 2.0).round_ties_even() as u32;
        let region = Region { left: start(width), top: start(height), width: side, height: side };
        CentreCrop { width, height, region }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::random::Purpose;
    use proptest::prelude::*;

    fn draw(seed: u64, image: u32, width: u32, height: u32) -> RandomResizedCrop {
        RandomResizedCrop::draw(&mut Stream::new(seed, Purpose::Augmentation, [0, image]), width, height)
    }

    proptest! {
        #[test]
        fn crops_lie_within_the_image(seed: u64, width in 1u32..5000, height in 1u32..5000) {
            let Region { left, top, width: w, height: h } = draw(seed, 0, width, height).region;
            prop_assert!(w >= 1 && h >= 1 && left + w <= width && top + h <= height);
            let Region { left, top, width: w, height: h } = largest(width, height);
            prop_assert!(w >= 1 && h >= 1 && left + w <= width && top + h <= height);
        }

        #[test]
        fn the_middle_is_square_and_within_the_resized_image(width in 1u32..5000, height in 1u32..5000) {
            let crop = CentreCrop::of(width, height, 256, 224);
            prop_assert_eq!(crop.width.min(crop.height), 256);
            prop_assert!(crop.region.left + 224 <= crop.width && crop.region.top + 224 <= crop.height);
        }
    }

    #[test]
    fn crops_have_the_areas_and_ratios_of_the_recipe() {
        let crops: Vec<_> = (0..20_000).map(|image| draw(1, image, 500, 375)).collect();
        let share = |c: &RandomResizedCrop| f64::from(c.region.width * c.region.height) / (500.0 * 375.0);
        let ratio = |c: &RandomResizedCrop| f64::from(c.region.width) / f64::from(c.region.height);
        assert!(crops.iter().all(|c| (0.079..=1.0).contains(&share(c)) && (0.74..1.35).contains(&ratio(c))));
        let mean = crops.iter().map(share).sum::<f64>() / 20_000.0;
        // torchvision's, over 100,000 draws: 0.432. Below the 0.54 of the drawn areas, since large ones often do not fit.
        assert!((mean - 0.432).abs() < 0.006, "{mean}");
        let flips = crops.iter().filter(|c| c.flip).count();
        assert!((9_500..10_500).contains(&flips), "{flips}");
    }

    #[test]
    fn an_image_too_narrow_for_any_crop_gives_its_middle() {
        let expected = Region { left: 0, top: 493, width: 10, height: 13 };
        assert_eq!(draw(3, 0, 10, 1000).region, expected);
        assert_eq!(largest(1000, 9), Region { left: 494, top: 0, width: 12, height: 9 });
    }

    #[test]
    fn halves_are_rounded_to_even_as_python_does() {
        // 341 − 224 = 117, half of it 58.5.
        assert_eq!(CentreCrop::of(500, 375, 256, 224).region.left, 58);
        assert_eq!(CentreCrop::of(500, 375, 256, 224).width, 341);
        assert_eq!(CentreCrop::of(256, 259, 256, 224).region.top, 18);
    }
}
