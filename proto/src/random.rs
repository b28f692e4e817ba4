//! Randomness without state: every draw is a pure function of a seed, a purpose and two coordinates.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011), which
//! encrypts a counter with a key. The key is the seed; the counter holds purpose, coordinates and block. So a
//! run that resumes draws what the run that never stopped draws, on any number of threads.

/// What random numbers are for. Streams of different purposes are independent, whatever their coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// The order of an epoch's images; coordinates: epoch, 0.
    Order = 1,
    /// Crop and flip of a training image; coordinates: epoch, image.
    Augmentation = 2,
    /// A parameter's initial values; coordinates: [`name_coordinates`] of its name.
    Weights = 3,
    /// A dropout mask; coordinates: step, layer.
    Dropout = 4,
    /// A generated image ([`crate::synthetic`]); coordinates: image, 0.
    Synthetic = 5,
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of a seed, a purpose and its coordinates.
    pub fn new(seed: u64, purpose: Purpose, coordinates: [u32; 2]) -> Stream {
        let [a, b] = coordinates;
        Stream {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, purpose as u32, a, b],
            block: [0; 4],
            used: 4,
        }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == self.block.len() {
            self.block = philox4x32_10(self.counter, self.key);
            // A stream has 2³⁴ words, more than any purpose draws; then it would repeat.
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in 0 … 1, 1 excluded: a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        let bits = (u64::from(self.next_u32()) << 32) | u64::from(self.next_u32());
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low` … `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0 … `n` − 1, without bias (Lemire's method); 0 for `n` = 0.
    pub fn below(&mut self, n: u32) -> u32 {
        let threshold = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts items into a random order, all orders equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// Normal, of mean 0 and standard deviation 1 (Box and Muller). Computed by `libm`, not by the platform's
    /// mathematics library: every host draws the same bits.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }
}

/// Coordinates of what is known by a name, e.g. a parameter: the halves of the name's FNV-1a hash.
pub fn name_coordinates(name: &str) -> [u32; 2] {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    [hash as u32, (hash >> 32) as u32]
}

/// Philox4x32 with ten rounds: encrypts a counter with a key.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let (high0, low0) = wide(0xD251_1F53, counter[0]);
        let (high1, low1) = wide(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn philox_gives_the_known_answers_of_its_authors() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_coordinates() {
        let first = |seed, purpose, at| Stream::new(seed, purpose, at).next_u32();
        let one = first(0, Purpose::Order, [0, 0]);
        assert_eq!(one, first(0, Purpose::Order, [0, 0]));
        assert_ne!(one, first(1, Purpose::Order, [0, 0]));
        assert_ne!(one, first(1 << 32, Purpose::Order, [0, 0]));
        assert_ne!(one, first(0, Purpose::Augmentation, [0, 0]));
        assert_ne!(one, first(0, Purpose::Order, [1, 0]));
        assert_ne!(one, first(0, Purpose::Order, [0, 1]));
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let mut stream = Stream::new(7, Purpose::Weights, name_coordinates("classifier.weight"));
        let draws: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }

    proptest! {
        #[test]
        fn below_stays_below(seed: u64, n in 1u32..) {
            let mut stream = Stream::new(seed, Purpose::Order, [0, 0]);
            for _ in 0..20 {
                prop_assert!(stream.below(n) < n);
            }
        }

        #[test]
        fn uniform_stays_in_range(seed: u64) {
            let mut stream = Stream::new(seed, Purpose::Order, [0, 0]);
            for _ in 0..20 {
                prop_assert!((0.0..1.0).contains(&stream.uniform()));
            }
        }
    }
}
