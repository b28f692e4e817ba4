//! Tensors in a safetensors file, with the spec they belong to in its metadata.

use std::collections::BTreeMap;

use cnx_formats::{Array, Dtype, StateDict, safetensors};
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};

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
    let state = StateDict { spec_json: Some(spec_json.to_owned()), tensors: to_host(tensors)? };
    safetensors::write(&state).map_err(Failure::internal)
}

/// Copies of tensors as plain arrays, by name.
///
/// # Errors
/// When libtorch fails.
pub fn to_host<'a>(
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> Result<BTreeMap<String, Array>> {
    tensors.into_iter().map(|(name, tensor)| Ok((name.clone(), to_array(tensor, name)?))).collect()
}

/// Reads the bytes of a file.
///
/// # Errors
/// What is wrong with them, in words.
pub fn decode(bytes: &[u8]) -> Result<TensorFile, String> {
    let StateDict { spec_json, tensors } = safetensors::read(bytes)?;
    let tensors = tensors.into_iter().map(|(name, array)| Ok((name, to_tensor(&array)?)));
    Ok(TensorFile { spec_json, tensors: tensors.collect::<Result<_, String>>()? })
}

fn to_array(tensor: &Tensor, name: &str) -> Result<Array> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let dtype = match tensor.f_kind()? {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        other => return Err(Failure::internal(format!("{name} is of kind {other:?}, which is not saved"))),
    };
    let shape: Vec<usize> = tensor.size().into_iter().map(|n| n as usize).collect();
    let mut bytes = vec![0; tensor.numel() * dtype.bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Array::new(dtype, shape, bytes).map_err(Failure::internal)
}

fn to_tensor(array: &Array) -> Result<Tensor, String> {
    let kind = match array.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
    };
    let shape: Vec<i64> = array.shape().iter().map(|&n| n as i64).collect();
    Tensor::f_from_data_size(array.bytes(), &shape, kind).map_err(|error| error.to_string())
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
}
