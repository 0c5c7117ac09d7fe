//! The one error type of this crate: what was expected, what was found, where, what to do.

use std::path::PathBuf;

/// Everything that the world can do wrong to corpora, shards and batches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be opened, read, written or renamed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done: "open", "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The disk filled while writing. What was written is removed.
    #[error(
        "the disk is full: cannot write {}; free some space or choose another --out, then run again (nothing was kept of this run)",
        path.display()
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// No file matches an input path.
    #[error("input {}: {reason}", path.display())]
    Input {
        /// The path or pattern as it was given.
        path: PathBuf,
        /// Why nothing can be read from it.
        reason: String,
    },
    /// The corpus, or one file of it, holds no text.
    #[error("{}: holds no text; expected at least one document", path.display())]
    EmptyCorpus {
        /// The file, or the inputs joined by commas.
        path: PathBuf,
    },
    /// A file that should be text and is not, as its beginning or its growth shows.
    #[error("{}: {reason}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is, what was expected, what to do.
        reason: String,
    },
    /// A line of a text, or a row of a .parquet file, that cannot be used.
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
        "{}: no text column \"{column}\"; it has {}: name one with --text-column",
        path.display(),
        present.join(", ")
    )]
    NoTextColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns there are.
        present: Vec<String>,
    },
    /// A compressed or columnar file that cannot be decoded: damaged or cut short.
    #[error("{}: not readable as {format}: {reason}; the file is damaged or was cut short", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// "gzip", "zstd" or "parquet".
        format: &'static str,
        /// The decoder's reason.
        reason: String,
    },
    /// The output folder is in use.
    #[error(
        "{} exists and is not empty; choose another --out, or remove it first",
        path.display()
    )]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that holds no shards.
    #[error("{}: {reason}; expected a folder written by `cloze prepare`", path.display())]
    NotShards {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A shard that is not the file its manifest describes.
    #[error(
        "{}: {reason}; the file was cut short or altered: restore it, or run `cloze prepare` again",
        path.display()
    )]
    ShardDamaged {
        /// The shard.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// Shards of one tokenizer used with another.
    #[error(
        "{}: made with tokenizer {expected}, but this is tokenizer {found}; use the folder's own tokenizer/ or run `cloze prepare` again",
        path.display()
    )]
    OtherTokenizer {
        /// The folder of shards.
        path: PathBuf,
        /// The fingerprint in the manifest.
        expected: String,
        /// The fingerprint of the tokenizer at hand.
        found: String,
    },
    /// An option whose value cannot work.
    #[error("{option}: {reason}")]
    Option {
        /// The option's name as the user writes it.
        option: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
    /// The data cannot give what the options ask of it (too few documents, too few sentences, …).
    #[error("the data cannot be sampled: {reason}")]
    Sampling {
        /// What is missing, and what to do.
        reason: String,
    },
    /// The caller's progress function stopped the run.
    #[error("interrupted; nothing was kept")]
    Interrupted,
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

impl DataError {
    /// Wraps a system error, giving a full disk its own variant.
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
