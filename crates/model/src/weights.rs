//! The tensors of a model folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists. Files
//! are memory-mapped, so that loading needs no second copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_files::digest;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::ModelError;

/// The name of the weights file.
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";
/// The metadata key of the checksum in a safetensors file: XXH3 (128 bits, hexadecimal) of the tensors' bytes. Other
/// programs ignore it, and do not write it.
pub(crate) const CHECKSUM: &str = "xxh3";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The header entry of a tensor in a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredTensor {
    /// Its name as stored.
    pub name: String,
    /// Its element type as safetensors writes it, such as `F32` or `BF16`.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The tensors of a folder, in order of name. Only headers are read until [`read_f32`](Weights::read_f32).
pub(crate) struct Weights {
    maps: Vec<Mmap>,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps the weights of a folder and reads their headers.
    pub(crate) fn open(dir: &Path) -> Result<Weights, ModelError> {
        let single = dir.join(WEIGHTS_FILE);
        let index = dir.join(INDEX_FILE);
        let mut weights = Weights { maps: Vec::new(), entries: BTreeMap::new() };
        if single.is_file() {
            weights.map_file(single)?;
        } else if index.is_file() {
            weights.map_shards(dir, &index)?;
        } else {
            let mut problem = format!("it contains neither {WEIGHTS_FILE} nor {INDEX_FILE}");
            for other in ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "bert_model.ckpt.index"] {
                if dir.join(other).is_file() {
                    problem += &match other {
                        "tf_model.h5" => {
                            format!("; {other} is not supported: load it with Transformers and save_pretrained() it")
                        }
                        _ => format!("; convert {other} to {WEIGHTS_FILE} first"),
                    };
                    break;
                }
            }
            return Err(ModelError::Folder { path: dir.to_owned(), problem });
        }
        Ok(weights)
    }

    fn map_shards(&mut self, dir: &Path, index: &Path) -> Result<(), ModelError> {
        let bytes = fs::read(index).map_err(|source| ModelError::Read { path: index.to_owned(), source })?;
        let parsed: Index =
            serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { path: index.to_owned(), source })?;
        let files: BTreeSet<&String> = parsed.weight_map.values().collect();
        for file in files {
            // A shard is in the same folder as its index; other paths could lead out of the folder.
            if Path::new(file).file_name() != Some(file.as_ref()) {
                let problem = format!("shard {file:?} is not a plain file name");
                return Err(ModelError::Weights { path: index.to_owned(), problem });
            }
            if !dir.join(file).is_file() {
                let problem = format!("it names {file}, which is missing");
                return Err(ModelError::Weights { path: index.to_owned(), problem });
            }
            self.map_file(dir.join(file))?;
        }
        let mut absent = parsed.weight_map.keys().filter(|name| !self.entries.contains_key(*name));
        if let Some(first) = absent.next() {
            let more = absent.count();
            let others = if more > 0 { format!(" and {more} other tensors") } else { String::new() };
            let problem = format!("no shard contains {first}{others}");
            return Err(ModelError::Weights { path: index.to_owned(), problem });
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    fn map_file(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let read = |source| ModelError::Read { path: path.clone(), source };
        let damaged = |problem: String| ModelError::Weights { path: path.clone(), problem };
        let file = File::open(&path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        if length < 8 {
            return Err(damaged(format!("{length} bytes: expected at least 8")));
        }
        // SAFETY: the map is read-only and private to this crate. Its bytes are parsed with bounds checks, so wrong
        // content causes an error. Like every reader of mapped files, this one assumes that no other process shortens
        // the file meanwhile (programs that save models, including this one, replace files instead of rewriting them).
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| damaged(explain(&map, &error)))?;
        let data = 8 + header;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.maps.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: data + start..data + end,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(damaged(format!("tensor {name} is also in another shard")));
            }
        }
        self.maps.push(map);
        Ok(())
    }

    /// The stored names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The element type of a tensor, if it cannot be converted to f32.
    pub(crate) fn unreadable_dtype(&self, name: &str) -> Option<String> {
        let dtype = self.entries.get(name)?.dtype;
        (!matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64)).then(|| format!("{dtype:?}"))
    }

    /// Copies a tensor to `to`, converted to f32. Does nothing if the name, type or length does not fit: callers have
    /// checked all three.
    pub(crate) fn read_f32(&self, name: &str, to: &mut [f32]) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let map = &self.maps[entry.file];
        // Blocks of whole elements, whatever the type.
        let per_block = BLOCK / size_of::<f64>();
        let width = entry.bytes.len() / to.len().max(1);
        for (number, part) in to.chunks_mut(per_block).enumerate() {
            let start = entry.bytes.start + number * per_block * width;
            let block = start..start + part.len() * width;
            convert(entry.dtype, &map[block.clone()], part);
            release(map, block);
        }
    }

    /// Whether two tensors are equal in type, shape and bytes.
    pub(crate) fn equal(&self, a: &str, b: &str) -> bool {
        let view = |name: &str| {
            let entry = self.entries.get(name)?;
            Some((entry.dtype, &entry.shape, &self.maps[entry.file][entry.bytes.clone()]))
        };
        view(a) == view(b)
    }
}

/// Bytes that are read from a file at a time, at most. Pages of a mapped file count as memory of the process until they are
/// released.
const BLOCK: usize = if cfg!(test) { 64 } else { 16 << 20 };

/// Converts the elements of a tensor to f32.
fn convert(dtype: Dtype, bytes: &[u8], to: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], to: &mut [f32], read: impl Fn([u8; N]) -> f32) {
        for (value, chunk) in to.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = read(*chunk);
        }
    }
    match dtype {
        Dtype::F32 => each(bytes, to, f32::from_le_bytes),
        Dtype::BF16 => each(bytes, to, |pair| bf16::from_le_bytes(pair).to_f32()),
        Dtype::F16 => each(bytes, to, |pair| f16::from_le_bytes(pair).to_f32()),
        Dtype::F64 => each(bytes, to, |eight| f64::from_le_bytes(eight) as f32),
        _ => {}
    }
}

/// Releases the memory of pages that were read: a later read gets them from the file again.
#[cfg(unix)]
#[allow(unsafe_code)]
fn release(map: &Mmap, bytes: Range<usize>) {
    // SAFETY: "don't need" discards changes of private pages. The map is read-only, so that there are none, and the same
    // bytes are read again from the file.
    let released = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
    // Only memory is lost if the system refuses.
    drop(released);
}

#[cfg(not(unix))]
fn release(_: &Mmap, _: Range<usize>) {}

/// Explains a header's problem, with the file's length if that is relevant.
fn explain(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    use safetensors::SafeTensorError as E;
    let length = bytes.len();
    match error {
        E::MetadataIncompleteBuffer => {
            format!("its length of {length} bytes does not match its header: it was truncated, or data was appended")
        }
        E::HeaderTooLarge | E::InvalidHeaderLength => {
            let first: [u8; 8] = bytes.get(..8).and_then(|first| first.try_into().ok()).unwrap_or_default();
            format!("its header claims {} bytes in a file of {length} bytes", u64::from_le_bytes(first))
        }
        other => other.to_string(),
    }
}

/// Compares the weights of a model folder with the checksum that [`Model::save`](crate::Model::save) wrote to the file.
/// Returns whether there is a checksum. Reads the complete file.
///
/// # Errors
/// [`ModelError::Weights`] if they differ; [`ModelError::Read`] for a file that cannot be read.
pub fn verify_weights(dir: &Path) -> Result<bool, ModelError> {
    let path = dir.join(WEIGHTS_FILE);
    let mut weights = Weights { maps: Vec::new(), entries: BTreeMap::new() };
    if !path.is_file() {
        return Ok(false);
    }
    weights.map_file(path.clone())?;
    let [map] = &weights.maps[..] else { return Ok(false) };
    let damaged = |problem: String| ModelError::Weights { path: path.clone(), problem };
    let (header, metadata) = SafeTensors::read_metadata(map).map_err(|error| damaged(explain(map, &error)))?;
    let Some(expected) = metadata.metadata().as_ref().and_then(|metadata| metadata.get(CHECKSUM)) else {
        return Ok(false);
    };
    let found = digest::of_bytes(&map[8 + header..]);
    if found == *expected {
        return Ok(true);
    }
    Err(damaged(format!("expected the checksum {expected} of its weights, found {found}")))
}

/// The tensors of a model folder, in order of name; only reads the headers.
///
/// # Errors
/// [`ModelError::Folder`], [`ModelError::Read`], [`ModelError::Json`] or [`ModelError::Weights`].
pub fn stored_tensors(dir: &Path) -> Result<Vec<StoredTensor>, ModelError> {
    let weights = Weights::open(dir)?;
    let to_stored = |(name, entry): (&String, &Entry)| StoredTensor {
        name: name.clone(),
        dtype: format!("{:?}", entry.dtype),
        shape: entry.shape.clone(),
    };
    Ok(weights.entries.iter().map(to_stored).collect())
}
