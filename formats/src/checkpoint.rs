//! A checkpoint that comes from elsewhere: recognised by its content, whatever its name, and brought into the form of
//! our own.

use std::collections::BTreeMap;
use std::fmt;

use crate::budget::Budget;
use crate::error::{shortened, shown};
use crate::{Array, ReadError, StateDict, safetensors, torch};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// torch.save of torch 1.6 and later.
    TorchZip,
    /// torch.save before 1.6.
    TorchLegacy,
    /// safetensors.
    Safetensors,
}

impl Container {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Container::TorchZip => "torch-zip",
            Container::TorchLegacy => "torch-legacy",
            Container::Safetensors => "safetensors",
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Container::TorchZip => "PyTorch's zip container (1.6 and later)",
            Container::TorchLegacy => "PyTorch's legacy container (before 1.6)",
            Container::Safetensors => "safetensors",
        })
    }
}

/// A state dict from a file, and where in the file it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The tensors, under names without `module`.
    pub state: StateDict,
    /// What the file is.
    pub container: Container,
    /// The key of the checkpoint under which the state dict lay, e.g. `state_dict`; none: it is the whole file.
    pub key: Option<&'static str>,
    /// The epoch that the checkpoint tells.
    pub epoch: Option<i64>,
    /// Whether the names had the component `module`, with which data parallel training wraps a model.
    pub data_parallel: bool,
}

/// Reads the bytes of a file.
///
/// Memory and time are bounded by the file's size, whatever the file says: beside the file itself, at most 16 MiB and four
/// bytes for each of its own. Nothing of a file is ever run.
///
/// # Errors
/// When it is of no known format, damaged, out of all proportion, or a pickle that would run code.
pub fn read(bytes: &[u8]) -> Result<Checkpoint, ReadError> {
    let mut budget = Budget::for_file(bytes.len());
    if safetensors::recognise(bytes) {
        let state = safetensors::read_within(bytes, &mut budget).map_err(|error| match error {
            ReadError::Damaged(what) => ReadError::Damaged(shortened(&what)),
            ReadError::Unsupported(what) => ReadError::Unsupported(shortened(&what)),
            other => other,
        })?;
        let (tensors, data_parallel) = unwrapped(state.tensors)?;
        let state = StateDict { tensors, ..state };
        return Ok(Checkpoint {
            state,
            container: Container::Safetensors,
            key: None,
            epoch: None,
            data_parallel,
        });
    }
    let Some(container) = torch::container(bytes) else { return Err(unknown(bytes, &mut budget)) };
    let found = torch::read(bytes, container, &mut budget)?;
    let (tensors, data_parallel) = unwrapped(found.tensors)?;
    let state = StateDict { tensors, spec_json: found.spec_json };
    Ok(Checkpoint { state, container, key: found.key, epoch: found.epoch, data_parallel })
}

/// The tensors under names without the component `module`, and whether any name had it.
fn unwrapped(tensors: BTreeMap<String, Array>) -> Result<(BTreeMap<String, Array>, bool), ReadError> {
    const WRAPPER: &str = "module";
    if !tensors.keys().any(|name| name.split('.').any(|part| part == WRAPPER)) {
        return Ok((tensors, false));
    }
    let mut plain = BTreeMap::new();
    for (name, array) in tensors {
        let short: Vec<&str> = name.split('.').filter(|&part| part != WRAPPER).collect();
        if plain.insert(short.join("."), array).is_some() {
            let name = shown(name.as_bytes());
            return Err(ReadError::unsupported(format!("it has {name} both with and without `{WRAPPER}`")));
        }
    }
    Ok((plain, true))
}

/// Why a file of no known format is refused.
fn unknown(bytes: &[u8], budget: &mut Budget) -> ReadError {
    const TAR_MAGIC_AT: usize = 257;
    if bytes.is_empty() {
        return ReadError::NotACheckpoint("the file is empty".to_owned());
    }
    if bytes.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return ReadError::unsupported(
            "it is a tar archive, as torch wrote before 0.1.10; load it with torch and save its state dict again",
        );
    }
    // Python's pickles begin with their protocol, or, of the oldest, with one of these.
    if matches!(bytes[0], 0x80 | b'c' | b'(' | b'}' | b']')
        && let Err(error) = torch::bare_pickle(bytes, budget)
    {
        return error;
    }
    let first = shown(&bytes[..bytes.len().min(8)]);
    ReadError::NotACheckpoint(format!("it begins with `{first}`"))
}
