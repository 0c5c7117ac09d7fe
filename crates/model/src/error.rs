//! What the world can cause: a config, a checkpoint folder or a batch that does not fit.

use std::io;
use std::path::PathBuf;

use cloze_files::FileError;
use thiserror::Error;

/// A model error that a user can cause and mend.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that cannot be written: no space, no permission.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder without a checkpoint in it.
    #[error("{} is no model folder: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what to do.
        problem: String,
    },
    /// A JSON file that is not JSON, or a key with a value of the wrong type (the source says the line and column).
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A configuration that describes no model that this crate can build.
    #[error("{}: {problem}", path.as_ref().map_or("model config".to_owned(), |path| path.display().to_string()))]
    Config {
        /// The file, if the configuration came from one.
        path: Option<PathBuf>,
        /// Every problem found, joined by `; `.
        problem: String,
    },
    /// A weights file that is truncated, altered or not safetensors at all.
    #[error("{} is damaged or no safetensors file: {problem}; copy or download it again", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// Weights that are not numbers.
    #[error("{}: {tensor} holds values that are not numbers: its weights are damaged", path.display())]
    NotNumbers {
        /// The folder.
        path: PathBuf,
        /// The tensor's name as stored.
        tensor: String,
    },
    /// Tensors that do not fit the configuration: the report has a line for each kind of misfit.
    #[error("the weights in {} do not fit its config.json:\n{report}", path.display())]
    Tensors {
        /// The folder.
        path: PathBuf,
        /// Indented lines for missing, surplus, mis-shaped and unreadable tensors, which name a few of each.
        report: String,
    },
    /// A model whose embedding table is smaller than its tokenizer.
    #[error(
        "{}: its tokenizer has {expected} tokens, the model's embeddings {found} rows: they do not belong together",
        path.display()
    )]
    VocabularySize {
        /// The model's folder.
        path: PathBuf,
        /// The tokenizer's size.
        expected: usize,
        /// The model's size.
        found: usize,
    },
    /// A model with fewer segments than its tokenizer's sequences.
    #[error(
        "{}: its tokenizer's sequences have {expected} segments, the model has {found} (type_vocab_size): they do not belong together",
        path.display()
    )]
    Segments {
        /// The model's folder.
        path: PathBuf,
        /// The segments of the tokenizer's sequence template.
        expected: usize,
        /// The model's.
        found: usize,
    },
    /// Heads that do not go together.
    #[error("heads {found}: {problem}")]
    Heads {
        /// The heads asked for.
        found: String,
        /// Why they cannot be built.
        problem: String,
    },
    /// Rows of a new vocabulary that cannot be made of the old one's.
    #[error("row {row} of the new vocabulary: {problem}")]
    Vocabulary {
        /// The new row, from 0.
        row: usize,
        /// What was expected and found.
        problem: String,
    },
    /// A batch that this model cannot read: an id beyond the vocabulary, a sequence longer than the positions.
    #[error("{0}")]
    Batch(String),
}

impl From<FileError> for ModelError {
    fn from(FileError { path, source, .. }: FileError) -> ModelError {
        ModelError::Write { path, source }
    }
}
