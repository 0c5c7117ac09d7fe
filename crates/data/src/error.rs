//! The error type of this crate. Each message says what was expected, what was found, where, and what to do.

use std::path::PathBuf;

/// Errors of reading corpora, writing shards and making batches that are caused by input or environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be opened, read, written or renamed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "open", "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The disk is full. The incomplete output has been removed.
    #[error(
        "the disk is full: cannot write {}; free some space or choose another `out`, then run again (the incomplete output was removed)",
        path.display()
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// Nothing can be read from an input path.
    #[error("input {}: {reason}", path.display())]
    Input {
        /// The path or pattern as given.
        path: PathBuf,
        /// Why nothing can be read from it.
        reason: String,
    },
    /// The corpus, or one of its files, contains no text.
    #[error("{}: contains no text; expected at least one document", path.display())]
    EmptyCorpus {
        /// The file, or the first of the inputs.
        path: PathBuf,
    },
    /// A file that should be text but is not, according to its first bytes or its compression ratio.
    #[error("{}: {reason}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What the file is, what was expected, and what to do.
        reason: String,
    },
    /// A line of a text file, or a row of a .parquet file, that is invalid.
    #[error("{}:{line}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The text column is missing.
    #[error(
        "{}: found no text column \"{column}\" among {}; name one with `text_column`",
        path.display(),
        present.join(", ")
    )]
    NoTextColumn {
        /// The file.
        path: PathBuf,
        /// The requested column.
        column: String,
        /// The columns of the file.
        present: Vec<String>,
    },
    /// A compressed or columnar file that cannot be decoded because it is damaged or incomplete.
    #[error("{}: not readable as {format}: {reason}; the file is damaged or incomplete", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// "gzip", "zstd" or "parquet".
        format: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// The output folder is not empty.
    #[error(
        "{} exists and is not empty; choose another `out`, or remove it first",
        path.display()
    )]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that does not contain valid shards.
    #[error("{}: {reason}; expected a folder of prepared shards", path.display())]
    NotShards {
        /// The folder.
        path: PathBuf,
        /// What is missing or invalid.
        reason: String,
    },
    /// A shard file that does not match its manifest.
    #[error(
        "{}: {reason}; the file was truncated or altered: restore it, or prepare the shards again",
        path.display()
    )]
    ShardDamaged {
        /// The shard.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// Shards were made with another tokenizer.
    #[error(
        "{}: the shards were made with tokenizer {expected}, found tokenizer {found}; use the tokenizer/ of this folder, or prepare the shards again with this tokenizer",
        path.display()
    )]
    OtherTokenizer {
        /// The folder of shards.
        path: PathBuf,
        /// The fingerprint in the manifest.
        expected: String,
        /// The fingerprint of the given tokenizer.
        found: String,
    },
    /// An option has an invalid value.
    #[error("`{option}` {reason}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// The data cannot satisfy the options (too few documents, too few sentences, …).
    #[error("batches cannot be made from the data: {reason}")]
    Sampling {
        /// What is missing, and what to do.
        reason: String,
    },
    /// The caller's progress callback stopped the run.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The ranks of a job do not fit together: they have different text or tokenizers, or cannot share the input.
    #[error("{0}")]
    Ranks(
        /// Which rank, and what to do.
        String,
    ),
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

impl DataError {
    /// Wraps a system error. A full disk has its own variant.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> DataError {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => DataError::DiskFull { path },
            _ => DataError::Io { action, path, source },
        }
    }
}

impl From<cloze_files::FileError> for DataError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> DataError {
        DataError::io(action, path, source)
    }
}
