//! PyTorch's files, written: what `torch.load(file, weights_only=True)` reads, from PyTorch 1.6 on.
//!
//! A file holds a bare state dict, as `torch.save(model.state_dict(), file)` writes it, so that
//! `model.load_state_dict(torch.load(file))` is all that a reader needs. It is a zip archive, nothing of it compressed: a
//! pickle of the names, types and shapes (`data.pkl`), and the bytes of each tensor (`data/0`, `data/1`, …), aligned so
//! that they can be mapped. A spec, where there is one, lies beside them as `extra/spec.json`; PyTorch passes over it.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::pickle::Pickle;
use crate::{Array, Dtype, StateDict};

/// What an archive's entries are below; PyTorch takes any folder.
const FOLDER: &str = "archive";
/// The bytes of a tensor start at a multiple of this.
const ALIGNMENT: u16 = 64;

/// The bytes of a file. Equal state dicts make equal files.
///
/// # Errors
/// When the format cannot hold it.
pub fn write(state: &StateDict) -> Result<Vec<u8>, String> {
    archive(state).map_err(|error| format!("cannot make a PyTorch file: {error}"))
}

fn archive(state: &StateDict) -> Result<Vec<u8>, String> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut put = |name: &str, bytes: &[u8]| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .with_alignment(ALIGNMENT);
        zip.start_file(format!("{FOLDER}/{name}"), options).map_err(|e| e.to_string())?;
        zip.write_all(bytes).map_err(|e| e.to_string())
    };
    put("data.pkl", &names_and_shapes(state)?)?;
    put("byteorder", b"little")?;
    for (storage, array) in state.tensors.values().enumerate() {
        put(&format!("data/{storage}"), array.bytes())?;
    }
    put("version", b"3\n")?;
    if let Some(spec) = &state.spec_json {
        put("extra/spec.json", spec.as_bytes())?;
    }
    Ok(zip.finish().map_err(|e| e.to_string())?.into_inner())
}

/// The pickle of an ordered dict from names to calls that rebuild each tensor from its storage.
fn names_and_shapes(state: &StateDict) -> Result<Vec<u8>, String> {
    let mut pickle = Pickle::new();
    pickle.call("collections", "OrderedDict", |_| Ok(()))?;
    pickle.mark();
    for (storage, (name, array)) in state.tensors.iter().enumerate() {
        pickle.text(name)?;
        pickle.call("torch._utils", "_rebuild_tensor_v2", |arguments| tensor(arguments, storage, array))?;
    }
    pickle.set_items();
    Ok(pickle.finish())
}

/// Storage, offset in it, shape, strides, whether it wants a gradient, hooks.
fn tensor(pickle: &mut Pickle, storage: usize, array: &Array) -> Result<(), String> {
    pickle.tuple(|id| {
        id.text("storage")?;
        id.global("torch", storage_type(array.dtype()));
        id.text(&storage.to_string())?;
        id.text("cpu")?;
        id.integer(array.len())
    })?;
    pickle.persistent_id();
    pickle.integer(0)?;
    pickle.tuple(|sizes| array.shape().iter().try_for_each(|&n| sizes.integer(n)))?;
    pickle.tuple(|strides| row_major(array.shape()).into_iter().try_for_each(|n| strides.integer(n)))?;
    pickle.no();
    pickle.call("collections", "OrderedDict", |_| Ok(()))
}

fn storage_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "FloatStorage",
        Dtype::F64 => "DoubleStorage",
        Dtype::I64 => "LongStorage",
        Dtype::U8 => "ByteStorage",
    }
}

/// How many elements apart neighbours of each dimension are.
fn row_major(shape: &[usize]) -> Vec<usize> {
    (1..=shape.len()).map(|dimension| shape[dimension..].iter().product()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> StateDict {
        let tensors = [
            (
                "classifier.weight",
                Array::from_f32(vec![2, 3], &[1.5, -0.0, 2.5, 3.0, f32::MIN_POSITIVE, 7.0]),
            ),
            ("features.norm.num_batches_tracked", Array::from_i64(vec![], &[300])),
            ("features.norm.weight", Array::from_f64(vec![1], &[0.1])),
        ];
        let tensors = tensors.map(|(name, array)| (name.to_owned(), array.unwrap())).into();
        StateDict { tensors, spec_json: Some("{}".to_owned()) }
    }

    #[test]
    fn the_archive_holds_every_tensor_uncompressed_and_aligned() {
        let state = example();
        let bytes = write(&state).unwrap();
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes.as_slice())).unwrap();
        let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
        let expected = ["data.pkl", "byteorder", "data/0", "data/1", "data/2", "version", "extra/spec.json"];
        assert_eq!(names, expected.map(|name| format!("{FOLDER}/{name}")));
        for (storage, array) in state.tensors.values().enumerate() {
            let file = zip.by_name(&format!("{FOLDER}/data/{storage}")).unwrap();
            assert_eq!(file.compression(), CompressionMethod::Stored);
            let start = file.data_start().unwrap() as usize;
            assert_eq!(start % usize::from(ALIGNMENT), 0, "data/{storage}");
            assert_eq!(&bytes[start..start + array.bytes().len()], array.bytes());
        }
        assert_eq!(write(&state).unwrap(), bytes, "equal state dicts make equal files");
    }

    #[test]
    fn strides_are_those_of_rows() {
        assert_eq!(row_major(&[2, 3, 1, 4]), [12, 4, 4, 1]);
        assert_eq!(row_major(&[]), Vec::<usize>::new());
    }
}
