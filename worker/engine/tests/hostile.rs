//! Files that lie are refused in memory that is bounded by their size, and so is what is no image.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cnx_engine::{Error, Model, Runner, sample};
use cnx_formats::{Array, StateDict, safetensors};
use cnx_proto::architecture::Form;
use cnx_proto::spec::{Arch, Dataset};
use common::spec;
use peak_alloc::PeakAlloc;

#[global_allocator]
static METER: PeakAlloc = PeakAlloc;

/// The meter is one for the whole process: a test that measures has it alone.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn example() -> StateDict {
    sample::state(&spec(Arch::CondenseNet, Dataset::Cifar10, &[1, 1], &[8, 8]), Form::Converted, 1)
}

fn refused(bytes: &[u8], why: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    METER.reset_peak_usage();
    let before = METER.current_usage();
    let result = Model::decode(bytes);
    let used = METER.peak_usage().saturating_sub(before);
    let allowed = (32 << 20) + 16 * bytes.len();
    assert!(used < allowed, "{used} bytes of memory for a file of {}", bytes.len());
    let error = result.map(drop).expect_err("it should be refused").to_string();
    assert!(error.contains(why), "expected: {why}\nfound: {error}");
}

fn with_spec(change: impl Fn(String) -> String) -> Vec<u8> {
    let state = example();
    let json = change(state.spec_json.clone().unwrap());
    safetensors::write(&StateDict { spec_json: Some(json), ..state }).unwrap()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = safetensors::write(&example()).unwrap();
    for length in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
        refused(&bytes[..length], "");
    }
}

#[test]
fn a_header_that_promises_more_than_there_is_is_refused() {
    let header = br#"{"w":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&[0; 4]);
    refused(&bytes, "");
}

#[test]
fn a_file_without_a_spec_or_with_an_absurd_one_is_refused() {
    let bare = StateDict { spec_json: None, ..example() };
    refused(&safetensors::write(&bare).unwrap(), "carries no spec");
    refused(&with_spec(|_| "{}".to_owned()), "spec is wrong");
    refused(&with_spec(|json| json.replace(r#""growth":"8-8""#, r#""growth":"2147483648-8""#)), "growth");
    refused(&with_spec(|json| json.replace(r#""stages":"1-1""#, r#""stages":"1000-1000""#)), "2000 layers");
    refused(
        &with_spec(|json| json.replace(r#""growth":"8-8""#, r#""growth":"4096-4096""#)),
        "not of the spec's",
    );
    refused(
        &with_spec(|json| json.replace(r#""bottleneck":4"#, r#""bottleneck":1024"#)),
        "not of the spec's",
    );
}

#[test]
fn tensors_that_are_not_of_the_network_are_refused_by_name() {
    let name = "features.denseblock_1.denselayer_1.conv_1.conv.weight";
    let mut missing = example();
    missing.tensors.remove(name);
    refused(&safetensors::write(&missing).unwrap(), name);

    let mut strange = example();
    strange.tensors.insert("features.strange".to_owned(), Array::from_f32(vec![1], &[0.0]).unwrap());
    refused(&safetensors::write(&strange).unwrap(), "features.strange");

    let mut not_a_number = example();
    let shape = not_a_number.tensors[name].shape().to_vec();
    let values = vec![f32::NAN; shape.iter().product()];
    not_a_number.tensors.insert(name.to_owned(), Array::from_f32(shape, &values).unwrap());
    refused(&safetensors::write(&not_a_number).unwrap(), name);

    let index = "features.denseblock_1.denselayer_1.conv_1.index";
    let mut beyond = example();
    let shape = beyond.tensors[index].shape().to_vec();
    let values = vec![i64::MAX; shape.iter().product()];
    beyond.tensors.insert(index.to_owned(), Array::from_i64(shape, &values).unwrap());
    refused(&safetensors::write(&beyond).unwrap(), "denselayer_1.conv_1");
}

#[test]
fn a_network_that_is_not_of_dense_blocks_is_refused() {
    let spec = cnx_proto::recipe::recipe(Arch::MobileNet, Dataset::ImageNet);
    let error = Model::new(&spec, &StateDict::default()).expect_err("it should be refused").to_string();
    assert!(error.contains("mobilenet") && error.contains("expected a condensenet"), "{error}");
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path(), &folder.path().join("nothing.safetensors"), Path::new("/dev/null")] {
        assert!(matches!(Model::open(path), Err(Error::Unreadable { .. })), "{}", path.display());
    }
}

#[test]
fn what_is_no_image_is_refused_and_the_next_one_is_not() {
    let state = example();
    let model = Arc::new(Model::decode(&safetensors::write(&state).unwrap()).unwrap());
    let mut runner = Runner::new(model, NonZeroUsize::new(2).unwrap());
    for found in [0, 1, 3 * 32 * 32 - 1, 3 * 32 * 32 + 1] {
        let error = runner.logits(&vec![0.0; found]).map(<[f32]>::len).expect_err("it should be refused");
        assert!(matches!(error, Error::Images { each: 3072, size: 32, .. }), "{error}");
    }
    for images in [1, 5, 2] {
        assert_eq!(runner.logits(&vec![0.5; images * 3 * 32 * 32]).unwrap().len(), 10 * images);
    }
}
