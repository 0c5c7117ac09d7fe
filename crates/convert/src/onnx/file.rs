//! Writes the protobuf file in one pass, so that weights are not copied, and a second file if one is too small.
//!
//! All sizes are known before the first byte is written. The nodes of the graph are encoded in memory; then each initializer
//! is written, with its data streamed from the model.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use cloze_files::AtomicFile;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::error::OnnxError;
use super::graph::{Graph, Initializer};
use super::proto::{
    EXTERNAL, GRAPH_INITIALIZER, MODEL_GRAPH, ModelProto, OperatorSetIdProto, StringStringEntryProto, TENSOR_RAW_DATA,
    TensorProto,
};

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// The result of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxReport {
    /// The names of the inputs, in order.
    pub inputs: Vec<String>,
    /// The names of the outputs, in order.
    pub outputs: Vec<String>,
    /// The size of the model file in bytes.
    pub bytes: u64,
    /// The path and size of the second file with the weights, if there is one. Both files must stay together and keep their names.
    pub data: Option<(PathBuf, u64)>,
}

/// Smaller tensors (in bytes) stay in the graph, because runtimes need shapes and axes when they analyse it. The limit equals
/// `size_threshold` of `onnx.save_model`.
const SMALLEST_EXTERNAL: u64 = 1024;
/// Offsets in the second file are multiples of the page size, so that it can be memory-mapped (`onnx.proto`, `external_data`).
const PAGE: u64 = 4096;

/// The positions of the initializers' data.
struct Layout {
    /// The initializers' messages without their data.
    heads: Vec<TensorProto>,
    /// The second file's name, and the offset of each initializer that is stored there.
    external: Option<(String, Vec<Option<u64>>)>,
}

impl Layout {
    fn inline(initializers: &[Initializer<'_>]) -> Layout {
        Layout { heads: initializers.iter().map(Initializer::head).collect(), external: None }
    }

    fn external(initializers: &[Initializer<'_>], location: String) -> Layout {
        let mut end = 0;
        let mut place = |initializer: &Initializer<'_>| {
            let mut head = initializer.head();
            let bytes = initializer.bytes();
            if bytes < SMALLEST_EXTERNAL {
                return (head, None);
            }
            let offset = u64::next_multiple_of(end, PAGE);
            end = offset + bytes;
            head.data_location = EXTERNAL;
            let entries =
                [("location", location.clone()), ("offset", offset.to_string()), ("length", bytes.to_string())];
            let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.to_owned(), value };
            head.external_data = entries.map(entry).to_vec();
            (head, Some(offset))
        };
        let (heads, offsets) = initializers.iter().map(&mut place).unzip();
        Layout { heads, external: Some((location, offsets)) }
    }

    fn is_external(&self, number: usize) -> bool {
        self.external.as_ref().is_some_and(|(_, offsets)| offsets.get(number).is_some_and(Option::is_some))
    }

    /// The encoded size of one initializer.
    fn tensor_len(&self, number: usize, initializer: &Initializer<'_>) -> u64 {
        let head = self.heads[number].encoded_len() as u64;
        if self.is_external(number) { head } else { head + delimited(TENSOR_RAW_DATA, initializer.bytes()) }
    }

    /// The encoded size of the graph: its nodes and all initializers.
    fn graph_len(&self, graph: &Graph<'_>) -> u64 {
        let tensors = graph.initializers.iter().enumerate();
        let tensors = tensors.map(|(i, initializer)| delimited(GRAPH_INITIALIZER, self.tensor_len(i, initializer)));
        graph.proto.encoded_len() as u64 + tensors.sum::<u64>()
    }
}

/// The encoded size of a field with `len` bytes, including its key and length.
fn delimited(tag: u32, len: u64) -> u64 {
    key_len(tag) as u64 + encoded_len_varint(len) as u64 + len
}

/// The message of the model without its graph.
fn header() -> ModelProto {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "cloze".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: None,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
    }
}

/// Writes the graph to `path`, and a second file next to it if the first would exceed `limit` bytes. Both are synced under
/// temporary names before they are renamed, the weights first.
pub(super) fn write(graph: &Graph<'_>, path: &Path, limit: u64) -> Result<OnnxReport, OnnxError> {
    let inputs = graph.proto.input.iter().map(|input| input.name.clone()).collect();
    let outputs = graph.proto.output.iter().map(|output| output.name.clone()).collect();
    let header = header();
    let model_len = |layout: &Layout| header.encoded_len() as u64 + delimited(MODEL_GRAPH, layout.graph_len(graph));

    let Some(file_name) = path.file_name() else {
        return Err(OnnxError::Path {
            path: path.to_owned(),
            problem: "expected the path of a file, such as model.onnx",
        });
    };
    let data_path = path.with_file_name(appended(file_name, "_data"));
    let mut layout = Layout::inline(&graph.initializers);
    if model_len(&layout) > limit {
        let location = data_path.file_name().and_then(|name| name.to_str()).ok_or(OnnxError::Path {
            path: path.to_owned(),
            problem: "the weights need a second file, whose name is stored in the model: expected a file name in UTF-8",
        })?;
        layout = Layout::external(&graph.initializers, location.to_owned());
    }
    let bytes = model_len(&layout);
    if bytes > limit {
        return Err(OnnxError::TooLarge { path: path.to_owned(), bytes, limit });
    }

    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|source| OnnxError::write(parent, source))?;
    }
    let data = match &layout.external {
        None => None,
        Some((_, offsets)) => {
            Some(write_unnamed(&data_path, |file| write_external(file, &graph.initializers, offsets))?)
        }
    };
    let (model, bytes) = write_unnamed(path, |file| write_model(file, &header, graph, &layout))?;
    let data = match data {
        None => None,
        Some((file, bytes)) => {
            file.commit()?;
            Some((data_path, bytes))
        }
    };
    model.commit()?;
    Ok(OnnxReport { inputs, outputs, bytes, data })
}

/// Writes and syncs a file that has not been renamed yet. Returns it with its size.
fn write_unnamed(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(AtomicFile, u64), OnnxError> {
    let (mut file, mut bytes) = (AtomicFile::create(path)?, 0);
    file.write_with(|file| {
        fill(file)?;
        bytes = file.stream_position()?;
        Ok(())
    })?;
    file.sync()?;
    Ok((file, bytes))
}

fn write_model(file: &mut impl Write, header: &ModelProto, graph: &Graph<'_>, layout: &Layout) -> io::Result<()> {
    let mut bytes = header.encode_to_vec();
    encode_key(MODEL_GRAPH, WireType::LengthDelimited, &mut bytes);
    encode_varint(layout.graph_len(graph), &mut bytes);
    bytes.extend(graph.proto.encode_to_vec());
    file.write_all(&bytes)?;
    for (number, (initializer, head)) in graph.initializers.iter().zip(&layout.heads).enumerate() {
        bytes.clear();
        encode_key(GRAPH_INITIALIZER, WireType::LengthDelimited, &mut bytes);
        encode_varint(layout.tensor_len(number, initializer), &mut bytes);
        bytes.extend(head.encode_to_vec());
        if layout.is_external(number) {
            file.write_all(&bytes)?;
        } else {
            encode_key(TENSOR_RAW_DATA, WireType::LengthDelimited, &mut bytes);
            encode_varint(initializer.bytes(), &mut bytes);
            file.write_all(&bytes)?;
            initializer.write_data(file)?;
        }
    }
    Ok(())
}

fn write_external(file: &mut impl Write, initializers: &[Initializer<'_>], offsets: &[Option<u64>]) -> io::Result<()> {
    let mut end = 0;
    for (initializer, offset) in initializers.iter().zip(offsets) {
        let Some(offset) = *offset else { continue };
        io::copy(&mut io::Read::take(io::repeat(0), offset - end), file)?;
        initializer.write_data(file)?;
        end = offset + initializer.bytes();
    }
    Ok(())
}

fn appended(name: &std::ffi::OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}
