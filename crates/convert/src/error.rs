//! The one error type of this crate: what was expected, what was found, where, what to do.

use std::path::{Path, PathBuf};

/// Everything that a foreign checkpoint, its folder or the disk can do wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
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
    /// The source is nothing that can be converted.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The source as it was given, or the file in it.
        path: PathBuf,
        /// What was looked for, what was found, what to do.
        reason: String,
    },
    /// The output folder is in use or cannot be one.
    #[error("--out {}: {reason}", path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A file that is truncated, altered or not of its format at all.
    #[error("{} is damaged or no {format}: {reason}; copy or download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        format: &'static str,
        /// Where (byte, entry, tensor), what was expected, what was found.
        reason: String,
    },
    /// A sound file of a kind that is not read here.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// A pickle that asks for a Python function or class beyond the few that tensors need.
    #[error(
        "{}, byte {at} of its pickle: the file wants to run {global}: refused. Weights need no such thing; if the file is \
         to be trusted, save its state_dict() alone with torch.save",
        path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// Offset in the pickle.
        at: u64,
        /// The Python global, such as `os.system`.
        global: String,
    },
    /// Tensors that are no BERT, or not that of the configuration.
    #[error("the tensors of {} do not fit the configuration beside them:\n{report}", path.display())]
    Fit {
        /// The source.
        path: PathBuf,
        /// One indented line per problem.
        report: String,
    },
    /// The configuration, or the finished folder, was refused by the model's loader.
    #[error(transparent)]
    Model(#[from] cloze_model::ModelError),
    /// The vocabulary was refused.
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
