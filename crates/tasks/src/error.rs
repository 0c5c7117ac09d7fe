//! The one error type of this crate: what was expected, what was found, where, what to do.

use std::path::{Path, PathBuf};

/// Everything that the world can do wrong to a task's data, models and predictions.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file or folder that could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A place in a data file that does not hold what it should.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line (or, in a Parquet file, the row), from 1.
        line: usize,
        /// What was expected, what was found, what to do; names the column.
        problem: String,
    },
    /// A file that as a whole is not what it should be: empty, without a column, of an unknown kind.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
}

impl TaskError {
    /// Wraps a system error.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TaskError {
        TaskError::Io { action, path: path.to_owned(), source }
    }
}
