//! Finds the files and the format of a source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cloze_model::{Layout, Schema};
use serde::Deserialize;

use crate::error::ConvertError;
use crate::skipped::Skipped;
use crate::tensors::SourceTensor;
use crate::{pickle, safetensors, tensorflow};

const SAFETENSORS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];
const PYTORCH: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
const TENSORFLOW: &str = "bert_model.ckpt";
/// Files of other programs that are not supported.
const UNSUPPORTED: [&str; 4] = ["tf_model.h5", "flax_model.msgpack", "saved_model.pb", "model.onnx"];

/// The format of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `model.safetensors` or its shards.
    Safetensors,
    /// One or several zip files of `torch.save`, torch 1.6 and later.
    PyTorch,
    /// The pickle files of `torch.save` before torch 1.6.
    PyTorchLegacy,
    /// The index and data files of `tf.train.Saver`.
    TensorFlow,
}

impl std::fmt::Display for Format {
    /// The format's name, such as `TensorFlow checkpoint`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::PyTorch => "PyTorch checkpoint",
            Format::PyTorchLegacy => "PyTorch checkpoint (before 1.6)",
            Format::TensorFlow => "TensorFlow checkpoint",
        })
    }
}

/// The weights of a source, which have not been opened.
#[derive(Debug, PartialEq)]
pub(crate) enum Weights {
    /// One safetensors file, or an index of several.
    Safetensors(PathBuf),
    /// One file of `torch.save`, or an index of several.
    PyTorch(PathBuf),
    /// The prefix of a TensorFlow checkpoint.
    TensorFlow(PathBuf),
}

/// Finds the weights of `source`: a folder, a file in one, or the prefix of a TensorFlow checkpoint.
///
/// # Errors
/// [`ConvertError::Source`] with what was expected.
pub(crate) fn find(source: &Path) -> Result<Weights, ConvertError> {
    if source.is_dir() {
        return in_folder(&Layout::of(source)?.model);
    }
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if source.is_file() {
        let ends_with = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends_with(&[".safetensors", ".safetensors.index.json"]) {
            return Ok(Weights::Safetensors(source.to_owned()));
        }
        if ends_with(&[".bin", ".bin.index.json", ".pt", ".pth"]) {
            return Ok(Weights::PyTorch(source.to_owned()));
        }
        if let Some(prefix) = name.strip_suffix(".index") {
            return Ok(Weights::TensorFlow(source.with_file_name(prefix)));
        }
    }
    if tensorflow::with_suffix(source, ".index").is_file() {
        return Ok(Weights::TensorFlow(source.to_owned()));
    }
    if let Some((prefix, _)) = name.split_once(".data-") {
        let prefix = source.with_file_name(prefix);
        if tensorflow::with_suffix(&prefix, ".index").is_file() {
            return Ok(Weights::TensorFlow(prefix));
        }
    }
    let reason = if source.is_file() {
        "expected a name that ends in .safetensors, .bin, .pt, .pth, their .index.json, or .index (TensorFlow)"
    } else {
        "no such file or folder, and no TensorFlow checkpoint with this prefix (PREFIX.index)"
    };
    Err(ConvertError::source(source, reason))
}

fn in_folder(folder: &Path) -> Result<Weights, ConvertError> {
    let present = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    if let Some(path) = present(&SAFETENSORS) {
        return Ok(Weights::Safetensors(path));
    }
    if let Some(path) = present(&PYTORCH) {
        return Ok(Weights::PyTorch(path));
    }
    let mut prefixes: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(ConvertError::io("read", folder))? {
        let name = entry.map_err(ConvertError::io("read", folder))?.file_name().to_string_lossy().into_owned();
        prefixes.extend(name.strip_suffix(".index").map(str::to_owned));
    }
    match prefixes.first() {
        Some(first) if prefixes.len() == 1 => return Ok(Weights::TensorFlow(folder.join(first))),
        Some(_) if prefixes.contains(TENSORFLOW) => return Ok(Weights::TensorFlow(folder.join(TENSORFLOW))),
        Some(_) => {
            let listed = prefixes.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ConvertError::source(
                folder,
                format!("found several checkpoints ({listed}); name one of them"),
            ));
        }
        None => {}
    }
    let mut reason = format!("found none of {}, {}, {TENSORFLOW}.index", SAFETENSORS.join(", "), PYTORCH.join(", "));
    if let Some(other) = UNSUPPORTED.iter().find(|name| folder.join(name).exists()) {
        reason += &format!("; {other} is not supported: open it with Transformers and save it with save_pretrained()");
    }
    Err(ConvertError::source(folder, reason))
}

impl Weights {
    /// The folder of the configuration and the vocabulary.
    pub(crate) fn folder(&self) -> &Path {
        let (Weights::Safetensors(path) | Weights::PyTorch(path) | Weights::TensorFlow(path)) = self;
        match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// The names, shapes and positions of all tensors.
    ///
    /// # Errors
    /// Errors of the format.
    pub(crate) fn open(
        &self,
        schema: Schema,
        is_generator: bool,
        skipped: &mut Skipped,
    ) -> Result<(Format, Vec<SourceTensor>), ConvertError> {
        match self {
            Weights::Safetensors(path) => {
                let tensors = open_shards(path, safetensors::open)?;
                Ok((Format::Safetensors, tensors))
            }
            Weights::PyTorch(path) => {
                let mut legacy = false;
                let tensors = open_shards(path, |path| {
                    let checkpoint = pickle::open(path, skipped)?;
                    legacy |= checkpoint.legacy;
                    Ok(checkpoint.tensors)
                })?;
                Ok((if legacy { Format::PyTorchLegacy } else { Format::PyTorch }, tensors))
            }
            Weights::TensorFlow(prefix) => {
                Ok((Format::TensorFlow, tensorflow::open(schema, is_generator, prefix, skipped)?))
            }
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of a file, or of all files in an index.
fn open_shards(
    path: &Path,
    mut open: impl FnMut(&Path) -> Result<Vec<SourceTensor>, ConvertError>,
) -> Result<Vec<SourceTensor>, ConvertError> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return open(path);
    }
    let damaged = |reason: String| ConvertError::damaged(path, "shard index", reason);
    let bytes = fs::read(path).map_err(ConvertError::io("read", path))?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    let mut tensors: Vec<SourceTensor> = Vec::new();
    for file in files {
        // Shards are in the folder of the index. A path could lead out of the folder.
        if Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(damaged(format!("expected a plain file name as shard, found {file:?}")));
        }
        tensors.extend(open(&path.with_file_name(file))?);
    }
    let found: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let absent: Vec<&str> =
        index.weight_map.keys().map(String::as_str).filter(|name| !found.contains(name)).take(8).collect();
    if !absent.is_empty() {
        return Err(damaged(format!("found no shard with {}", absent.join(", "))));
    }
    Ok(tensors)
}
