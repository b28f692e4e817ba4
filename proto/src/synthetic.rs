//! A generated image set: ten classes of 32×32 colour images that a small network learns in a minute or two and a
//! linear classifier does not. For demonstrations and tests, where the real sets are not at hand.
//!
//! An image is a pure function of a seed and an index; its label is the index modulo 10. It shows one patch, 16 to 26
//! pixels wide, at a random place (at most an eighth of it off the image). The label is the patch's pattern, and
//! nothing else is:
//!
//! | label | pattern | label | pattern |
//! |---|---|---|---|
//! | 0 | horizontal stripes | 5 | dots on a lattice |
//! | 1 | vertical stripes | 6 | spokes (a star of sectors) |
//! | 2 | diagonal stripes, either way | 7 | a filled disc |
//! | 3 | a checkerboard | 8 | a ring |
//! | 4 | concentric circles | 9 | a cross |
//!
//! Wave length, phase, the two colours of the pattern (of either contrast), the background (a colour gradient), two to four
//! strokes of clutter and the strength of the noise are random. Every class is closed under mirroring, so
//! horizontal flips are as valid as on CIFAR.

use std::ops::Range;

use crate::random::{Purpose, Stream};

/// Changes with every change of what is drawn: part of a dataset's identity.
pub const VERSION: u32 = 1;

/// Height and width, in pixels.
const EDGE: usize = 32;

/// Bytes of an image: planar RGB, row by row.
pub const IMAGE_BYTES: usize = 3 * EDGE * EDGE;

/// Bytes of a record of CIFAR-10's binary format: the label, then the image.
pub const RECORD_BYTES: usize = 1 + IMAGE_BYTES;

/// Number of classes.
pub const CLASSES: u32 = 10;

/// Where test images start: training images are those of indices 0, 1, …, test images those from here on, so that
/// the two never meet.
pub const TEST_START: u32 = 1 << 31;

/// The seed of `dataset = "synthetic"`: all experiments see the same images, whatever their own seed.
pub const DATASET_SEED: u64 = 0;

/// The image of an index and its label.
pub fn image(seed: u64, index: u32) -> ([u8; IMAGE_BYTES], u8) {
    let random = &mut Stream::new(seed, Purpose::Synthetic, [index, 0]);
    let label = (index % CLASSES) as u8;
    let scene = Scene::draw(label, random);
    let mut pixels = [0; IMAGE_BYTES];
    for y in 0..EDGE {
        for x in 0..EDGE {
            let colour = scene.colour(x as f64 + 0.5, y as f64 + 0.5);
            for (channel, value) in colour.into_iter().enumerate() {
                // A sum of uniform numbers: bell-shaped enough, and three times as fast as a normal one.
                let noise = random.uniform() + random.uniform() - 1.0;
                let value = 255.0 * (value + scene.noise * noise);
                pixels[channel * EDGE * EDGE + y * EDGE + x] = value.clamp(0.0, 255.0) as u8;
            }
        }
    }
    (pixels, label)
}

/// Records of CIFAR-10's binary format, one an index.
pub fn records(seed: u64, indices: Range<u32>) -> impl Iterator<Item = [u8; RECORD_BYTES]> {
    indices.map(move |index| {
        let (pixels, label) = image(seed, index);
        let mut record = [label; RECORD_BYTES];
        record[1..].copy_from_slice(&pixels);
        record
    })
}

type Colour = [f64; 3];

/// All that is random in an image, but for its noise.
struct Scene {
    background: [Colour; 2],
    gradient: (f64, f64),
    strokes: Vec<Stroke>,
    patch: Patch,
    noise: f64,
}

impl Scene {
    fn draw(label: u8, random: &mut Stream) -> Scene {
        let background = [colour(random), colour(random)];
        let angle = random.between(0.0, std::f64::consts::TAU);
        let strokes = (0..2 + random.below(3)).map(|_| Stroke::draw(random)).collect();
        Scene {
            background,
            gradient: (libm::cos(angle), libm::sin(angle)),
            strokes,
            patch: Patch::draw(label, random),
            noise: random.between(0.05, 0.30),
        }
    }

    fn colour(&self, x: f64, y: f64) -> Colour {
        let centre = EDGE as f64 / 2.0;
        let along = (x - centre) * self.gradient.0 + (y - centre) * self.gradient.1;
        let mut colour = mix(self.background[0], self.background[1], 0.5 + along / EDGE as f64);
        for stroke in &self.strokes {
            colour = mix(colour, stroke.colour, stroke.cover(x, y));
        }
        let (cover, foreground) = self.patch.at(x, y);
        mix(colour, mix(self.patch.colours[0], self.patch.colours[1], foreground), cover)
    }
}

/// A short line of one colour.
struct Stroke {
    colour: Colour,
    from: (f64, f64),
    direction: (f64, f64),
    length: f64,
    width: f64,
}

impl Stroke {
    fn draw(random: &mut Stream) -> Stroke {
        let angle = random.between(0.0, std::f64::consts::TAU);
        Stroke {
            colour: colour(random),
            from: (random.between(0.0, EDGE as f64), random.between(0.0, EDGE as f64)),
            direction: (libm::cos(angle), libm::sin(angle)),
            length: random.between(5.0, 14.0),
            width: random.between(0.7, 1.6),
        }
    }

    fn cover(&self, x: f64, y: f64) -> f64 {
        let (dx, dy) = (x - self.from.0, y - self.from.1);
        let along = (dx * self.direction.0 + dy * self.direction.1).clamp(0.0, self.length);
        let (ox, oy) = (dx - along * self.direction.0, dy - along * self.direction.1);
        soft(self.width - libm::sqrt(ox * ox + oy * oy))
    }
}

/// The patch whose pattern is the label.
struct Patch {
    label: u8,
    centre: (f64, f64),
    radius: f64,
    colours: [Colour; 2],
    /// Radians a pixel.
    frequency: f64,
    phase: (f64, f64),
    /// 1 or −1: which way a diagonal leans.
    lean: f64,
}

impl Patch {
    fn draw(label: u8, random: &mut Stream) -> Patch {
        let radius = random.between(8.0, 13.0);
        let inset = 0.75 * radius;
        let dark = colour(random);
        let contrast = random.between(0.30, 0.60);
        let light = dark.map(|c| if c < 0.5 { c + contrast } else { c - contrast });
        let turn = std::f64::consts::TAU;
        Patch {
            label,
            centre: (random.between(inset, EDGE as f64 - inset), random.between(inset, EDGE as f64 - inset)),
            radius,
            colours: [dark, light],
            frequency: turn / random.between(4.0, 7.0),
            phase: (random.between(0.0, turn), random.between(0.0, turn)),
            lean: if random.below(2) == 0 { 1.0 } else { -1.0 },
        }
    }

    /// How much the patch covers a pixel, and how much of its second colour shows there; both 0 … 1.
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let distance = libm::sqrt(dx * dx + dy * dy);
        let inside = soft(self.radius - distance);
        if inside == 0.0 {
            return (0.0, 0.0);
        }
        let wave = |position: f64, phase: f64| libm::sin(self.frequency * position + phase);
        let (px, py) = self.phase;
        let edge = |value: f64| (0.5 + 1.5 * value).clamp(0.0, 1.0);
        match self.label {
            0 => (inside, edge(wave(dy, py))),
            1 => (inside, edge(wave(dx, px))),
            2 => (inside, edge(wave((dx + self.lean * dy) * std::f64::consts::FRAC_1_SQRT_2, px))),
            3 => (inside, edge(2.0 * wave(dx, px) * wave(dy, py))),
            4 => (inside, edge(wave(distance, px))),
            5 => (inside, edge(wave(dx, px) + wave(dy, py) - 0.9)),
            6 => (inside, edge(libm::sin(5.0 * libm::atan2(dy, dx) + px))),
            7 => (inside, 1.0),
            8 => (inside * soft(distance - 0.6 * self.radius), 1.0),
            _ => (inside * soft(0.25 * self.radius - dx.abs().min(dy.abs())), 1.0),
        }
    }
}

/// From a signed distance to an edge, in pixels, to a share of the pixel.
fn soft(distance: f64) -> f64 {
    (0.5 + distance).clamp(0.0, 1.0)
}

fn colour(random: &mut Stream) -> Colour {
    [random.uniform(), random.uniform(), random.uniform()]
}

fn mix(a: Colour, b: Colour, share: f64) -> Colour {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_function_of_seed_and_index() {
        assert_eq!(image(3, 17), image(3, 17));
        assert_ne!(image(3, 17).0, image(4, 17).0);
        assert_ne!(image(3, 17).0, image(3, 27).0);
    }

    #[test]
    fn every_class_appears_equally_often() {
        let mut count = [0; CLASSES as usize];
        for index in TEST_START..TEST_START + 100 {
            count[usize::from(image(0, index).1)] += 1;
        }
        // 2³¹ is 8 modulo 10: any ten neighbours hold every class once, wherever they start.
        assert_eq!(count, [10; CLASSES as usize]);
    }

    #[test]
    fn records_are_those_of_cifar_10() {
        let record: Vec<_> = records(0, 5..7).collect();
        let (pixels, label) = image(0, 6);
        assert_eq!(record.len(), 2);
        assert_eq!((record[1][0], &record[1][1..]), (label, &pixels[..]));
    }

    #[test]
    fn a_version_keeps_drawing_the_same_images() {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for record in records(DATASET_SEED, 0..20) {
            hash.update(record);
        }
        let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, DRAWN, "what is drawn has changed: raise VERSION");
    }

    /// Of the first 20 images of version 1.
    const DRAWN: &str = "b4bba90c1a4a848d2a791e1a3fbaadec73824e0fea0b055494dfe0580f5b959b";
}
