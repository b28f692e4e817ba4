//! PyTorch reads what is written for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod peers;

use cnx_formats::{Array, StateDict, pth};

/// Prints a line a tensor: name, type, shape, and its bytes.
const LOAD: &str = r#"
import collections, sys, torch

state = torch.load(sys.argv[1], weights_only=True)
assert type(state) is collections.OrderedDict, type(state)
for name, tensor in state.items():
    assert tensor.is_contiguous() and not tensor.requires_grad
    print(name, str(tensor.dtype), list(tensor.shape), tensor.numpy().tobytes().hex())

linear = torch.nn.Linear(3, 2)
linear.load_state_dict({name.removeprefix("classifier."): tensor for name, tensor in state.items() if name.startswith("classifier.")})
assert linear.weight.tolist() == state["classifier.weight"].tolist()
"#;

#[test]
fn pytorch_loads_a_state_dict_to_the_bit() {
    let many: Vec<f64> = (0..70_000).map(|i| f64::from(i) / 3.0).collect();
    let tensors = [
        ("classifier.bias", Array::from_f32(vec![2], &[0.25, f32::MAX])),
        ("classifier.weight", Array::from_f32(vec![2, 3], &[1.5, -0.0, 2.5, 3.0, f32::MIN_POSITIVE, 7.0])),
        ("features.large", Array::from_f64(vec![700, 1, 100], &many)),
        ("features.none", Array::from_f32(vec![0, 4], &[])),
        ("features.norm.num_batches_tracked", Array::from_i64(vec![], &[i64::MAX])),
        ("features.bytes", Array::new(cnx_formats::Dtype::U8, vec![3], vec![0, 127, 255])),
    ];
    let tensors = tensors.map(|(name, array)| (name.to_owned(), array.unwrap())).into();
    let state = StateDict { tensors, spec_json: Some("{\"name\": \"größer\"}".to_owned()) };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.pth");
    std::fs::write(&file, pth::write(&state).unwrap()).unwrap();

    let Some(said) = peers::python("pytorch_loads_a_state_dict_to_the_bit", LOAD, &[&file]) else { return };
    let expected: String = state
        .tensors
        .iter()
        .map(|(name, array)| {
            let dtype = match array.dtype() {
                cnx_formats::Dtype::F32 => "float32",
                cnx_formats::Dtype::F64 => "float64",
                cnx_formats::Dtype::I64 => "int64",
                cnx_formats::Dtype::U8 => "uint8",
            };
            let hex: String = array.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name} torch.{dtype} {:?} {hex}\n", array.shape())
        })
        .collect();
    assert!(said == expected, "PyTorch read something else");
}
