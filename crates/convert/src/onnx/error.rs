//! What can keep a model from becoming an ONNX file.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of writing ONNX.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A file that cannot be written: no space, no permission, no such folder.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A path that cannot name an ONNX file.
    #[error("{}: {problem}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What was expected, and what to do.
        problem: &'static str,
    },
    /// A model whose tokens see only those before them.
    #[error("a causal model (is_decoder) cannot be written as ONNX: expected an encoder")]
    Causal,
    /// A tensor that is missing or has the wrong shape.
    #[error("{name}: {problem}")]
    Tensor {
        /// Its name in the checkpoint.
        name: String,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A graph that protobuf cannot hold even with its weights in a file of their own.
    #[error("{}: the graph alone takes {bytes} bytes, expected at most {limit}: it has too many layers for one ONNX file", path.display())]
    TooLarge {
        /// The file that was to be written.
        path: PathBuf,
        /// The size of the graph.
        bytes: u64,
        /// The most that one file may hold.
        limit: u64,
    },
}

impl OnnxError {
    pub(super) fn write(path: &Path, source: io::Error) -> OnnxError {
        OnnxError::Write { path: path.to_owned(), source }
    }
}

impl From<cloze_files::FileError> for OnnxError {
    fn from(cloze_files::FileError { path, source, .. }: cloze_files::FileError) -> OnnxError {
        OnnxError::Write { path, source }
    }
}
