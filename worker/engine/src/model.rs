//! A model: a network's spec and its weights, checked.

use std::fs;
use std::path::Path;

use cnx_formats::{StateDict, check, checkpoint};
use cnx_proto::Spec;
use cnx_proto::architecture::{self, Form, Layer, Op};

use crate::instructions::Vectors;
use crate::network::Network;
use crate::packed::Packed;
use crate::{Error, Instructions};

/// Most memory that the maps of one image may take: ten times what the paper's largest networks do, and less than what fits an
/// offset.
const MOST_BYTES: u64 = 1 << 30;

/// A network that is ready to run. Immutable: any number of [`crate::Runner`]s share one.
#[derive(Debug)]
pub struct Model {
    spec: Spec,
    network: Network,
    pub(crate) packed: Packed,
    pub(crate) vectors: Vectors,
}

impl Model {
    /// Reads a safetensors model that carries its spec: what `cnx` converts, exports and imports.
    ///
    /// # Errors
    /// When it cannot be read, or is not such a model.
    pub fn open(path: &Path) -> Result<Model, Error> {
        let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
        // Of a pipe or a device there is no end to wait for.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("it is not a file")));
        }
        Model::decode(&fs::read(path).map_err(unreadable)?)
    }

    /// The same from the bytes of a file.
    ///
    /// # Errors
    /// When they are no such model. Memory stays in proportion to their length, whatever they say.
    pub fn decode(bytes: &[u8]) -> Result<Model, Error> {
        let state = checkpoint::read(bytes)?.state;
        let spec = state.spec_json.as_deref().ok_or(Error::NoSpec)?;
        let spec = Spec::from_json(spec).map_err(Error::Spec)?;
        Model::new(&spec, &state)
    }

    /// A network of a spec with these tensors.
    ///
    /// # Errors
    /// When they are not of the spec's network, or it is none of dense blocks.
    pub fn new(spec: &Spec, state: &StateDict) -> Result<Model, Error> {
        let arch = spec.model.arch;
        if !arch.is_dense() {
            return Err(Error::Unsupported(format!(
                "the model is a {arch}; expected a condensenet, densenet-lgc or densenet"
            )));
        }
        // Each layer has more tensors than that; the check lists what is missing by name.
        let layers: u64 = spec.model.stages.iter().map(|&n| u64::from(n)).sum();
        let tensors = state.tensors.len();
        if layers > tensors as u64 {
            return Err(Error::Tensors(format!(
                "the spec has {layers} layers, but there are only {tensors} tensors"
            )));
        }
        let report = check::check(state, spec);
        if !report.problems.is_empty() {
            return Err(Error::of(&report));
        }
        let bytes = maps(spec, report.form);
        if bytes > MOST_BYTES {
            return Err(Error::TooLarge { bytes, limit: MOST_BYTES });
        }
        let network = Network::new(spec, state);
        let vectors = Vectors::of(Instructions::Auto)?;
        let packed = Packed::new(&network, vectors.core());
        Ok(Model { spec: spec.clone(), network, packed, vectors })
    }

    /// The spec of its network.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The same model on other instructions than the best that the CPU has.
    ///
    /// # Errors
    /// When the CPU lacks them.
    pub fn with_instructions(self, instructions: Instructions) -> Result<Model, Error> {
        let vectors = Vectors::of(instructions)?;
        let packed = Packed::new(&self.network, vectors.core());
        Ok(Model { packed, vectors, ..self })
    }
}

/// Bytes of all maps that the layers of a network make.
fn maps(spec: &Spec, form: Form) -> u64 {
    let made = |layer: &Layer| match layer.op {
        Op::Conv { .. } | Op::LearnedGroupConv { .. } | Op::AvgPool { .. } => {
            4 * layer.out_channels * layer.out_size * layer.out_size
        }
        _ => 0,
    };
    architecture::layers(&spec.model, spec.data.dataset, form).iter().map(made).sum()
}
