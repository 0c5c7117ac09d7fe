//! Errors of writing ONNX.

use std::io;
use std::path::{Path, PathBuf};

use cloze_model::Class;
use thiserror::Error;

/// An error of writing ONNX.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A file cannot be written: no space, no permission, no such folder.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A path that is not a valid path of an ONNX file.
    #[error("{}: {problem}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What was expected, and what to do.
        problem: &'static str,
    },
    /// An output that no model of the family has.
    #[error("{family} has no models with the output {output:?}; choose an output whose head the model has")]
    Family {
        /// The family.
        family: &'static str,
        /// The output.
        output: Class,
    },
    /// A tensor that is missing or has the wrong shape.
    #[error("{name}: {problem}")]
    Tensor {
        /// Its name in the checkpoint.
        name: String,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A pooling or modules that do not fit the model.
    #[error("the embedding does not fit: {problem}")]
    Embedding {
        /// What was expected, what was found.
        problem: String,
    },
    /// A graph that is too large for protobuf even without its weights.
    #[error("{}: the graph without weights has {bytes} bytes, expected at most {limit}: the model has too many layers for one ONNX file", path.display())]
    TooLarge {
        /// The file to be written.
        path: PathBuf,
        /// The size of the graph.
        bytes: u64,
        /// The maximal size of a file.
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
