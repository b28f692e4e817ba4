//! A pickle as data. Python's pickle is a program for a small machine that may call anything; this machine knows the
//! handful of calls of which a state dict is made ([`super::globals`]), carries them out itself, and refuses all else.
//!
//! Values lie in one list and name each other by number. So what is memoised and fetched a million times is not
//! copied, what contains itself is no danger, and nothing here recurses.

use super::globals::Global;
use super::machine::Machine;
use crate::ReadError;
use crate::budget::Budget;
use crate::element::Element;

/// A run of bytes of the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub at: u32,
    pub len: u32,
}

/// A value of 16 bytes: what is larger lies in a [`Node`] or in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number of more than 64 bits: its bytes.
    Long(Span),
    Float(f64),
    /// A text, or bytes: Python 2 did not tell them apart.
    Text(Span),
    Global(Global),
    /// Something that nobody needs.
    Inert,
    /// The number of a node.
    Node(u32),
}

/// A value that holds others.
#[derive(Debug)]
pub(super) enum Node {
    Tuple(Vec<Value>),
    /// A list or a set.
    List(Vec<Value>),
    /// Pairs in the order in which they were set; of equal keys, the last counts.
    Dict(Vec<(Value, Value)>),
    // Boxed, so that the many nodes that are neither stay small.
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
}

/// Elements that lie elsewhere in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage {
    /// Its name in the container.
    pub key: Span,
    pub element: Element,
    /// Elements of the storage that is saved.
    pub len: u64,
    /// First element and number of elements of the part that is meant (before 0.4 a storage could be a part of another).
    pub part: (u64, u64),
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub storage: Storage,
    /// First element, within the storage's part.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// Elements from one index to the next, in each dimension.
    pub strides: Vec<u64>,
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    /// What the pickle is of.
    pub root: Value,
    /// Bytes that it took.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle from the start of `bytes`, which may go on after it.
    ///
    /// # Errors
    /// When it is no pickle, is cut short, takes more than the budget, or asks for what no state dict needs.
    pub fn read(bytes: &'a [u8], budget: &mut Budget) -> Result<Pickle<'a>, ReadError> {
        // Spans count in 32 bits.
        let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
        let (root, length, nodes) = Machine::new(bytes, budget).run()?;
        Ok(Pickle { bytes, nodes, root, length })
    }

    /// The bytes of a text.
    pub fn text(&self, span: Span) -> &'a [u8] {
        let at = span.at as usize;
        self.bytes.get(at..at + span.len as usize).unwrap_or_default()
    }

    /// All storages that it names.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes
            .iter()
            .filter_map(|node| if let Node::Storage(storage) = node { Some(storage.as_ref()) } else { None })
    }

    /// The node of a value that has one.
    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(number) => self.nodes.get(number as usize),
            _ => None,
        }
    }

    /// The pairs of a dict.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The value of a text key of a dict.
    pub fn get(&self, pairs: &[(Value, Value)], key: &str) -> Option<Value> {
        pairs.iter().rev().find(|(k, _)| self.is_text(*k, key)).map(|&(_, value)| value)
    }

    /// Whether a value is this text.
    pub fn is_text(&self, value: Value, text: &str) -> bool {
        matches!(value, Value::Text(span) if self.text(span) == text.as_bytes())
    }
}
