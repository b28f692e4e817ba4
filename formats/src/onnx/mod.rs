//! ONNX, written: a network of a spec with the weights of a state dict, for ONNX Runtime and all others that read it.
//!
//! The graph derives from the layers of [`cnx_proto::architecture`], one operator a layer but for the channel shuffle's three;
//! dropout does nothing where nothing is trained, and vanishes. Input `images` [batch, 3, height, width], float32, already
//! normalised; output `logits` [batch, classes]. A mask is multiplied into its weights.

mod graph;

use cnx_proto::Spec;
use cnx_proto::architecture::{Form, layers};
use prost::Message;

use crate::StateDict;
use graph::Graph;

/// The generated messages of `onnx.proto`.
#[allow(missing_docs, clippy::all)]
mod schema {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// The version of the operators; in it since 2021, and read by every runtime that is kept.
const OPERATORS: i64 = 17;
/// The version of the file format, of the same year.
const FORMAT: i64 = 8;
/// Readers of Protocol Buffers take no more.
const MOST_BYTES: usize = i32::MAX as usize;

/// The bytes of a file: the network of `spec` in `form`, with the weights of `state`, in single precision. Equal state dicts
/// make equal files.
///
/// # Errors
/// When a tensor is missing, has another shape, or holds what is not a finite number in single precision; when the network is
/// larger than the format allows (2 GiB).
pub fn write(spec: &Spec, form: Form, state: &StateDict) -> Result<Vec<u8>, String> {
    let dataset = spec.data.dataset;
    let mut graph = Graph::new(state);
    for layer in &layers(&spec.model, dataset, form) {
        graph.add(layer)?;
    }
    let model = schema::ModelProto {
        ir_version: FORMAT,
        opset_import: vec![schema::OperatorSetIdProto { domain: String::new(), version: OPERATORS }],
        producer_name: "cnx".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: format!("{} on {dataset}, {form}", spec.name),
        graph: Some(graph.finish(&spec.name, &normalisation(spec))),
        metadata_props: metadata(spec, form),
    };
    let bytes = model.encoded_len();
    if bytes > MOST_BYTES {
        return Err(format!("the network takes {bytes} bytes, and an ONNX file holds at most {MOST_BYTES}"));
    }
    Ok(model.encode_to_vec())
}

/// What has to be done to an image before it enters.
fn normalisation(spec: &Spec) -> String {
    let (mean, deviation) = spec.data.dataset.normalisation();
    format!("RGB, (value / 255 - mean) / std a channel, mean {mean:?}, std {deviation:?}")
}

fn metadata(spec: &Spec, form: Form) -> Vec<schema::StringStringEntryProto> {
    let pairs = [
        ("cnx.name", spec.name.clone()),
        ("cnx.form", form.to_string()),
        ("cnx.spec_hash", spec.hash()),
        ("cnx.spec", spec.to_json()),
        ("cnx.input", normalisation(spec)),
    ];
    pairs.map(|(key, value)| schema::StringStringEntryProto { key: key.to_owned(), value }).into()
}
