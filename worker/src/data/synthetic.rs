//! The generated set ([`cnx_proto::synthetic`]), made in memory.

use cnx_proto::spec::Data;
use cnx_proto::synthetic::{DATASET_SEED, TEST_START, VERSION, image};
use sha2::{Digest, Sha256};

use super::Pixels;
use crate::hex;

/// Images made where a spec does not say how many.
const TRAIN: u32 = 2000;
const TEST: u32 = 500;

pub(super) fn make(data: &Data) -> (Pixels, Pixels, String) {
    let (train, test) = (data.train_images.unwrap_or(TRAIN), data.test_images.unwrap_or(TEST));
    let identity = format!("synthetic version {VERSION} seed {DATASET_SEED} train {train} test {test}");
    (generate(0, train), generate(TEST_START, test), hex(&Sha256::digest(identity)))
}

fn generate(start: u32, images: u32) -> Pixels {
    let mut set = Pixels { size: 32, ..Pixels::default() };
    for index in start..start.saturating_add(images) {
        let (pixels, label) = image(DATASET_SEED, index);
        set.pixels.extend_from_slice(&pixels);
        set.labels.push(label);
    }
    set
}
