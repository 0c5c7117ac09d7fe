//! Converts models of other programs to a folder in Transformers' layout, which `cloze` opens, and exports models as ONNX.
//!
//! | module | content |
//! | --- | --- |
//! | `source` | finds the files of a folder, file or prefix |
//! | `safetensors` | Transformers' own files, single or sharded, of any version |
//! | `pickle` | `pytorch_model.bin` in both forms of `torch.save`; its pickle interpreter executes no code |
//! | `tensorflow` | google-research/bert's checkpoints: sorted tables, bundle entries, variable names |
//! | `tensors` | the common form: positions in files, which are copied when they are written |
//! | `model` | names and configuration |
//! | `output` | checks the output folder |
//! | `modules` | the modules of sentence-transformers |
//! | [`onnx`] | the other direction: a model as an ONNX file |
//!
//! Source files are not trusted: sizes are compared with the file before memory is allocated, checksums before data is used,
//! and the globals of a pickle with a list.
//!
//! ```no_run
//! use std::path::Path;
//!
//! # fn main() -> Result<(), cloze_convert::ConvertError> {
//! let device = cloze_engine::Device::cpu(None).expect("a CPU");
//! let (from, to) = (Path::new("uncased_L-2_H-128_A-2"), Path::new("tiny"));
//! let done = cloze_convert::convert(from, to, &device, &mut |stage| eprintln!("{stage}"))?;
//! println!("{}: {} parameters", done.format, done.parameters);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod error;
mod model;
mod modules;
pub mod onnx;
mod output;
mod pickle;
mod safetensors;
mod skipped;
mod source;
mod tensorflow;
mod tensors;

use std::path::Path;

use cloze_engine::Device;
use cloze_files::write_folder;
use cloze_model::checkpoint::CONFIG_FILE;
use cloze_model::{Class, Config, Layout, Model, ModelError};
use cloze_text::{TextError, Tokenizer};

pub use error::ConvertError;
pub use modules::copy_modules;
pub use skipped::Skipped;
pub use source::Format;

const WEIGHTS_FILE: &str = "model.safetensors";
/// The name of the configuration in google-research/bert.
const BERT_CONFIG_FILE: &str = "bert_config.json";
/// The name of the configuration in google-research/albert.
const ALBERT_CONFIG_FILE: &str = "albert_config.json";

/// The result of a conversion.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Converted {
    /// The format of the source.
    pub format: Format,
    /// Number of tensors written.
    pub tensors: usize,
    /// Number of their elements.
    pub parameters: u64,
    /// Size of their data in bytes; element types are kept.
    pub bytes: u64,
    /// `architectures` of the written configuration: those of the source, or derived from the tensors; empty if unknown.
    pub architectures: Vec<String>,
    /// Whether the result was loaded as a model. Heads that `cloze` does not support are copied without loading.
    pub opened: bool,
    /// Whether the source has a vocabulary, which was written in Transformers' layout.
    pub tokenizer: bool,
    /// Messages to the user about how the vocabulary was interpreted.
    pub tokenizer_notes: Vec<String>,
    /// The classes of the sentence-transformers modules that were written, in order; empty for a plain model.
    pub modules: Vec<String>,
    /// What was not converted, with the reasons.
    pub skipped: Skipped,
}

/// Converts `source` to the folder `out` with `config.json`, `model.safetensors` and the tokenizer's files.
///
/// `source` is a folder, one of its files (`.safetensors`, `.bin`, `.pt`, `.pth`, an `.index.json` of shards, a TensorFlow
/// `.index`), or the prefix of a TensorFlow checkpoint. `config.json` or `bert_config.json` and the vocabulary must be in
/// the same folder. The modules of a sentence-transformers folder are kept, also if `source` is the model inside it. Tensors
/// keep their element types and get Transformers' current names. `progress` receives a short description of each stage.
///
/// The output is written to a temporary folder, loaded on `device` if `cloze` supports its heads, and renamed: `out` is
/// complete or does not exist.
///
/// # Errors
/// [`ConvertError`]: a source that is invalid or damaged, a pickle with an unsafe global, tensors that do not match the
/// configuration, an `out` that is not empty, errors of the system.
pub fn convert(
    source: &Path,
    out: &Path,
    device: &Device,
    progress: &mut dyn FnMut(&str),
) -> Result<Converted, ConvertError> {
    output::check(out)?;
    let weights = source::find(source)?;
    let folder = weights.folder();
    let mut config = read_config(folder)?;
    let mut skipped = Skipped::default();
    let tokenizer = open_tokenizer(folder, &mut skipped)?;
    if let Some(tokenizer) = &tokenizer
        && tokenizer.vocab_size() > config.vocab_size
    {
        let report =
            format!("  {} tokens in the vocabulary, {} in the model", tokenizer.vocab_size(), config.vocab_size);
        return Err(ConvertError::Mismatch { path: source.to_owned(), report });
    }
    progress(&format!("reading {}", source.display()));
    let schema = config.schema();
    let (format, tensors) = weights.open(schema, config.is_of_class(Class::MaskedLm), &mut skipped)?;
    let mut tensors = model::canonicalise(&mut config, tensors, source, &mut skipped)?;
    let detected = model::DetectedModel::from_tensors(schema, &tensors);
    model::complete_config(&mut config, &detected, &tensors, format == Format::TensorFlow);
    model::rename_encoder(&config, &detected, &mut tensors);
    let opened = detected.is_supported();
    // The modules of sentence-transformers may be in the folder of the weights or in its parent.
    let layout = Layout::above(folder).map_or_else(|| Layout::of(folder), Ok)?;
    let mut modules = Vec::new();
    write_folder(out, |tmp_dir| {
        tensors::write(&tmp_dir.join(WEIGHTS_FILE), &tensors, progress)?;
        write_config(&tmp_dir.join(CONFIG_FILE), &config)?;
        if let Some(tokenizer) = &tokenizer {
            tokenizer.save_for(tmp_dir, config.max_position_embeddings)?;
        }
        modules = copy_modules(&layout, tmp_dir)?;
        if opened {
            progress("loading the result");
            open_result(source, tmp_dir, device)?;
        }
        Ok::<(), ConvertError>(())
    })?;
    Ok(Converted {
        format,
        tensors: tensors.len(),
        parameters: tensors.iter().map(|tensor| tensor.elements() as u64).sum(),
        bytes: tensors.iter().map(tensors::SourceTensor::bytes).sum(),
        architectures: config.architectures.unwrap_or_default(),
        opened,
        tokenizer: tokenizer.is_some(),
        tokenizer_notes: tokenizer.map(|tokenizer| tokenizer.notes().to_vec()).unwrap_or_default(),
        modules,
        skipped,
    })
}

fn read_config(folder: &Path) -> Result<Config, ConvertError> {
    let found = |name: &&str| folder.join(name).is_file();
    let Some(name) = [CONFIG_FILE, BERT_CONFIG_FILE, ALBERT_CONFIG_FILE].into_iter().find(found) else {
        let reason = format!(
            "found none of {CONFIG_FILE}, {BERT_CONFIG_FILE}, {ALBERT_CONFIG_FILE} in the folder; expected one next to the weights"
        );
        return Err(ConvertError::source(folder, reason));
    };
    let path = folder.join(name);
    Ok(if name == ALBERT_CONFIG_FILE { Config::read_as("albert", &path)? } else { Config::read(&path)? })
}

/// Opens the folder's tokenizer, if there is one of a supported kind.
fn open_tokenizer(folder: &Path, skipped: &mut Skipped) -> Result<Option<Tokenizer>, ConvertError> {
    match Tokenizer::open(folder) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(TextError::NoTokenizer { .. }) => Ok(None),
        Err(TextError::Unsupported { path, .. }) => {
            skipped.add("a tokenizer of an unsupported kind", &path.display().to_string());
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

fn write_config(path: &Path, config: &Config) -> Result<(), ConvertError> {
    Ok(cloze_files::write(path, config.to_json().as_bytes())?)
}

/// Checks that the result loads. Errors name the source, because the temporary result is deleted.
fn open_result(source: &Path, folder: &Path, device: &Device) -> Result<(), ConvertError> {
    match Model::load(folder, device) {
        Ok(_) => Ok(()),
        Err(ModelError::Tensors { report, .. }) => Err(ConvertError::Mismatch { path: source.to_owned(), report }),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests;
