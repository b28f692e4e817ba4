//! The element types that files hold, and how each is kept here.

use half::{bf16, f16};

use crate::Dtype;

/// An element type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    /// Bytes that one takes in a file.
    pub fn bytes(self) -> usize {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 | Element::Bf16 | Element::I16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
        }
    }

    /// What it is kept as: nothing is rounded.
    pub fn dtype(self) -> Dtype {
        match self {
            Element::F64 => Dtype::F64,
            Element::F32 | Element::F16 | Element::Bf16 => Dtype::F32,
            Element::I64 | Element::I32 | Element::I16 | Element::I8 => Dtype::I64,
            Element::U8 | Element::Bool => Dtype::U8,
        }
    }

    /// Bytes of memory that it takes to read so many: as they are in the file, and, where that differs, as they are kept.
    pub fn cost(self, count: usize) -> u64 {
        let kept = self.dtype().bytes();
        let each = if self.bytes() == kept { kept } else { self.bytes() + kept };
        (count as u64).saturating_mul(each as u64)
    }

    /// Little-endian elements as what they are kept as.
    pub fn widen(self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Element::F64 | Element::F32 | Element::I64 | Element::U8 => bytes,
            Element::F16 => each(&bytes, |b| f16::from_le_bytes(b).to_f32().to_le_bytes()),
            Element::Bf16 => each(&bytes, |b| bf16::from_le_bytes(b).to_f32().to_le_bytes()),
            Element::I32 => each(&bytes, |b| i64::from(i32::from_le_bytes(b)).to_le_bytes()),
            Element::I16 => each(&bytes, |b| i64::from(i16::from_le_bytes(b)).to_le_bytes()),
            Element::I8 => each(&bytes, |b| i64::from(i8::from_le_bytes(b)).to_le_bytes()),
            Element::Bool => each(&bytes, |[byte]: [u8; 1]| [u8::from(byte != 0)]),
        }
    }
}

fn each<const N: usize, const M: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> [u8; M]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / N * M);
    bytes.as_chunks::<N>().0.iter().for_each(|&element| out.extend_from_slice(&f(element)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Array;

    fn kept(element: Element, bytes: &[u8]) -> Vec<f64> {
        let bytes = element.widen(bytes.to_vec());
        let count = bytes.len() / element.dtype().bytes();
        Array::new(element.dtype(), vec![count], bytes).unwrap().to_f64()
    }

    #[test]
    fn narrow_elements_keep_their_values() {
        assert_eq!(
            kept(Element::F16, &[0x00, 0x3e, 0x01, 0x00, 0x00, 0xfc]),
            [1.5, 2f64.powi(-24), f64::NEG_INFINITY]
        );
        assert_eq!(kept(Element::Bf16, &[0xc0, 0x3f, 0x80, 0xbf]), [1.5, -1.0]);
        assert_eq!(kept(Element::I32, &(-7i32).to_le_bytes()), [-7.0]);
        assert_eq!(kept(Element::I16, &(-300i16).to_le_bytes()), [-300.0]);
        assert_eq!(kept(Element::I8, &[0xff]), [-1.0]);
        assert_eq!(kept(Element::Bool, &[0, 1, 2]), [0.0, 1.0, 1.0]);
    }
}
