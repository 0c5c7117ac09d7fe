//! Builds a graph: nodes in order of execution, constants, and weights with their checkpoint names.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use cloze_engine::ParamId;
use cloze_model::{Model, Module, Role};

use super::Quantization;
use super::error::OnnxError;
use super::proto::{
    AttributeProto, Dimension, DimensionProto, FLOAT, GraphProto, INT8, INT64, NodeProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// A graph. The bytes of its initializers are still in the model.
pub(super) struct Graph<'a> {
    /// Everything except the initializers.
    pub(super) proto: GraphProto,
    pub(super) initializers: Vec<Initializer<'a>>,
}

/// A constant of the graph: a weight, or a number for the operators.
pub(super) struct Initializer<'a> {
    name: String,
    dims: Vec<i64>,
    data: Data<'a>,
}

enum Data<'a> {
    /// A weight as stored in the model.
    Weight(Cow<'a, [f32]>),
    /// A matrix `[rows, columns]` of the model, which is written column by column.
    Transposed {
        values: Cow<'a, [f32]>,
        rows: usize,
        columns: usize,
    },
    /// Bytes of a quantized matrix.
    Bytes(Vec<i8>),
    Float(f32),
    Ints(Vec<i64>),
}

/// A matrix `[rows, columns]`, and the name of what is stored of it.
pub(super) struct Matrix<'a> {
    pub(super) name: String,
    /// Row-major.
    pub(super) values: Cow<'a, [f32]>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Number of values that are converted to bytes at once.
const CHUNK: usize = 1 << 16;
/// Number of columns that are transposed at once: the number of floats in a cache line.
const COLUMNS: usize = 16;

impl Initializer<'_> {
    /// The message without the data.
    pub(super) fn head(&self) -> TensorProto {
        let data_type = match self.data {
            Data::Ints(_) => INT64,
            Data::Bytes(_) => INT8,
            _ => FLOAT,
        };
        TensorProto { dims: self.dims.clone(), data_type, name: self.name.clone(), ..TensorProto::default() }
    }

    /// The size of its data in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match &self.data {
            Data::Weight(values) | Data::Transposed { values, .. } => 4 * values.len() as u64,
            Data::Bytes(values) => values.len() as u64,
            Data::Float(_) => 4,
            Data::Ints(values) => 8 * values.len() as u64,
        }
    }

    /// Writes its data, little-endian and row-major, in chunks.
    pub(super) fn write_data(&self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        match &self.data {
            Data::Weight(values) => {
                for chunk in values.chunks(CHUNK) {
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                    to.write_all(&bytes)?;
                }
                Ok(())
            }
            Data::Transposed { values, rows, columns } => {
                let (rows, columns) = (*rows, *columns);
                for first in (0..columns).step_by(COLUMNS) {
                    let width = COLUMNS.min(columns - first);
                    bytes.resize(4 * width * rows, 0);
                    for (row, line) in values.chunks_exact(columns).enumerate() {
                        for (column, value) in line[first..first + width].iter().enumerate() {
                            let at = 4 * (column * rows + row);
                            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                        }
                    }
                    to.write_all(&bytes)?;
                }
                Ok(())
            }
            Data::Bytes(values) => {
                for chunk in values.chunks(CHUNK) {
                    bytes.clear();
                    bytes.extend(chunk.iter().map(|value| value.cast_unsigned()));
                    to.write_all(&bytes)?;
                }
                Ok(())
            }
            Data::Float(value) => to.write_all(&value.to_le_bytes()),
            Data::Ints(values) => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                to.write_all(&bytes)
            }
        }
    }
}

/// Collects nodes and initializers. A value has the name of the node that computes it.
pub(super) struct GraphBuilder<'a> {
    model: &'a Model,
    proto: GraphProto,
    initializers: Vec<Initializer<'a>>,
    /// Names of the initializers, and of the nodes with several outputs, that have been added.
    names: HashSet<String>,
    /// The number of nodes of each module.
    uses: HashMap<String, usize>,
    /// How weights are stored and multiplied; none for f32.
    quantization: Option<Quantization>,
}

impl<'a> GraphBuilder<'a> {
    pub(super) fn new(name: &str, model: &'a Model, quantization: Option<Quantization>) -> GraphBuilder<'a> {
        let proto = GraphProto { name: name.to_owned(), ..GraphProto::default() };
        GraphBuilder {
            model,
            proto,
            initializers: Vec::new(),
            names: HashSet::new(),
            uses: HashMap::new(),
            quantization,
        }
    }

    pub(super) fn finish(self) -> Graph<'a> {
        Graph { proto: self.proto, initializers: self.initializers }
    }

    /// Adds a node that computes the value `name`, and returns this name.
    pub(super) fn node(
        &mut self,
        op_type: &str,
        name: String,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.push(op_type, name.clone(), inputs, vec![name.clone()], attribute);
        name
    }

    /// Adds a node with several outputs, unless there is one with this name.
    pub(super) fn node_of_outputs(&mut self, op_type: &str, name: &str, inputs: &[&str], outputs: &[&str]) {
        if self.names.insert(name.to_owned()) {
            let outputs = outputs.iter().map(|&output| output.to_owned()).collect();
            self.push(op_type, name.to_owned(), inputs, outputs, Vec::new());
        }
    }

    fn push(
        &mut self,
        op_type: &str,
        name: String,
        inputs: &[&str],
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        let input = inputs.iter().map(|&input| input.to_owned()).collect();
        self.proto.node.push(NodeProto { input, output, name, op_type: op_type.to_owned(), attribute });
    }

    /// Whether the weights are quantized.
    pub(super) fn quantizes(&self) -> bool {
        self.quantization.is_some()
    }

    /// Declares an int64 input.
    pub(super) fn input(&mut self, name: &str, dims: &[Dimension]) {
        self.proto.input.push(value_info(name, INT64, dims));
    }

    /// Declares a float32 output.
    pub(super) fn output(&mut self, name: &str, dims: &[Dimension]) {
        self.proto.output.push(value_info(name, FLOAT, dims));
    }

    /// A name for the node that computes a module: its checkpoint name, with a number if several layers share the module.
    pub(super) fn module_node(&mut self, module: Module) -> String {
        let name = self.model.schema().module_name(module);
        let uses = self.uses.entry(name.clone()).or_default();
        *uses += 1;
        if *uses > 1 { format!("{name}.use_{uses}") } else { name }
    }

    /// The checkpoint name of a parameter.
    pub(super) fn name(&self, role: Role) -> String {
        self.model.schema().name(role)
    }

    /// The shape of a weight.
    pub(super) fn shape(&self, role: Role) -> Result<&'a [usize], OnnxError> {
        Ok(self.model.params.shape(self.find(role)?))
    }

    /// A weight as stored in the model.
    pub(super) fn weight(&mut self, role: Role, shape: &[usize]) -> Result<String, OnnxError> {
        let values = self.expect(role, shape)?;
        let dims = shape.iter().map(|&size| size as i64).collect();
        Ok(self.initializer(self.name(role), dims, Data::Weight(values)))
    }

    /// A matrix of the model, to be stored.
    pub(super) fn matrix(&self, role: Role, [rows, columns]: [usize; 2]) -> Result<Matrix<'a>, OnnxError> {
        let values = self.expect(role, &[rows, columns])?;
        Ok(Matrix { name: self.name(role), values, rows, columns })
    }

    /// A matrix `[out, in]`, stored as `[in, out]`.
    pub(super) fn transposed(&mut self, Matrix { name, values, rows, columns }: Matrix<'a>) -> String {
        let dims = vec![columns as i64, rows as i64];
        self.initializer(format!("{name}.transposed"), dims, Data::Transposed { values, rows, columns })
    }

    /// A matrix, stored as it is.
    pub(super) fn untransposed(&mut self, Matrix { name, values, rows, columns }: Matrix<'a>) -> String {
        self.initializer(name, vec![rows as i64, columns as i64], Data::Weight(values))
    }

    /// A vector that is not one of the model's weights.
    pub(super) fn vector(&mut self, name: String, values: Cow<'a, [f32]>) -> String {
        self.initializer(name, vec![values.len() as i64], Data::Weight(values))
    }

    /// A quantized matrix.
    pub(super) fn bytes(&mut self, name: String, [rows, columns]: [usize; 2], values: Vec<i8>) -> String {
        self.initializer(name, vec![rows as i64, columns as i64], Data::Bytes(values))
    }

    /// Whether there is an initializer with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Several weights as one tensor with the shape `dims`, one after the other. Each consists of `blocks.len()` blocks of rows,
    /// which are stored in the order `blocks`.
    pub(super) fn reordered(
        &mut self,
        name: &str,
        roles: &[(Role, &[usize])],
        blocks: &[usize],
        dims: Vec<i64>,
    ) -> Result<String, OnnxError> {
        let mut values = Vec::new();
        for (role, shape) in roles {
            let stored = self.expect(*role, shape)?;
            let block = stored.len() / blocks.len();
            blocks.iter().for_each(|number| values.extend_from_slice(&stored[number * block..][..block]));
        }
        Ok(self.initializer(name.to_owned(), dims, Data::Weight(Cow::Owned(values))))
    }

    /// The values of a small weight.
    pub(super) fn values(&self, role: Role, shape: &[usize]) -> Result<Cow<'a, [f32]>, OnnxError> {
        self.expect(role, shape)
    }

    /// A float constant, shared by operators.
    pub(super) fn float(&mut self, name: &str, value: f32) -> String {
        self.initializer(format!("constant.{name}"), Vec::new(), Data::Float(value))
    }

    /// An integer constant, shared by operators.
    pub(super) fn int(&mut self, name: &str, value: i64) -> String {
        self.initializer(format!("constant.{name}"), Vec::new(), Data::Ints(vec![value]))
    }

    /// A vector of integers, shared by operators: axes or a shape.
    pub(super) fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let dims = vec![values.len() as i64];
        self.initializer(format!("constant.{name}"), dims, Data::Ints(values.to_vec()))
    }

    /// A matrix with one row of floats, shared by operators.
    pub(super) fn floats(&mut self, name: &str, values: Vec<f32>) -> String {
        let dims = vec![1, values.len() as i64];
        self.initializer(format!("constant.{name}"), dims, Data::Weight(Cow::Owned(values)))
    }

    /// A matrix with one row: 0, 1, …, `end` − 1.
    pub(super) fn arange(&mut self, name: &str, end: usize) -> String {
        let values = (0..end as i64).collect();
        self.initializer(format!("constant.{name}"), vec![1, end as i64], Data::Ints(values))
    }

    fn initializer(&mut self, name: String, dims: Vec<i64>, data: Data<'a>) -> String {
        if self.names.insert(name.clone()) {
            self.initializers.push(Initializer { name: name.clone(), dims, data });
        }
        name
    }

    fn find(&self, role: Role) -> Result<ParamId, OnnxError> {
        self.model.find(role).ok_or_else(|| OnnxError::Tensor {
            name: self.name(role),
            problem:
                "this output needs the tensor, but the model does not have it; choose an output whose head the model has"
                    .to_owned(),
        })
    }

    fn expect(&self, role: Role, shape: &[usize]) -> Result<Cow<'a, [f32]>, OnnxError> {
        let id = self.find(role)?;
        let found = self.model.params.shape(id);
        if found != shape {
            let problem = format!("expected the shape {shape:?}, found {found:?}");
            return Err(OnnxError::Tensor { name: self.name(role), problem });
        }
        Ok(self.model.params.read(id))
    }
}

fn value_info(name: &str, elem_type: i32, dims: &[Dimension]) -> ValueInfoProto {
    let dim = dims.iter().map(|dim| DimensionProto { value: Some(dim.clone()) }).collect();
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_wider_than_a_block_are_transposed() {
        for (rows, columns) in [(3, 2 * COLUMNS + 5), (1, COLUMNS), (7, 1)] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let data = Data::Transposed { values: Cow::Borrowed(&values), rows, columns };
            let initializer = Initializer { name: "w".to_owned(), dims: vec![columns as i64, rows as i64], data };
            let mut written = Vec::new();
            initializer.write_data(&mut written).unwrap();
            assert_eq!(written.len() as u64, initializer.bytes());
            let found: Vec<f32> = written.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
            let expected: Vec<f32> =
                (0..columns).flat_map(|c| (0..rows).map(move |r| (r * columns + c) as f32)).collect();
            assert_eq!(found, expected, "{rows} x {columns}");
        }
    }

    #[test]
    fn weights_longer_than_a_chunk_are_complete() {
        let values: Vec<f32> = (0..2 * CHUNK + 3).map(|value| value as f32).collect();
        let initializer = Initializer {
            name: "w".to_owned(),
            dims: vec![values.len() as i64],
            data: Data::Weight(Cow::Borrowed(&values)),
        };
        let mut written = Vec::new();
        initializer.write_data(&mut written).unwrap();
        let found: Vec<f32> = written.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        assert!(found == values);
    }
}
