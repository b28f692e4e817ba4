//! The container before torch 1.6, that of the released models: one pickle after another (a magic number, the version,
//! the machine that wrote it, the object, the keys of the storages) and then the storages in the order of their keys,
//! each its number of elements and then the elements.

use std::borrow::Cow;
use std::collections::HashMap;

use super::pickle::{Node, Pickle, Storage, Value};
use super::tensors::{Storages, storage_bytes};
use crate::ReadError;
use crate::budget::Budget;
use crate::error::shown;

/// The first pickle's number, 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The magic number stands within so many bytes, whatever the protocol.
const MAGIC_WITHIN: usize = 32;
const VERSION: i64 = 1001;

/// Whether a file begins as this container does.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(MAGIC_WITHIN)].windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// Where the storages lie.
pub(super) struct Layout<'a> {
    storages: HashMap<&'a [u8], &'a [u8]>,
}

/// Reads the object and finds its storages.
pub(super) fn read<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<(Pickle<'a>, Layout<'a>), ReadError> {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'a>, ReadError> {
        let pickle = Pickle::read(&bytes[at..], budget)?;
        at += pickle.length;
        Ok(pickle)
    };
    next()?;
    let version = next()?.root;
    if version != Value::Int(VERSION) {
        return Err(ReadError::unsupported(format!(
            "its container is of a version that is not known ({version:?})"
        )));
    }
    let machine = next()?;
    let order = machine.dict(machine.root).and_then(|pairs| machine.get(pairs, "little_endian"));
    match order {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            return Err(ReadError::unsupported(
                "it was saved on a big-endian machine; load it with torch and save it on another",
            ));
        }
        _ => return Err(ReadError::damaged("it does not say which byte order it has")),
    }
    let object = next()?;
    let keys = next()?;
    let Some(Node::List(list)) = keys.node(keys.root) else {
        return Err(ReadError::damaged("it does not list its storages"));
    };
    let layout = layout(&bytes[at..], &object, &keys, list)?;
    Ok((object, layout))
}

fn layout<'a>(
    mut rest: &'a [u8],
    object: &Pickle<'a>,
    keys: &Pickle<'a>,
    list: &[Value],
) -> Result<Layout<'a>, ReadError> {
    let mut sizes: HashMap<&[u8], &Storage> = HashMap::new();
    for storage in object.storages() {
        let key = object.text(storage.key);
        let first = sizes.entry(key).or_insert(storage);
        if (first.len, first.element) != (storage.len, storage.element) {
            return Err(ReadError::damaged(format!("its storage {} has two sizes", shown(key))));
        }
    }
    let mut storages = HashMap::with_capacity(list.len().min(sizes.len()));
    for &key in list {
        let Value::Text(key) = key else {
            return Err(ReadError::damaged("it lists a storage whose key is no text"));
        };
        let key = keys.text(key);
        let unknown = || ReadError::damaged(format!("its storage {} belongs to no tensor", shown(key)));
        let storage = *sizes.get(key).ok_or_else(unknown)?;
        let (elements, after) = rest.split_first_chunk().ok_or_else(|| cut(key))?;
        let elements = i64::from_le_bytes(*elements);
        if u64::try_from(elements) != Ok(storage.len) {
            let (key, expected) = (shown(key), storage.len);
            return Err(ReadError::damaged(format!(
                "its storage {key} has {elements} elements, {expected} by the pickle"
            )));
        }
        let length =
            storage_bytes(storage).filter(|&length| length <= after.len()).ok_or_else(|| cut(key))?;
        let (content, after) = after.split_at(length);
        storages.insert(key, content);
        rest = after;
    }
    Ok(Layout { storages })
}

fn cut(key: &[u8]) -> ReadError {
    ReadError::damaged(format!("it ends before its storage {} does", shown(key)))
}

impl Storages for Layout<'_> {
    fn load(&self, key: &[u8], _: &Storage, _: &mut Budget) -> Result<Cow<'_, [u8]>, ReadError> {
        let missing = || ReadError::damaged(format!("its storage {} is missing", shown(key)));
        self.storages.get(key).map(|&bytes| Cow::Borrowed(bytes)).ok_or_else(missing)
    }
}
