//! What torch.save writes, read without torch and without running anything.
//!
//! Start at [`read`]; then `pickle.rs` and `machine.rs` (the object), `globals.rs` (what a pickle may ask for), `zip.rs` and
//! `legacy.rs` (the two containers), `tensors.rs` (views of storages).

mod cursor;
mod globals;
mod legacy;
mod machine;
mod pickle;
mod tensors;
mod zip;

use std::collections::BTreeMap;

use crate::budget::Budget;
use crate::error::shown;
use crate::{Array, Container, ReadError};
use pickle::{Node, Pickle, Tensor, Value};
use tensors::Storages;

/// Keys under which people save a state dict, beside the epoch, the optimizer and what else there is.
const STATE_DICT_KEYS: [&str; 6] =
    ["state_dict", "model_state_dict", "model", "net", "model_state", "weights"];

/// A state dict as it lies in a file.
#[derive(Debug)]
pub(crate) struct Found {
    /// The key of the checkpoint under which it lay; none: it is the whole file.
    pub key: Option<&'static str>,
    /// The key `epoch` of the checkpoint.
    pub epoch: Option<i64>,
    /// The JSON of the spec that cnx puts into the files that it exports.
    pub spec_json: Option<String>,
    pub tensors: BTreeMap<String, Array>,
}

/// Whether a file begins as a file of torch does.
pub(crate) fn container(bytes: &[u8]) -> Option<Container> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        Some(Container::TorchZip)
    } else {
        legacy::is_legacy(bytes).then_some(Container::TorchLegacy)
    }
}

/// Reads the state dict of a file.
///
/// # Errors
/// When it is damaged, holds none, or asks for anything that no state dict needs.
pub(crate) fn read(bytes: &[u8], container: Container, budget: &mut Budget) -> Result<Found, ReadError> {
    if container == Container::TorchLegacy {
        let (object, layout) = legacy::read(bytes, budget)?;
        return found(&object, &layout, budget);
    }
    let archive = zip::Archive::open(bytes, budget)?;
    let content = archive.pickle(budget)?;
    let object = Pickle::read(&content, budget)?;
    Ok(Found { spec_json: archive.spec_json(budget)?, ..found(&object, &archive, budget)? })
}

/// Whether a file that is in no container is at least a pickle, and one that would run code.
pub(crate) fn bare_pickle(bytes: &[u8], budget: &mut Budget) -> Result<(), ReadError> {
    match Pickle::read(bytes, budget) {
        Err(ReadError::Damaged(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            Err(ReadError::NotACheckpoint("it is a pickle, but not one that torch.save wrote".to_owned()))
        }
    }
}

fn found(object: &Pickle<'_>, storages: &impl Storages, budget: &mut Budget) -> Result<Found, ReadError> {
    let Some(root) = object.dict(object.root) else {
        return Err(ReadError::NotACheckpoint("what it holds is no dict".to_owned()));
    };
    let (key, pairs) = state_dict(object, root)?;
    let epoch = match object.get(root, "epoch") {
        Some(Value::Int(epoch)) if key.is_some() => Some(epoch),
        _ => None,
    };
    // Of equal names the one set last counts, as in Python.
    let mut named = BTreeMap::new();
    for &(name, value) in pairs {
        let Value::Text(name) = name else {
            return Err(ReadError::damaged("a name in its state dict is no text"));
        };
        let name = object.text(name);
        let Some(Node::Tensor(tensor)) = object.node(value) else {
            let name = shown(name);
            return Err(ReadError::unsupported(format!("{name} in its state dict is no tensor")));
        };
        let text =
            str::from_utf8(name).map_err(|_| ReadError::damaged("a name in its state dict is not UTF-8"))?;
        named.insert(text, tensor.as_ref());
    }
    Ok(Found { key, epoch, spec_json: None, tensors: arrays(object, named, storages, budget)? })
}

/// The pairs of a dict.
type Pairs = [(Value, Value)];

/// The pairs of the state dict, and the key under which it lies.
fn state_dict<'p>(
    object: &'p Pickle<'_>,
    root: &'p Pairs,
) -> Result<(Option<&'static str>, &'p Pairs), ReadError> {
    for key in STATE_DICT_KEYS {
        if let Some(pairs) = object.get(root, key).and_then(|value| object.dict(value)) {
            return Ok((Some(key), pairs));
        }
    }
    let is_tensor = |&(_, value): &(Value, Value)| matches!(object.node(value), Some(Node::Tensor(_)));
    if root.iter().any(is_tensor) {
        return Ok((None, root));
    }
    let keys = root.iter().take(8).map(|&(key, _)| match key {
        Value::Text(span) => shown(object.text(span)),
        _ => "…".to_owned(),
    });
    let keys: Vec<String> = keys.collect();
    let message =
        format!("it has no state dict: neither tensors nor a key state_dict, but [{}]", keys.join(", "));
    Err(ReadError::NotACheckpoint(message))
}

/// The arrays of the tensors. Those of one storage come one after the other, so that each is loaded once.
fn arrays(
    object: &Pickle<'_>,
    named: BTreeMap<&str, &Tensor>,
    storages: &impl Storages,
    budget: &mut Budget,
) -> Result<BTreeMap<String, Array>, ReadError> {
    let key = |tensor: &Tensor| object.text(tensor.storage.key);
    let mut named: Vec<_> = named.into_iter().collect();
    named.sort_by_key(|(_, tensor)| key(tensor));
    let mut arrays = BTreeMap::new();
    for group in named.chunk_by(|a, b| key(a.1) == key(b.1)) {
        let storage = &group[0].1.storage;
        let bytes = storages.load(key(group[0].1), storage, budget)?;
        for (name, tensor) in group {
            let of_tensor = |error| match error {
                ReadError::Damaged(what) => ReadError::Damaged(format!("{}: {what}", shown(name.as_bytes()))),
                other => other,
            };
            if (tensor.storage.len, tensor.storage.element) != (storage.len, storage.element) {
                return Err(of_tensor(ReadError::damaged("its storage has two sizes")));
            }
            budget.spend(2 * name.len() as u64)?;
            arrays.insert((*name).to_owned(), tensors::array(tensor, &bytes, budget).map_err(of_tensor)?);
        }
    }
    Ok(arrays)
}
