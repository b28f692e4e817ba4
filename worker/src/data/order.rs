//! The order of an epoch's images: a pure function of seed and epoch.

use cnx_proto::random::{Purpose, Stream};

/// A permutation of 0 … `images` − 1; epochs count from 0.
pub fn order(seed: u64, epoch: u32, images: u32) -> Vec<u32> {
    let mut random = Stream::new(seed, Purpose::Order, [epoch, 0]);
    let mut order: Vec<u32> = (0..images).collect();
    random.shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_image_comes_once_an_epoch(seed: u64, epoch: u32, images in 0u32..500) {
            let mut seen = order(seed, epoch, images);
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..images).collect::<Vec<_>>());
        }

        #[test]
        fn the_order_is_the_same_when_asked_again_and_another_in_another_epoch(seed: u64, epoch in 0u32..1000) {
            prop_assert_eq!(order(seed, epoch, 100), order(seed, epoch, 100));
            prop_assert_ne!(order(seed, epoch, 100), order(seed, epoch + 1, 100));
            prop_assert_ne!(order(seed, epoch, 100), order(seed.wrapping_add(1), epoch, 100));
        }
    }
}
