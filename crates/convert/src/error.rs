//! The error type of this crate. Each message says what was expected, what was found, where, and what to do.

use std::path::{Path, PathBuf};

/// Errors of a conversion that are caused by the source, the output folder or the system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
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
    /// The source cannot be converted.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The source as given, or the file in it.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        reason: String,
    },
    /// The output folder is not empty or not valid.
    #[error("output folder {}: {reason}", path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// The reason, and what to do.
        reason: &'static str,
    },
    /// A file is truncated, altered, or has another format.
    #[error("{} is damaged or not a {format}: {reason}; copy or download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The expected format.
        format: &'static str,
        /// The position (byte, entry, tensor), what was expected, what was found.
        reason: String,
    },
    /// A valid file of an unsupported kind.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the file is, and what to do.
        reason: String,
    },
    /// A pickle refers to a Python function or class that is not one of the few that tensors need.
    #[error(
        "{}: byte {at} of its pickle refers to {global}, which could run code and is not needed for weights; if you trust \
         the file, load it with torch and save only its state_dict() with torch.save",
        path.display()
    )]
    UnsafeGlobal {
        /// The file.
        path: PathBuf,
        /// Offset in the pickle.
        at: u64,
        /// The Python global, such as `os.system`.
        global: String,
    },
    /// The tensors are not those of a BERT model, or do not match the configuration.
    #[error("the tensors of {} do not match its configuration:\n{report}", path.display())]
    Mismatch {
        /// The source.
        path: PathBuf,
        /// One indented line for each problem.
        report: String,
    },
    /// The model's loader rejected the configuration or the converted model.
    #[error(transparent)]
    Model(#[from] cloze_model::ModelError),
    /// The vocabulary is not valid.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

impl ConvertError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ConvertError + use<> {
        let path = path.to_owned();
        move |source| ConvertError::Io { action, path, source }
    }

    pub(crate) fn source(path: &Path, reason: impl Into<String>) -> ConvertError {
        ConvertError::Source { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn damaged(path: &Path, format: &'static str, reason: impl Into<String>) -> ConvertError {
        ConvertError::Damaged { path: path.to_owned(), format, reason: reason.into() }
    }

    pub(crate) fn unsupported(path: &Path, reason: impl Into<String>) -> ConvertError {
        ConvertError::Unsupported { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<cloze_files::FileError> for ConvertError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> ConvertError {
        ConvertError::Io { action, path, source }
    }
}
