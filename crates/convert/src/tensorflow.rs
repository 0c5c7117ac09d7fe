//! Reads TensorFlow checkpoints (`tf.train.Saver`, format V2) without TensorFlow.
//!
//! `PREFIX.index` is a sorted table. The empty key has a BundleHeaderProto; each variable's name has a BundleEntryProto with its
//! type, shape and position. `PREFIX.data-00000-of-00001` and similar files contain the bytes.
//! Source: `tensorflow/core/protobuf/tensor_bundle.proto`, `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`.

mod names;
mod proto;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use cloze_model::{Module, Schema};
use safetensors::Dtype;

use crate::error::ConvertError;
use crate::skipped::Skipped;
use crate::tensors::{Checksum, SourceFile, SourceTensor, Sum, check_total};
use names::is_training_variable;
use proto::Field;

const FORMAT: &str = "TensorFlow checkpoint";
/// Maximal size of an index in bytes; that of BERT large with its optimizer has 100 KB.
const MAX_INDEX: u64 = 256 << 20;
const MAX_SHARDS: u64 = 1 << 14;

/// `PREFIX` with a suffix.
pub(crate) fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = prefix.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// BundleEntryProto.
#[derive(Debug, Default)]
struct BundleEntry {
    dtype: u64,
    shape: Vec<u64>,
    shard: u64,
    offset: u64,
    size: u64,
    crc32c: Option<u32>,
    sliced: bool,
}

/// The model's tensors in a checkpoint, with Transformers' names. `is_generator`: of the two models in a checkpoint of
/// ELECTRA, the generator.
///
/// # Errors
/// [`ConvertError::Damaged`], [`ConvertError::Unsupported`], [`ConvertError::Source`] for a checkpoint that has no BERT
/// variables, [`ConvertError::Io`].
pub(crate) fn open(
    schema: Schema,
    is_generator: bool,
    prefix: &Path,
    skipped: &mut Skipped,
) -> Result<Vec<SourceTensor>, ConvertError> {
    let path = &with_suffix(prefix, ".index");
    let damaged = |reason: String| ConvertError::damaged(path, FORMAT, reason);
    let index = SourceFile::open(path)?;
    if index.length > MAX_INDEX {
        return Err(damaged(format!("found an index of {} bytes, expected at most {MAX_INDEX}", index.length)));
    }
    let bytes = index.read(0, index.length as usize).map_err(ConvertError::io("read", path))?;
    let mut entries = table::read(&bytes).map_err(damaged)?.into_iter();
    let shards = match entries.next() {
        Some((key, value)) if key.is_empty() => {
            header(&value).map_err(|reason| damaged(format!("invalid header: {reason}")))?
        }
        _ => return Err(damaged("found no header (the empty key)".to_owned())),
    };
    let mut data = Shards { prefix, shards, open: BTreeMap::new() };
    let mut tensors = Vec::new();
    // Only ELECTRA has this head.
    let two_models = schema.has(Module::RtdOutput);
    for (key, value) in entries {
        let variable = String::from_utf8(key).map_err(|_| damaged("a variable's name is not UTF-8".to_owned()))?;
        if variable == "_CHECKPOINTABLE_OBJECT_GRAPH" || variable.ends_with("/.ATTRIBUTES/VARIABLE_VALUE") {
            let reason = "found an object-based checkpoint of TensorFlow 2, whose names do not identify BERT's variables; expected one \
                          of google-research/bert (variables such as bert/embeddings/word_embeddings)";
            return Err(ConvertError::unsupported(path, reason));
        }
        if is_training_variable(&variable) {
            skipped.add("a variable of the optimizer or the training loop", &variable);
            continue;
        }
        let own = match two_models {
            true => names::electra_variable(&variable, is_generator),
            false => Some(variable.clone()),
        };
        let Some(own) = own else {
            skipped.add("a variable of ELECTRA's other model", &variable);
            continue;
        };
        let Some((role, transposed)) = schema.role_in_tensorflow(&own) else {
            skipped.add("not a variable of the model", &variable);
            continue;
        };
        let of = |reason: String| damaged(format!("variable {variable}: {reason}"));
        let entry = entry(&value).map_err(of)?;
        if entry.sliced {
            return Err(ConvertError::unsupported(
                path,
                format!("variable {variable} is partitioned into slices, which is not supported"),
            ));
        }
        let tensor = data.tensor(schema.name(role), &entry)?.map_err(of)?;
        if transposed && tensor.shape.len() != 2 {
            return Err(of(format!("expected a matrix, found shape {:?}", tensor.shape)));
        }
        tensors.push(if transposed { tensor.transposed() } else { tensor });
    }
    if tensors.is_empty() {
        let found: Vec<&str> = skipped.groups().flat_map(|(_, names)| names).take(4).map(String::as_str).collect();
        let reason = format!(
            "expected the variables of Google's {} (bert/embeddings/word_embeddings, …), found [{}]",
            schema.family().title,
            found.join(", ")
        );
        return Err(ConvertError::source(path, reason));
    }
    check_total(&tensors, FORMAT)?;
    Ok(tensors)
}

/// The number of data shards in a BundleHeaderProto.
fn header(bytes: &[u8]) -> Result<u64, String> {
    let mut shards = 0;
    for field in proto::fields(bytes)? {
        match field {
            (1, Field::Varint(found)) => shards = found,
            (2, Field::Varint(order)) if order != 0 => {
                return Err("found big-endian data, expected little-endian".to_owned());
            }
            _ => {}
        }
    }
    if shards == 0 || shards > MAX_SHARDS {
        return Err(format!("found {shards} data shards, expected 1 to {MAX_SHARDS}"));
    }
    Ok(shards)
}

fn entry(bytes: &[u8]) -> Result<BundleEntry, String> {
    let mut entry = BundleEntry::default();
    for field in proto::fields(bytes)? {
        match field {
            (1, Field::Varint(dtype)) => entry.dtype = dtype,
            (2, Field::Bytes(shape)) => entry.shape = dimensions(shape)?,
            (3, Field::Varint(shard)) => entry.shard = shard,
            (4, Field::Varint(offset)) => entry.offset = offset,
            (5, Field::Varint(size)) => entry.size = size,
            (6, Field::Fixed32(sum)) => entry.crc32c = Some(sum),
            (7, Field::Bytes(_)) => entry.sliced = true,
            _ => {}
        }
    }
    Ok(entry)
}

/// The sizes in a TensorShapeProto.
fn dimensions(bytes: &[u8]) -> Result<Vec<u64>, String> {
    let mut shape = Vec::new();
    for field in proto::fields(bytes)? {
        match field {
            (2, Field::Bytes(dimension)) => {
                let mut size = 0;
                for field in proto::fields(dimension)? {
                    if let (1, Field::Varint(found)) = field {
                        size = found;
                    }
                }
                shape.push(size);
            }
            (3, Field::Varint(unknown)) if unknown != 0 => return Err("a shape has unknown rank".to_owned()),
            _ => {}
        }
    }
    Ok(shape)
}

/// tensorflow/core/framework/types.proto
fn dtype(found: u64) -> Result<Dtype, String> {
    Ok(match found {
        1 => Dtype::F32,
        2 => Dtype::F64,
        3 => Dtype::I32,
        4 => Dtype::U8,
        5 => Dtype::I16,
        6 => Dtype::I8,
        9 => Dtype::I64,
        10 => Dtype::BOOL,
        14 => Dtype::BF16,
        19 => Dtype::F16,
        other => return Err(format!("type number {other} of types.proto is not supported")),
    })
}

/// The data files, which are opened when a variable needs them.
struct Shards<'a> {
    prefix: &'a Path,
    shards: u64,
    open: BTreeMap<u64, Rc<SourceFile>>,
}

impl Shards<'_> {
    /// The tensor that an entry describes. The inner error is caused by the entry.
    fn tensor(&mut self, name: String, entry: &BundleEntry) -> Result<Result<SourceTensor, String>, ConvertError> {
        if entry.shard >= self.shards {
            return Ok(Err(format!("found data shard {}, expected less than {}", entry.shard, self.shards)));
        }
        let file = match self.open.get(&entry.shard) {
            Some(file) => file.clone(),
            None => {
                let path = with_suffix(self.prefix, &format!(".data-{:05}-of-{:05}", entry.shard, self.shards));
                let file = SourceFile::open(&path)?;
                self.open.insert(entry.shard, file.clone());
                file
            }
        };
        let place = || {
            let dtype = dtype(entry.dtype)?;
            let shape = entry.shape.iter().map(|&size| usize::try_from(size));
            let shape = shape
                .collect::<Result<Vec<usize>, _>>()
                .map_err(|_| format!("shape {:?} is too large", entry.shape))?;
            let Some(sum) = entry.crc32c else {
                return Err("found no checksum".to_owned());
            };
            let sum = Sum::Crc32c(table::unmask(sum));
            let checksum = Checksum { start: entry.offset, length: entry.size, sum };
            SourceTensor::contiguous(name, dtype, shape, &file, (entry.offset, entry.size), Some(checksum))
        };
        let tensor = place();
        Ok(tensor.map_err(|reason| format!("in {}: {reason}", file.path.display())))
    }
}

#[cfg(test)]
mod tests;
