//! Models from and to other formats: what another program saved becomes a folder of Transformers' layout that `cloze` opens.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `source` | which files a folder, file or prefix means |
//! | `safetensors` | Transformers' own files, single or sharded, of any age |
//! | `pickle` | `pytorch_model.bin` in both forms of `torch.save`; its pickle machine runs no code |
//! | `tensorflow` | google-research/bert's checkpoints: sorted tables, bundle entries, variable names |
//! | `tensors` | the common form: places in files, copied when they are written |
//! | `model` | names and configuration |
//! | `output` | whether a folder may be written |
//! | `modules` | what sentence-transformers says beside a model |
//! | [`onnx`] | the other direction: a model as an ONNX file |
//!
//! Files are taken for hostile: sizes are compared with the file before anything is allocated, checksums before anything
//! is used, and a pickle's globals with a list.
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

mod aside;
mod error;
mod model;
mod modules;
pub mod onnx;
mod output;
mod pickle;
mod safetensors;
mod source;
mod tensorflow;
mod tensors;

use std::path::Path;

use cloze_engine::Device;
use cloze_files::write_folder;
use cloze_model::checkpoint::CONFIG_FILE;
use cloze_model::{Config, Layout, Model, ModelError};
use cloze_text::{TextError, Tokenizer};

pub use aside::LeftAside;
pub use error::ConvertError;
pub use modules::carry_modules;
pub use source::Format;

const WEIGHTS_FILE: &str = "model.safetensors";
/// google-research/bert's name for the configuration.
const BERT_CONFIG_FILE: &str = "bert_config.json";

/// What a conversion read and wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Converted {
    /// The source's format.
    pub format: Format,
    /// Tensors written.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
    /// Their bytes; element types are kept.
    pub bytes: u64,
    /// `architectures` of the configuration written: the source's, or what the tensors tell; empty where they do not.
    pub architectures: Vec<String>,
    /// Whether the result was opened as a model. Heads that `cloze` does not know are copied as they are, unopened.
    pub opened: bool,
    /// Whether the source had a vocabulary; its files were written as `cloze vocab` writes them.
    pub tokenizer: bool,
    /// What must be known of how the vocabulary was read: sentences.
    pub tokenizer_notes: Vec<String>,
    /// The classes of sentence-transformers' modules that were written with it, in order; empty for a plain model.
    pub modules: Vec<String>,
    /// What was not converted, and why.
    pub left_aside: LeftAside,
}

/// Reads `source` and writes it to `out` as `config.json`, `model.safetensors` and the tokenizer's files.
///
/// `source` is a folder, one file of it (`.safetensors`, `.bin`, `.pt`, `.pth`, an `.index.json` of shards, a TensorFlow
/// `.index`), or the prefix of a TensorFlow checkpoint; `config.json` or `bert_config.json` and the vocabulary are beside it. A
/// sentence-transformers folder, or the model in one, keeps its modules. Tensors
/// keep their element types and get Transformers' present names. `progress` is told each stage in a few words.
///
/// The folder is written aside, opened on `device` if its heads are ones that `cloze` knows, and renamed: `out` is whole or not there.
///
/// # Errors
/// [`ConvertError`]: a source that is none or damaged, a pickle that wants to run code, tensors that do not fit their
/// configuration, an `out` that exists and is not empty, the system's errors.
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
    let mut left_aside = LeftAside::default();
    let tokenizer = open_tokenizer(folder, &mut left_aside)?;
    if let Some(tokenizer) = &tokenizer
        && tokenizer.vocab_size() > config.vocab_size
    {
        let report =
            format!("  {} words in the vocabulary, {} in the model", tokenizer.vocab_size(), config.vocab_size);
        return Err(ConvertError::Fit { path: source.to_owned(), report });
    }
    progress(&format!("reading {}", source.display()));
    let schema = config.schema();
    let (format, tensors) = weights.open(schema, &mut left_aside)?;
    let mut tensors = model::canonicalise(&mut config, tensors, source, &mut left_aside)?;
    let found = model::Found::of(schema, &tensors);
    model::complete(&mut config, &found, &tensors, format == Format::TensorFlow);
    model::rename_for(&config, &found, &mut tensors);
    let opened = found.is_known();
    // The settings of vectors may be beside the weights or above them.
    let layout = Layout::above(folder).map_or_else(|| Layout::of(folder), Ok)?;
    let mut modules = Vec::new();
    write_folder(out, |aside| {
        tensors::write(&aside.join(WEIGHTS_FILE), &tensors, progress)?;
        write_config(&aside.join(CONFIG_FILE), &config)?;
        if let Some(tokenizer) = &tokenizer {
            tokenizer.save_for(aside, config.max_position_embeddings)?;
        }
        modules = carry_modules(&layout, aside)?;
        if opened {
            progress("opening the result");
            open_result(source, aside, device)?;
        }
        Ok::<(), ConvertError>(())
    })?;
    Ok(Converted {
        format,
        tensors: tensors.len(),
        parameters: tensors.iter().map(|tensor| tensor.elements() as u64).sum(),
        bytes: tensors.iter().map(tensors::ForeignTensor::bytes).sum(),
        architectures: config.architectures.unwrap_or_default(),
        opened,
        tokenizer: tokenizer.is_some(),
        tokenizer_notes: tokenizer.map(|tokenizer| tokenizer.notes().to_vec()).unwrap_or_default(),
        modules,
        left_aside,
    })
}

fn read_config(folder: &Path) -> Result<Config, ConvertError> {
    match [CONFIG_FILE, BERT_CONFIG_FILE].iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(Config::read(&path)?),
        None => {
            let reason =
                format!("it holds neither {CONFIG_FILE} nor {BERT_CONFIG_FILE}: the weights do not say all sizes");
            Err(ConvertError::source(folder, reason))
        }
    }
}

/// The folder's tokenizer, if it has one of a kind that is known.
fn open_tokenizer(folder: &Path, aside: &mut LeftAside) -> Result<Option<Tokenizer>, ConvertError> {
    match Tokenizer::open(folder) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(TextError::NoTokenizer(_)) => Ok(None),
        Err(TextError::Unsupported { path, .. }) => {
            aside.put("a tokenizer of an unknown kind", &path.display().to_string());
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
        Err(ModelError::Tensors { report, .. }) => Err(ConvertError::Fit { path: source.to_owned(), report }),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests;
