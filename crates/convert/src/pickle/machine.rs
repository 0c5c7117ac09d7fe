//! A pickle interpreter that executes no code.
//!
//! A pickle is a program for a stack machine; Python's interpreter lets it call any function. This one supports the opcodes
//! that `torch.save` emits (protocols 2 to 5) and a fixed list of globals, each of which becomes plain data: dictionaries,
//! lists, tuples, numbers, strings, storages and tensors. Any other global is an error with its name, any other opcode an error
//! with its position. Values are stored in one arena and refer to each other by index, so cycles and deep nesting are harmless.
//! All memory that a program can allocate is counted and limited by [`MAX_MEMORY`].
//!
//! The opcodes are defined in CPython's `Lib/pickletools.py`, the globals in `torch/_utils.py`.

use std::collections::HashMap;
use std::io::{self, Read};

use safetensors::Dtype;

/// Maximal length of a program in bytes. A checkpoint with optimizer state of a thousand tensors needs about 200 KB.
const MAX_PROGRAM: u64 = 32 << 20;
/// Maximal size of values, stack and memo in bytes.
const MAX_MEMORY: usize = 128 << 20;
/// Maximal number of axes of a tensor.
const MAX_AXES: usize = 16;

/// A value. Larger values are in the arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A floating-point number, whose value is not needed.
    Float,
    Global(Global),
    Node(usize),
}

/// The supported globals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch.Size`: a tuple.
    Size,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`, `…_with_state` and `torch.nn.parameter.Parameter`: the result is their first argument.
    Parameter,
    /// `torch.FloatStorage` and similar classes.
    Storage(Dtype),
    /// `torch.float32` and similar values, which are not needed.
    Inert,
}

/// A value in the arena.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Text(String),
    Bytes,
    /// An integer beyond 64 bits, little-endian two's complement.
    BigInt(Vec<u8>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(View),
}

/// A storage, as described by `torch.save`'s persistent id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storage {
    pub(crate) dtype: Dtype,
    /// The name of its bytes in the file.
    pub(crate) key: String,
    /// Number of elements.
    pub(crate) count: usize,
    /// First element and number of elements, if it is a part of that storage (torch before 0.4).
    pub(crate) part: Option<(usize, usize)>,
}

/// A tensor, which is a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) storage: Storage,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// Why a program failed.
#[derive(Debug)]
pub(crate) enum PickleError {
    /// It refers to a Python global that is not on the list.
    Global { at: u64, global: String },
    /// It is not a program of `torch.save`.
    Program { at: u64, reason: String },
    /// A read error of the system.
    Io(io::Error),
}

/// The result of a program.
pub(crate) struct Unpickled {
    pub(crate) root: Value,
    nodes: Vec<Node>,
}

impl Unpickled {
    pub(crate) fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }

    /// Every storage to which the program refers.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    pub(crate) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    pub(crate) fn text(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The global with this module and name, if it is on the list.
fn known_global(module: &str, name: &str) -> Option<Global> {
    let storage = |name: &str| {
        Some(Global::Storage(match name {
            "FloatStorage" => Dtype::F32,
            "DoubleStorage" => Dtype::F64,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::BOOL,
            _ => return None,
        }))
    };
    match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch.nn.parameter", "Parameter") => Some(Global::Parameter),
        ("torch", "float32" | "float64" | "float16" | "bfloat16" | "int64" | "int32" | "int16" | "int8" | "uint8") => {
            Some(Global::Inert)
        }
        ("torch" | "torch.cuda", name) => storage(name),
        _ => None,
    }
}

/// Runs the program at the start of `input` up to its STOP opcode. Returns the result and the length of the program.
///
/// # Errors
/// [`PickleError`].
pub(crate) fn run(input: impl Read) -> Result<(Unpickled, u64), PickleError> {
    let mut machine = Machine {
        input,
        at: 0,
        opcode_at: 0,
        memory: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
    };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok((Unpickled { root, nodes: machine.nodes }, machine.at))
}

struct Machine<R> {
    input: R,
    /// Number of bytes read.
    at: u64,
    /// Position of the current opcode, for errors.
    opcode_at: u64,
    /// Number of bytes counted against [`MAX_MEMORY`].
    memory: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    nodes: Vec<Node>,
}

type PickleResult<T = ()> = Result<T, PickleError>;

impl<R: Read> Machine<R> {
    fn error<T>(&self, reason: impl Into<String>) -> PickleResult<T> {
        Err(PickleError::Program { at: self.opcode_at, reason: reason.into() })
    }

    // ------------------------------------------------------------------------------------------ input

    fn take<const N: usize>(&mut self) -> PickleResult<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, to: &mut [u8]) -> PickleResult {
        self.at = self.at.saturating_add(to.len() as u64);
        if self.at > MAX_PROGRAM {
            return self.error(format!("the program is longer than {MAX_PROGRAM} bytes"));
        }
        match self.input.read_exact(to) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => self.error("the program ends before its STOP"),
            Err(e) => Err(PickleError::Io(e)),
            Ok(()) => Ok(()),
        }
    }

    fn bytes(&mut self, length: u64) -> PickleResult<Vec<u8>> {
        let length = match usize::try_from(length) {
            Ok(length) if length as u64 <= MAX_PROGRAM => length,
            _ => return self.error(format!("a string of {length} bytes is too long")),
        };
        self.charge(length)?;
        let mut bytes = Vec::new();
        // In pieces, because the length may be wrong.
        while bytes.len() < length {
            let from = bytes.len();
            bytes.resize(length.min(from + (1 << 16)), 0);
            let piece = bytes.get_mut(from..).unwrap_or_default();
            self.at = self.at.saturating_add(piece.len() as u64);
            match self.input.read_exact(piece) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.error(format!("the program ends within a string of {length} bytes"));
                }
                Err(e) => return Err(PickleError::Io(e)),
                Ok(()) => {}
            }
        }
        Ok(bytes)
    }

    /// A line of a GLOBAL, without its line end.
    fn line(&mut self) -> PickleResult<String> {
        let mut line = Vec::new();
        loop {
            match self.take::<1>()? {
                [b'\n'] => break,
                [byte] if line.len() < 256 => line.push(byte),
                _ => return self.error("a global's name has more than 256 bytes"),
            }
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    // ------------------------------------------------------------------------------------------ memory

    fn charge(&mut self, bytes: usize) -> PickleResult {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MAX_MEMORY {
            return self
                .error(format!("its values need more than {MAX_MEMORY} bytes, which is too much for a checkpoint"));
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> PickleResult {
        // Twice the size, because of a vector's spare capacity.
        self.charge(2 * size_of::<Value>())?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> PickleResult<Value> {
        // Values below the last mark must not be popped.
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => self.error("an opcode pops more values than the stack has"),
        }
    }

    fn top(&self) -> PickleResult<Value> {
        match self.stack.last() {
            Some(&value) if self.stack.len() > self.marks.last().copied().unwrap_or(0) => Ok(value),
            _ => self.error("an opcode reads an empty stack"),
        }
    }

    /// Pops the values above the last mark, and the mark.
    fn pop_mark(&mut self) -> PickleResult<Vec<Value>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.error("an opcode needs a mark, but there is none"),
        }
    }

    fn push_node(&mut self, node: Node) -> PickleResult {
        let content = match &node {
            Node::Tuple(values) | Node::List(values) => size_of_val(values.as_slice()),
            Node::Dict(pairs) => size_of_val(pairs.as_slice()),
            _ => 0, // strings were counted when they were read
        };
        self.charge(2 * size_of::<Node>() + content)?;
        self.nodes.push(node);
        self.push(Value::Node(self.nodes.len() - 1))
    }

    fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }

    fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::Tuple(values) => Some(values),
            _ => None,
        }
    }

    fn memoize(&mut self, slot: u32) -> PickleResult {
        let value = self.top()?;
        self.charge(4 * size_of::<(u32, Value)>())?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> PickleResult {
        match self.memo.get(&slot).copied() {
            Some(value) => self.push(value),
            None => self.error(format!("memo {slot} is read before it is written")),
        }
    }

    // ------------------------------------------------------------------------------------------ opcodes

    /// Executes one opcode; false after STOP.
    fn step(&mut self) -> PickleResult<bool> {
        self.opcode_at = self.at;
        let [opcode] = self.take()?;
        match opcode {
            b'.' => return Ok(false),
            0x80 => {
                let [version] = self.take()?;
                if version > 5 {
                    return self.error(format!("found pickle protocol {version}, expected 2 to 5"));
                }
            }
            // FRAME is a hint for buffering.
            0x95 => {
                self.take::<8>()?;
            }
            b'(' => {
                self.charge(2 * size_of::<usize>())?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let value = self.top()?;
                self.push(value)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let [value] = self.take()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let [length] = self.take()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.take()?);
                self.long(length.into())?;
            }
            b'G' => {
                self.take::<8>()?;
                self.push(Value::Float)?;
            }
            0x8c | b'U' => {
                let [length] = self.take()?;
                self.text(length.into())?;
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.take()?);
                self.text(length)?;
            }
            b'C' => {
                let [length] = self.take()?;
                self.binary(length.into())?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.take()?);
                self.binary(length.into())?;
            }
            0x8e => {
                let length = u64::from_le_bytes(self.take()?);
                self.binary(length)?;
            }
            b')' => self.push_node(Node::Tuple(Vec::new()))?,
            b't' => {
                let values = self.pop_mark()?;
                self.push_node(Node::Tuple(values))?;
            }
            0x85..=0x87 => {
                let mut values = (0x85..=opcode).map(|_| self.pop()).collect::<PickleResult<Vec<Value>>>()?;
                values.reverse();
                self.push_node(Node::Tuple(values))?;
            }
            b']' => self.push_node(Node::List(Vec::new()))?,
            b'a' => {
                let value = self.pop()?;
                self.extend_list(&[value])?;
            }
            b'e' => {
                let values = self.pop_mark()?;
                self.extend_list(&values)?;
            }
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let values = self.pop_mark()?;
                self.extend_dict(&values)?;
            }
            b'h' => {
                let [slot] = self.take()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.take()?);
                self.recall(slot)?;
            }
            b'q' => {
                let [slot] = self.take()?;
                self.memoize(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.take()?);
                self.memoize(slot)?;
            }
            0x94 => match u32::try_from(self.memo.len()) {
                Ok(slot) => self.memoize(slot)?,
                Err(_) => return self.error("the memo is too large"),
            },
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.node(module), self.node(name)) {
                    (Some(Node::Text(module)), Some(Node::Text(name))) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.global(&module, &name)?;
                    }
                    _ => return self.error("a global's name is not a string"),
                }
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                return Err(PickleError::Global { at: self.opcode_at, global: format!("{module}.{name}") });
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            b'o' | 0x81 | 0x92 => {
                let opcode = if opcode == b'o' { "OBJ" } else { "NEWOBJ" };
                return self.error(format!("{opcode} creates an object of a Python class, which tensors do not need"));
            }
            0x82..=0x84 => {
                return self.error("EXT refers to a global of a private registry, which tensors do not need");
            }
            other => {
                let shown =
                    if other.is_ascii_graphic() { format!(" ({:?})", char::from(other)) } else { String::new() };
                return self.error(format!("opcode 0x{other:02x}{shown} is not written by torch.save"));
            }
        }
        Ok(true)
    }

    fn long(&mut self, length: u64) -> PickleResult {
        let bytes = self.bytes(length)?;
        if bytes.len() > 8 {
            return self.push_node(Node::BigInt(bytes));
        }
        // Sign extension: the top bit of the last byte determines the remaining bytes.
        let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        for (to, from) in wide.iter_mut().zip(&bytes) {
            *to = *from;
        }
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, length: u64) -> PickleResult {
        match String::from_utf8(self.bytes(length)?) {
            Ok(text) => self.push_node(Node::Text(text)),
            Err(_) => self.error("a string is not UTF-8"),
        }
    }

    /// Bytes, which are not needed for tensors.
    fn binary(&mut self, length: u64) -> PickleResult {
        self.bytes(length)?;
        self.push_node(Node::Bytes)
    }

    fn extend_list(&mut self, more: &[Value]) -> PickleResult {
        self.charge(2 * size_of_val(more))?;
        match self.top()? {
            Value::Node(index) => match self.nodes.get_mut(index) {
                Some(Node::List(values)) => values.extend_from_slice(more),
                _ => return self.error("APPEND to a value that is not a list"),
            },
            _ => return self.error("APPEND to a value that is not a list"),
        }
        Ok(())
    }

    fn extend_dict(&mut self, more: &[Value]) -> PickleResult {
        self.charge(2 * size_of_val(more))?;
        let (pairs, odd) = more.as_chunks::<2>();
        if !odd.is_empty() {
            return self.error("a dictionary has a key without a value");
        }
        match self.top()? {
            Value::Node(index) => match self.nodes.get_mut(index) {
                Some(Node::Dict(existing)) => existing.extend(pairs.iter().map(|&[key, value]| (key, value))),
                _ => return self.error("SETITEMS on a value that is not a dictionary"),
            },
            _ => return self.error("SETITEMS on a value that is not a dictionary"),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> PickleResult {
        match known_global(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => {
                let shown = |text: &str| text.chars().take(100).flat_map(char::escape_debug).collect::<String>();
                let global = format!("{}.{}", shown(module), shown(name));
                Err(PickleError::Global { at: self.opcode_at, global })
            }
        }
    }

    /// Evaluates calls of the known functions as data.
    fn reduce(&mut self) -> PickleResult {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = function else {
            return self.error("REDUCE calls a value that is not a function");
        };
        let Some(arguments) = self.tuple(arguments).map(<[Value]>::to_vec) else {
            return self.error("REDUCE with arguments that are not a tuple");
        };
        match (function, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push_node(Node::Dict(Vec::new())),
            (Global::OrderedDict, &[items]) => self.ordered_dict(items),
            (Global::Size, &[items]) => match self.tuple(items).map(<[Value]>::to_vec) {
                Some(sizes) => self.push_node(Node::Tuple(sizes)),
                None => self.error("torch.Size of a value that is not a tuple"),
            },
            // data, then requires_grad, hooks, state
            (Global::Parameter, &[data, ..]) => match self.node(data) {
                Some(Node::Tensor(_)) => self.push(data),
                _ => self.error("a parameter of a value that is not a tensor"),
            },
            // storage, offset, size, stride, then requires_grad, hooks, metadata
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                self.tensor(storage, offset, shape, strides)
            }
            _ => self.error(format!("{function:?} with {} arguments", arguments.len())),
        }
    }

    /// Python 2 passes the items of an `OrderedDict` as a list of pairs.
    fn ordered_dict(&mut self, items: Value) -> PickleResult {
        let pair = |value: &Value| match self.node(*value) {
            Some(Node::List(pair) | Node::Tuple(pair)) => <[Value; 2]>::try_from(pair.as_slice()).ok(),
            _ => None,
        };
        let pairs: Option<Vec<[Value; 2]>> = match self.node(items) {
            Some(Node::List(items) | Node::Tuple(items)) => items.iter().map(pair).collect(),
            _ => None,
        };
        match pairs {
            Some(pairs) => self.push_node(Node::Dict(pairs.into_iter().map(|[key, value]| (key, value)).collect())),
            None => self.error("OrderedDict of a value that is not a list of pairs"),
        }
    }

    fn tensor(&mut self, storage: Value, offset: Value, shape: Value, strides: Value) -> PickleResult {
        let Some(Node::Storage(storage)) = self.node(storage).cloned() else {
            return self.error("a tensor of a value that is not a storage");
        };
        let sizes = |value: Value| -> Option<Vec<usize>> {
            let values = self.tuple(value).filter(|values| values.len() <= MAX_AXES)?;
            values.iter().map(|&value| size(value)).collect()
        };
        match (size(offset), sizes(shape), sizes(strides)) {
            (Some(offset), Some(shape), Some(strides)) => {
                self.charge(storage.key.len() + 2 * MAX_AXES * size_of::<usize>())?;
                self.push_node(Node::Tensor(View { storage, offset, shape, strides }))
            }
            _ => self.error(format!(
                "a tensor's offset, shape and strides must be sizes of 0 or more, with at most {MAX_AXES} axes"
            )),
        }
    }

    /// Ignores the attributes of a dictionary (`_metadata` of a state_dict). Other values must not have attributes.
    fn build(&mut self) -> PickleResult {
        self.pop()?;
        let object = self.top()?;
        match self.node(object) {
            Some(Node::Dict(_)) => Ok(()),
            _ => self.error("BUILD sets attributes of a value that is not an OrderedDict"),
        }
    }

    /// `("storage", type, key, location, elements)`. Files before torch 1.6 have a sixth element: `(key, first, elements)` if it
    /// is a part of a storage, otherwise None.
    fn persistent(&mut self) -> PickleResult {
        let id = self.pop()?;
        let fields = self.tuple(id).map(<[Value]>::to_vec).unwrap_or_default();
        let (&[kind, Value::Global(Global::Storage(dtype)), key, _, count], rest) =
            fields.split_first_chunk::<5>().map_or((&[Value::None; 5], &[][..]), |(five, rest)| (five, rest))
        else {
            return self.error("a persistent id is not (\"storage\", type, key, location, size)");
        };
        let key = match (self.node(key), key) {
            (Some(Node::Text(key)), _) => Some(key.clone()),
            (_, Value::Int(key)) => Some(key.to_string()),
            _ => None,
        };
        let is_storage = matches!(self.node(kind), Some(Node::Text(kind)) if kind == "storage");
        let (true, Some(key), Some(count)) = (is_storage, key, size(count)) else {
            return self.error("a persistent id has an invalid key or size");
        };
        let part = match rest {
            [] | [Value::None] => None,
            &[part] => match self.tuple(part) {
                Some(&[_, first, count]) => match (size(first), size(count)) {
                    (Some(first), Some(count)) => Some((first, count)),
                    _ => return self.error("a part of a storage has an invalid size"),
                },
                _ => return self.error("a part of a storage is not (key, first, size)"),
            },
            _ => return self.error("a persistent id has more than six elements"),
        };
        self.charge(key.len())?;
        self.push_node(Node::Storage(Storage { dtype, key, count, part }))
    }
}

fn size(value: Value) -> Option<usize> {
    match value {
        Value::Int(value) => usize::try_from(value).ok(),
        _ => None,
    }
}
