//! Checkpoints as people have them are read to the bit, whatever their container.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod craft;

use cnx_formats::{Array, Checkpoint, Container, Dtype, StateDict, checkpoint, pth, safetensors};
use craft::{Pickle, fixture, float_storage, legacy};

fn read(name: &str) -> Checkpoint {
    checkpoint::read(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn both_containers_of_one_state_dict_give_the_same_tensors() {
    let (zip, legacy) = (read("condensenet-c4.zip.pth.tar"), read("condensenet-c4.legacy.pth.tar"));
    assert_eq!((zip.container, legacy.container), (Container::TorchZip, Container::TorchLegacy));
    for checkpoint in [&zip, &legacy] {
        assert_eq!(
            (checkpoint.key, checkpoint.epoch, checkpoint.data_parallel),
            (Some("state_dict"), Some(3), true)
        );
    }
    assert_eq!(zip.state, legacy.state);
    let init = &zip.state.tensors["features.init_conv.weight"];
    assert_eq!((init.dtype(), init.shape()), (Dtype::F32, &[8, 3, 3, 3][..]));
    assert!(!zip.state.tensors.contains_key("classifier.index"));
    let converted = read("condensenet-c4.converted.legacy.pth.tar");
    assert_eq!(converted.state.tensors["classifier.index"].dtype(), Dtype::I64);
}

#[test]
fn what_pytorch_saves_in_its_many_ways_is_read_as_it_is() {
    let base = |indices: &[usize]| indices.iter().map(|&i| i as f64).collect::<Vec<_>>();
    let transposed: Vec<usize> = (0..6).flat_map(|column| (0..4).map(move |row| row * 6 + column)).collect();
    let expected: [(&str, Dtype, &[usize], Vec<f64>); 16] = [
        ("half", Dtype::F32, &[4], vec![1.5, -2.0, 65504.0, 2f64.powi(-24)]),
        ("bfloat", Dtype::F32, &[3], vec![1.5, -2.0, 2f64.powi(100)]),
        ("double", Dtype::F64, &[1], vec![0.1]),
        ("int", Dtype::I64, &[2], vec![-1.0, f64::from(i32::MAX)]),
        ("short", Dtype::I64, &[1], vec![-300.0]),
        ("char", Dtype::I64, &[2], vec![-1.0, 127.0]),
        ("byte", Dtype::U8, &[1], vec![255.0]),
        ("bool", Dtype::U8, &[2], vec![1.0, 0.0]),
        ("scalar", Dtype::I64, &[], vec![7.0]),
        ("none", Dtype::F32, &[0, 4], vec![]),
        ("whole", Dtype::F32, &[4, 6], base(&(0..24).collect::<Vec<_>>())),
        ("transposed", Dtype::F32, &[6, 4], base(&transposed)),
        ("offset", Dtype::F32, &[4], base(&[10, 11, 12, 13])),
        ("every_other", Dtype::F32, &[12], base(&(0..24).step_by(2).collect::<Vec<_>>())),
        ("expanded", Dtype::F32, &[5], vec![3.0; 5]),
        ("parameter", Dtype::F32, &[1], vec![0.5]),
    ];
    for file in ["oddities.zip.pth", "oddities.legacy.pth", "oddities.protocol4.pth"] {
        let found = read(file);
        assert_eq!((found.key, found.epoch, found.data_parallel), (Some("model"), Some(41), false), "{file}");
        assert_eq!(found.state.tensors.len(), expected.len(), "{file}");
        for (name, dtype, shape, values) in &expected {
            let array = &found.state.tensors[*name];
            assert_eq!((array.dtype(), array.shape()), (*dtype, *shape), "{file}: {name}");
            assert_eq!(&array.to_f64(), values, "{file}: {name}");
        }
    }
}

/// torch 0.1.10 to 0.3 called `_rebuild_tensor`, and could save a storage as a part of another.
#[test]
fn the_calls_of_2017_are_understood() {
    let mut object = Pickle::new();
    object.dict(&[("module.w", |pickle| {
        pickle.global("torch._utils", "_rebuild_tensor").mark();
        pickle.mark().text("storage").global("torch", "FloatStorage").text("94").text("cuda:0").int(4);
        // The storage's elements 1 to 3 alone.
        pickle.mark().text("95").int(1).int(3).op(b't');
        pickle.op(b't').op(b'Q');
        pickle.int(1).mark().int(2).op(b't').mark().int(1).op(b't');
        pickle.op(b't').op(b'R');
    })]);
    let found = checkpoint::read(&legacy(&object, &["94"], &float_storage(&[1.0, 2.0, 3.0, 4.0]))).unwrap();
    assert_eq!(found.state.tensors["w"], Array::from_f32(vec![2], &[3.0, 4.0]).unwrap());
    assert!(found.data_parallel && found.key.is_none());
}

#[test]
fn what_is_exported_is_imported_to_the_bit() {
    let state = read("condensenet-c4.zip.pth.tar").state;
    let state = StateDict { spec_json: Some("{\"name\":\"größer\"}".to_owned()), ..state };
    let written = [pth::write(&state).unwrap(), safetensors::write(&state).unwrap()];
    for (bytes, container) in written.iter().zip([Container::TorchZip, Container::Safetensors]) {
        let found = checkpoint::read(bytes).unwrap();
        assert_eq!((found.container, found.key), (container, None));
        assert_eq!(found.state, state);
    }
}
