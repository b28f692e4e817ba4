//! The machine that a pickle is a program for: a stack, marks in it, and a memo. Protocols 2 to 5, as torch writes them.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::globals::{Global, global};
use super::pickle::{Node, Storage, Tensor, Value};
use crate::ReadError;
use crate::budget::Budget;

/// What a value costs where it is pushed or kept: while a list grows, there are its old and its new place, twice as large.
const VALUE_BYTES: u64 = 3 * size_of::<Value>() as u64;
const NODE_BYTES: u64 = 3 * size_of::<Node>() as u64;
const MEMO_BYTES: u64 = 4 * size_of::<(u32, Value)>() as u64;
/// More dimensions than any array has.
const MOST_DIMENSIONS: usize = 16;

pub(super) struct Machine<'a, 'b> {
    cursor: Cursor<'a>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    nodes: Vec<Node>,
    budget: &'b mut Budget,
}

type Result<T = ()> = std::result::Result<T, ReadError>;

impl<'a, 'b> Machine<'a, 'b> {
    pub fn new(bytes: &'a [u8], budget: &'b mut Budget) -> Machine<'a, 'b> {
        let (stack, marks, nodes) = (Vec::new(), Vec::new(), Vec::new());
        Machine { cursor: Cursor::new(bytes), stack, marks, memo: HashMap::new(), nodes, budget }
    }

    /// The root, the bytes that the pickle took, and the nodes.
    pub fn run(mut self) -> Result<(Value, usize, Vec<Node>)> {
        loop {
            let at = self.cursor.at;
            let op = self.cursor.byte()?;
            if op == b'.' {
                return Ok((self.pop()?, self.cursor.at, self.nodes));
            }
            let done = self.scalar(op)? || self.container(op)? || self.bookkeeping(op)? || self.object(op)?;
            if !done {
                let op = char::from(op).escape_default();
                return Err(ReadError::damaged(format!(
                    "byte {at} of its pickle, `{op}`, is no instruction of the protocols 2 to 5"
                )));
            }
        }
    }

    /// Numbers and texts.
    fn scalar(&mut self, op: u8) -> Result<bool> {
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.cursor.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.cursor.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.cursor.array()?).into()),
            0x8a => self.cursor.long(1)?,
            0x8b => self.cursor.long(4)?,
            b'G' => Value::Float(f64::from_be_bytes(self.cursor.array()?)),
            b'U' | b'C' | 0x8c => Value::Text(self.cursor.span(1)?),
            b'T' | b'X' | b'B' => Value::Text(self.cursor.span(4)?),
            0x8d | 0x8e | 0x96 => Value::Text(self.cursor.span(8)?),
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    /// Tuples, lists, sets and dicts.
    fn container(&mut self, op: u8) -> Result<bool> {
        match op {
            b')' => self.push_node(Node::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let items = self.pop_last(usize::from(op) - 0x84)?;
                self.push_node(Node::Tuple(items))?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Tuple(items))?;
            }
            b']' | 0x8f => self.push_node(Node::List(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::List(items))?;
            }
            b'a' => {
                let items = self.pop_last(1)?;
                self.append(items)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Dict(Vec::new()))?;
                self.set(items)?;
            }
            b's' => {
                let items = self.pop_last(2)?;
                self.set(items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Marks, the memo, the protocol.
    fn bookkeeping(&mut self, op: u8) -> Result<bool> {
        match op {
            0x80 => {
                let protocol = self.cursor.byte()?;
                if protocol > 5 {
                    return Err(ReadError::unsupported(format!(
                        "its pickle is of protocol {protocol}; 2 to 5 are read"
                    )));
                }
            }
            // The length of a frame, for those who read from a stream.
            0x95 => drop(self.cursor.array::<8>()?),
            b'(' => {
                self.budget.spend(VALUE_BYTES)?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'q' => {
                let number = self.cursor.byte()?.into();
                self.memoise(number)?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.cursor.array()?);
                self.memoise(number)?;
            }
            0x94 => self.memoise(self.memo.len() as u32)?,
            b'h' => {
                let number = self.cursor.byte()?.into();
                self.recall(number)?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.cursor.array()?);
                self.recall(number)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Callables, their calls, and what lies elsewhere in the file.
    fn object(&mut self, op: u8) -> Result<bool> {
        match op {
            // GLOBAL names a callable; INST names one and calls it.
            b'c' | b'i' => {
                let (module, name) = (self.cursor.line()?, self.cursor.line()?);
                let global = global(module, name)?;
                if op == b'i' {
                    return Err(ReadError::damaged("its pickle builds objects in the manner of protocol 0"));
                }
                self.push(Value::Global(global))?;
            }
            0x93 => {
                let items = self.pop_last(2)?;
                let [Value::Text(module), Value::Text(name)] = items[..] else {
                    return Err(ReadError::damaged("its pickle asks for a callable whose name is no text"));
                };
                let global = global(self.cursor.text(module), self.cursor.text(name))?;
                self.push(Value::Global(global))?;
            }
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, args)?;
            }
            0x92 => {
                let _keywords = self.pop()?;
                let args = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, args)?;
            }
            // BUILD sets attributes, e.g. the versions of the modules on a state dict: none counts.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self
                    .storage(id)
                    .ok_or_else(|| ReadError::damaged("its pickle names a storage wrongly"))?;
                self.budget.spend(size_of::<Storage>() as u64)?;
                self.push_node(Node::Storage(Box::new(storage)))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn call(&mut self, callable: Value, args: Value) -> Result {
        let Value::Global(callable) = callable else {
            return Err(ReadError::damaged("its pickle calls what is no callable"));
        };
        let args = match args {
            Value::Node(number) => match self.nodes.get(number as usize) {
                Some(Node::Tuple(args)) => args.as_slice(),
                _ => return Err(ReadError::damaged("its pickle calls with what is no tuple")),
            },
            _ => return Err(ReadError::damaged("its pickle calls with what is no tuple")),
        };
        let wrong = || ReadError::damaged(format!("its pickle calls {callable:?} with the wrong arguments"));
        match callable {
            Global::OrderedDict => {
                let pairs = self.pairs(args).ok_or_else(wrong)?;
                self.budget.spend(VALUE_BYTES * 2 * pairs.len() as u64)?;
                self.push_node(Node::Dict(pairs))
            }
            Global::RebuildTensor => {
                let tensor = self.tensor(args).ok_or_else(wrong)?;
                self.budget.spend((size_of::<Tensor>() + 2 * size_of_val(tensor.shape.as_slice())) as u64)?;
                self.push_node(Node::Tensor(Box::new(tensor)))
            }
            Global::Size | Global::RebuildParameter => {
                let first = args.first().copied().ok_or_else(wrong)?;
                self.push(first)
            }
            Global::Inert => self.push(Value::Inert),
            Global::Storage(_) => Err(wrong()),
        }
    }

    /// OrderedDict(), or OrderedDict([(key, value), …]).
    fn pairs(&self, args: &[Value]) -> Option<Vec<(Value, Value)>> {
        let Some(&items) = args.first() else { return Some(Vec::new()) };
        let Node::List(items) = self.node(items)? else { return None };
        let pair = |&item: &Value| match self.node(item)? {
            Node::Tuple(pair) | Node::List(pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        };
        items.iter().map(pair).collect()
    }

    /// The persistent identifier ('storage', type, key, location, elements[, (key, first, elements) of a part]). Where
    /// it lay (a GPU) does not matter.
    fn storage(&self, id: Value) -> Option<Storage> {
        let Node::Tuple(id) = self.node(id)? else { return None };
        let &[
            Value::Text(kind),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            _,
            len,
            ref rest @ ..,
        ] = id.as_slice()
        else {
            return None;
        };
        let len = whole(len)?;
        let part = match rest.first() {
            None | Some(Value::None) => (0, len),
            Some(&part) => {
                let Node::Tuple(part) = self.node(part)? else { return None };
                let &[_, first, elements] = part.as_slice() else { return None };
                let (first, elements) = (whole(first)?, whole(elements)?);
                (first.checked_add(elements)? <= len).then_some((first, elements))?
            }
        };
        (self.cursor.text(kind) == b"storage").then_some(Storage { key, element, len, part })
    }

    /// A tensor of (storage, offset, sizes, strides, …).
    fn tensor(&self, args: &[Value]) -> Option<Tensor> {
        let &[storage, offset, shape, strides, ..] = args else { return None };
        let Node::Storage(storage) = self.node(storage)? else { return None };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        (shape.len() == strides.len()).then_some(Tensor {
            storage: **storage,
            offset: whole(offset)?,
            shape,
            strides,
        })
    }

    fn sizes(&self, value: Value) -> Option<Vec<u64>> {
        let (Node::Tuple(sizes) | Node::List(sizes)) = self.node(value)? else { return None };
        (sizes.len() <= MOST_DIMENSIONS).then(|| sizes.iter().map(|&size| whole(size)).collect())?
    }

    fn append(&mut self, items: Vec<Value>) -> Result {
        self.budget.spend(VALUE_BYTES * items.len() as u64)?;
        match self.top_node()? {
            Some(Node::List(list)) => list.extend(items),
            // What a thing of no interest holds is of none either.
            None => {}
            Some(_) => return Err(ReadError::damaged("its pickle appends to what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value>) -> Result {
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(ReadError::damaged("its pickle sets a key without a value"));
        }
        self.budget.spend(VALUE_BYTES * items.len() as u64)?;
        match self.top_node()? {
            Some(Node::Dict(dict)) => dict.extend(pairs.map(|pair| (pair[0], pair[1]))),
            None => {}
            Some(_) => return Err(ReadError::damaged("its pickle sets keys of what is no dict")),
        }
        Ok(())
    }

    /// The node on top of the stack; none for something of no interest.
    fn top_node(&mut self) -> Result<Option<&mut Node>> {
        match self.top()? {
            Value::Inert => Ok(None),
            Value::Node(number) => Ok(self.nodes.get_mut(number as usize)),
            _ => Err(ReadError::damaged("its pickle adds to what holds nothing")),
        }
    }

    fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(number) => self.nodes.get(number as usize),
            _ => None,
        }
    }

    fn memoise(&mut self, number: u32) -> Result {
        self.budget.spend(MEMO_BYTES)?;
        let top = self.top()?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result {
        let missing = || ReadError::damaged(format!("its pickle recalls {number}, which it never memoised"));
        let value = *self.memo.get(&number).ok_or_else(missing)?;
        self.push(value)
    }

    fn push(&mut self, value: Value) -> Result {
        self.budget.spend(VALUE_BYTES)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result {
        self.budget.spend(NODE_BYTES)?;
        let number = self.nodes.len() as u32;
        self.nodes.push(node);
        self.push(Value::Node(number))
    }

    /// The stack ends at the innermost mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value> {
        self.stack[self.floor()..].last().copied().ok_or_else(empty)
    }

    fn pop(&mut self) -> Result<Value> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_last(&mut self, count: usize) -> Result<Vec<Value>> {
        let at = self.stack.len().checked_sub(count).filter(|&at| at >= self.floor()).ok_or_else(empty)?;
        self.budget.spend(VALUE_BYTES * count as u64)?;
        Ok(self.stack.split_off(at))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(empty)?;
        self.budget.spend(VALUE_BYTES * (self.stack.len() - mark) as u64)?;
        Ok(self.stack.split_off(mark))
    }
}

fn whole(value: Value) -> Option<u64> {
    match value {
        Value::Int(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

fn empty() -> ReadError {
    ReadError::damaged("its pickle takes more values than it has pushed")
}
