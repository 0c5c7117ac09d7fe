//! Errors caused by input: a config, a checkpoint folder or a batch that does not fit.

use std::io;
use std::path::PathBuf;

use cloze_files::FileError;
use thiserror::Error;

/// A model error that the user can correct.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file that cannot be written: no space, no permission.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A folder without a checkpoint in it.
    #[error("{} is not a model folder: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what to do.
        problem: String,
    },
    /// A file that is not JSON, or a value of the wrong type.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The problem, with line and column.
        source: serde_json::Error,
    },
    /// A configuration of a model that cannot be built.
    #[error("{}: {problem}", path.as_ref().map_or("model config".to_owned(), |path| path.display().to_string()))]
    Config {
        /// The file, if the configuration came from one.
        path: Option<PathBuf>,
        /// All problems found, joined by `; `.
        problem: String,
    },
    /// A weights file that is truncated, altered or not a safetensors file.
    #[error("{} is damaged or not a safetensors file: {problem}; copy or download it again", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// Weights that contain NaN.
    #[error("{}: {tensor} contains NaN: its weights are damaged; copy or download them again", path.display())]
    NanWeights {
        /// The folder.
        path: PathBuf,
        /// The tensor's name as stored.
        tensor: String,
    },
    /// Tensors that do not match the configuration.
    #[error("the weights in {} do not match its config.json:\n{report}", path.display())]
    Tensors {
        /// The folder.
        path: PathBuf,
        /// Indented lines for missing, unexpected, mis-shaped and unreadable tensors, each with a few names.
        report: String,
    },
    /// A model with fewer embeddings than its tokenizer has tokens.
    #[error(
        "{}: its tokenizer has {expected} tokens, but the model only has {found} embeddings; use the tokenizer of this model",
        path.display()
    )]
    VocabularySize {
        /// The model's folder.
        path: PathBuf,
        /// The number of the tokenizer's tokens.
        expected: usize,
        /// The number of the model's embeddings.
        found: usize,
    },
    /// A model with fewer segments than its tokenizer's sequences.
    #[error(
        "{}: the sequences of its tokenizer have {expected} segments, but the model only has {found} (type_vocab_size); use the tokenizer of this model",
        path.display()
    )]
    Segments {
        /// The model's folder.
        path: PathBuf,
        /// The number of segments in the tokenizer's sequence template.
        expected: usize,
        /// The number of the model's segments.
        found: usize,
    },
    /// Heads that cannot be combined.
    #[error("heads {found}: {problem}")]
    Heads {
        /// The requested heads.
        found: String,
        /// Why the model cannot be built.
        problem: String,
    },
    /// A row of a new vocabulary that cannot be made from the old one.
    #[error("row {row} of the new vocabulary: {problem}")]
    Vocabulary {
        /// The new row, from 0.
        row: usize,
        /// What was expected and found.
        problem: String,
    },
    /// A batch that this model cannot process, for example with an id beyond the vocabulary or a sequence that is too
    /// long.
    #[error("{0}")]
    Batch(String),
}

impl From<FileError> for ModelError {
    fn from(FileError { path, source, .. }: FileError) -> ModelError {
        ModelError::Write { path, source }
    }
}
