//! safetensors files, with the spec they belong to in their metadata.

use std::collections::HashMap;

use safetensors::tensor::{self, SafeTensors, TensorView, serialize};

use crate::budget::Budget;
use crate::element::Element;
use crate::{Array, Dtype, ReadError, StateDict};

/// The metadata key that holds the spec's JSON.
const SPEC: &str = "spec";
/// Bytes of memory for a byte of the header: its entries become strings and maps, twice.
const HEADER_COST: u64 = 24;

/// The bytes of a file. Tensors come in the order of their names: equal state dicts make equal files.
///
/// # Errors
/// When the format cannot hold it.
pub fn write(state: &StateDict) -> Result<Vec<u8>, String> {
    let malformed = |error| format!("cannot make a safetensors file: {error}");
    let mut views = Vec::new();
    for (name, array) in &state.tensors {
        let view = TensorView::new(written(array.dtype()), array.shape().to_vec(), array.bytes());
        views.push((name, view.map_err(malformed)?));
    }
    let metadata =
        state.spec_json.iter().map(|spec| (SPEC.to_owned(), spec.clone())).collect::<HashMap<_, _>>();
    serialize(views, (!metadata.is_empty()).then_some(metadata)).map_err(malformed)
}

/// Whether a file begins as this format does: the length of a header in JSON, and the header.
pub fn recognise(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.first() == Some(&b'{')
}

/// Reads the bytes of a file. Half precision becomes single, narrow whole numbers become wide: nothing is rounded.
///
/// # Errors
/// What is wrong with them, in words.
pub fn read(bytes: &[u8]) -> Result<StateDict, String> {
    parse(bytes, &mut |_| Ok(())).map_err(|error| match error {
        ReadError::Damaged(what) | ReadError::Unsupported(what) => what,
        other => other.to_string(),
    })
}

/// Reads the bytes of a file that may lie.
pub(crate) fn read_within(bytes: &[u8], budget: &mut Budget) -> Result<StateDict, ReadError> {
    parse(bytes, &mut |cost| budget.spend(cost))
}

/// `spend` is asked before anything is allocated.
fn parse(bytes: &[u8], spend: &mut dyn FnMut(u64) -> Result<(), ReadError>) -> Result<StateDict, ReadError> {
    let malformed =
        |error| ReadError::Damaged(format!("not a whole safetensors file: {error}{}", advice(bytes)));
    let header = bytes.first_chunk().map_or(0, |&length| u64::from_le_bytes(length));
    spend(header.min(bytes.len() as u64).saturating_mul(HEADER_COST))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let spec_json = metadata.metadata().as_ref().and_then(|metadata| metadata.get(SPEC).cloned());
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let mut state = StateDict { spec_json, ..StateDict::default() };
    for (name, view) in file.iter() {
        let element = kept(view.dtype()).ok_or_else(|| {
            let dtype = view.dtype();
            ReadError::Unsupported(format!("{name} has elements of type {dtype:?}, which is not handled"))
        })?;
        spend(element.cost(view.data().len() / element.bytes()))?;
        let array = Array::new(element.dtype(), view.shape().to_vec(), element.widen(view.data().to_vec()));
        let array = array.map_err(|error| ReadError::Damaged(format!("{name}: {error}")))?;
        state.tensors.insert(name.to_owned(), array);
    }
    Ok(state)
}

/// What else the bytes may be, and what then helps. A zip archive and a pickle are what PyTorch saves.
fn advice(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"PK") || bytes.starts_with(b"\x80") {
        "; it looks like a checkpoint of PyTorch, which `cnx import` makes a safetensors file of"
    } else {
        ""
    }
}

fn written(dtype: Dtype) -> tensor::Dtype {
    match dtype {
        Dtype::F32 => tensor::Dtype::F32,
        Dtype::F64 => tensor::Dtype::F64,
        Dtype::I64 => tensor::Dtype::I64,
        Dtype::U8 => tensor::Dtype::U8,
    }
}

fn kept(dtype: tensor::Dtype) -> Option<Element> {
    Some(match dtype {
        tensor::Dtype::F64 => Element::F64,
        tensor::Dtype::F32 => Element::F32,
        tensor::Dtype::F16 => Element::F16,
        tensor::Dtype::BF16 => Element::Bf16,
        tensor::Dtype::I64 => Element::I64,
        tensor::Dtype::I32 => Element::I32,
        tensor::Dtype::I16 => Element::I16,
        tensor::Dtype::I8 => Element::I8,
        tensor::Dtype::U8 => Element::U8,
        tensor::Dtype::BOOL => Element::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> StateDict {
        let tensors = [
            ("a", Array::from_f32(vec![3, 1], &[1.5, -0.0, f32::MIN_POSITIVE])),
            ("b", Array::from_f64(vec![1], &[0.1])),
            ("c", Array::from_i64(vec![], &[i64::MIN])),
        ];
        let tensors = tensors.map(|(name, array)| (name.to_owned(), array.unwrap())).into();
        StateDict { tensors, spec_json: Some("{}".to_owned()) }
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        let state = example();
        assert_eq!(read(&write(&state).unwrap()).unwrap(), state);
        let nameless = StateDict { spec_json: None, ..state };
        assert_eq!(read(&write(&nameless).unwrap()).unwrap(), nameless);
    }

    #[test]
    fn a_checkpoint_of_pytorch_is_sent_to_the_import() {
        for bytes in [&b"PK\x03\x04 a zip archive"[..], b"\x80\x02\x8a\x0a a pickle"] {
            assert!(read(bytes).unwrap_err().contains("`cnx import`"), "{:?}", read(bytes));
        }
        assert!(!read(b"{}").unwrap_err().contains("import"));
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let bytes = write(&example()).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut to {length} of {} bytes", bytes.len());
        }
    }
}
