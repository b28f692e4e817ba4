//! Tensors in a safetensors file, with the spec they belong to in its metadata.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};

/// The metadata key that holds the spec's JSON.
const SPEC: &str = "spec";

/// What a file holds.
#[derive(Debug)]
pub struct TensorFile {
    /// The spec in JSON, where the file carries one; ours do.
    pub spec_json: Option<String>,
    /// The tensors, on the host.
    pub tensors: BTreeMap<String, Tensor>,
}

/// The bytes of a file. Tensors come in the order of their names: equal tensors make equal files.
///
/// # Errors
/// When libtorch fails.
pub fn encode(spec_json: &str, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let dtype = dtype(tensor.f_kind()?, name)?;
        let shape: Vec<usize> = tensor.size().into_iter().map(|n| n as usize).collect();
        let mut bytes = vec![0; tensor.numel() * tensor.f_kind()?.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        contents.push((name, dtype, shape, bytes));
    }
    let malformed = |error| Failure::internal(format!("cannot make a safetensors file: {error}"));
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &contents {
        views.push((*name, TensorView::new(*dtype, shape.clone(), bytes).map_err(malformed)?));
    }
    let metadata = HashMap::from([(SPEC.to_owned(), spec_json.to_owned())]);
    serialize(views, Some(metadata)).map_err(malformed)
}

/// Reads the bytes of a file.
///
/// # Errors
/// What is wrong with them, in words.
pub fn decode(bytes: &[u8]) -> Result<TensorFile, String> {
    let malformed = |error| format!("not a whole safetensors file: {error}");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let spec_json = metadata.metadata().as_ref().and_then(|metadata| metadata.get(SPEC).cloned());
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = kind(view.dtype())
            .ok_or_else(|| format!("{name} has elements of type {:?}, which is not handled", view.dtype()))?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| e.to_string())?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(TensorFile { spec_json, tensors })
}

fn dtype(kind: Kind, name: &str) -> Result<Dtype> {
    Ok(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        other => return Err(Failure::internal(format!("{name} is of kind {other:?}, which is not saved"))),
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_to_the_bit() {
        let tensors = BTreeMap::from([
            ("a".to_owned(), Tensor::from_slice(&[1.5f32, -0.0, f32::MIN_POSITIVE]).view([3, 1])),
            ("b".to_owned(), Tensor::from_slice(&[0.1f64])),
            ("c".to_owned(), Tensor::from_slice(&[i64::MIN]).squeeze()),
        ]);
        let file = decode(&encode("{}", &tensors).unwrap()).unwrap();
        assert_eq!(file.spec_json.as_deref(), Some("{}"));
        for (name, tensor) in tensors {
            assert_eq!(file.tensors[&name], tensor, "{name}");
            assert_eq!(file.tensors[&name].size(), tensor.size());
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let tensors = BTreeMap::from([("a".to_owned(), Tensor::from_slice(&[1.0f32; 100]))]);
        let bytes = encode("{}", &tensors).unwrap();
        for length in [0, 7, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length} of {} bytes", bytes.len());
        }
    }
}
