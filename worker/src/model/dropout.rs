//! Dropout whose masks are a pure function of seed, step and layer: the same on every device.

use cnx_proto::random::{Purpose, Stream};
use tch::{Kind, Tensor};

use super::layers::Mode;
use crate::failure::Result;

/// Sets activations to 0 with a probability, and scales up the others, in training.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    /// The probability.
    pub probability: f64,
    /// Tells the masks of a step apart.
    pub layer: u32,
}

impl Dropout {
    pub fn forward(self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let Dropout { probability, layer } = self;
        let mask = match mode {
            Mode::Evaluate => return Ok(x.shallow_clone()),
            Mode::Train { seed, step } => {
                let mask = dropout_mask(probability, seed, step, layer, x.numel());
                Tensor::f_from_slice(&mask)?.f_to_device(x.device())?
            }
            Mode::TrainAt { seed, step } => dropout_mask_at(probability, seed, step, layer, x.numel())?,
        };
        let mask = mask.f_view(x.size().as_slice())?.f_to_kind(x.kind())?;
        Ok(x.f_mul(&mask)?.f_mul_scalar(1.0 / (1.0 - probability))?)
    }
}

/// What a 16-bit draw must reach for its element to be kept: the probability, rounded to a multiple of 2⁻¹⁶.
fn threshold(probability: f64) -> u32 {
    (probability * 65536.0).round() as u32
}

/// 1 where kept, 0 where dropped. Drawn on the host with 16 bits an element: a step has millions of elements.
pub(crate) fn dropout_mask(probability: f64, seed: u64, step: u64, layer: u32, elements: usize) -> Vec<u8> {
    let mut random = Stream::new(seed, Purpose::Dropout, [step as u32, layer]);
    let threshold = threshold(probability);
    let mut mask = Vec::with_capacity(elements + 1);
    while mask.len() < elements {
        let bits = random.next_u32();
        mask.push(u8::from(bits & 0xffff >= threshold));
        mask.push(u8::from(bits >> 16 >= threshold));
    }
    mask.truncate(elements);
    mask
}

/// The same, drawn where `step` (one integer) lies.
fn dropout_mask_at(
    probability: f64,
    seed: u64,
    step: &Tensor,
    layer: u32,
    elements: usize,
) -> Result<Tensor> {
    let blocks = elements.div_ceil(8) as i64;
    let words = stream_at(seed, Purpose::Dropout, step, layer, blocks)?;
    let halves = [words.f_bitwise_and(LOW_16)?, words.f_bitwise_right_shift_tensor_scalar(16)?];
    let draws = Tensor::f_stack(&halves, -1)?.f_flatten(0, -1)?.f_narrow(0, 0, elements as i64)?;
    Ok(draws.f_ge(i64::from(threshold(probability)))?)
}

const LOW_16: i64 = 0xffff;
const LOW_32: i64 = 0xffff_ffff;

/// The first blocks of a [`Stream`], [blocks, 4], as 64-bit integers: Philox4x32-10 by operations on tensors.
fn stream_at(seed: u64, purpose: Purpose, first: &Tensor, second: u32, blocks: i64) -> Result<Tensor> {
    let options = (Kind::Int64, first.device());
    let one = |value: u32| Tensor::f_full([1], i64::from(value), options);
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut counter = [
        Tensor::f_arange(blocks, options)?,
        one(purpose as u32)?,
        first.f_bitwise_and(LOW_32)?,
        one(second)?,
    ];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let (high_0, low_0) = wide(0xD251_1F53, &counter[0])?;
        let (high_1, low_1) = wide(0xCD9E_8D57, &counter[2])?;
        let mixed = |high: &Tensor, word: &Tensor, key: u32| -> Result<Tensor> {
            Ok(high.f_bitwise_xor_tensor(word)?.f_bitwise_xor(i64::from(key))?)
        };
        counter = [mixed(&high_1, &counter[1], key[0])?, low_1, mixed(&high_0, &counter[3], key[1])?, low_0];
    }
    let words: Result<Vec<Tensor>, _> = counter.iter().map(|word| word.f_expand([blocks], false)).collect();
    Ok(Tensor::f_stack(&words?, 1)?)
}

/// The halves of a product of 32-bit numbers. It wraps around where the sign of 64 bits would be: the bits are right.
fn wide(factor: i64, word: &Tensor) -> Result<(Tensor, Tensor)> {
    let product = word.f_mul_scalar(factor)?;
    let high = product.f_bitwise_right_shift_tensor_scalar(32)?.f_bitwise_and(LOW_32)?;
    Ok((high, product.f_bitwise_and(LOW_32)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_drawn_by_tensors_are_those_drawn_on_the_host() {
        for (seed, step, layer, elements) in
            [(0, 0i64, 1, 1), (7, 12, 3, 8), (u64::MAX, 4_000_000_000, 9, 1001)]
        {
            let at = Tensor::from_slice(&[step]);
            for probability in [0.1, 0.5, 0.9] {
                let mask = dropout_mask_at(probability, seed, &at, layer, elements).unwrap();
                let mask: Vec<u8> = Vec::try_from(mask.to_kind(Kind::Uint8)).unwrap();
                assert_eq!(mask, dropout_mask(probability, seed, step as u64, layer, elements));
            }
        }
    }
}
