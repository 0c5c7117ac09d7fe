//! The one error type of this crate: what was expected, what was found, where, what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_data::DataError;

/// Errors of a task's data, models and predictions that are caused by input or environment; bugs panic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A file or folder that could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as an infinitive: "read", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line (or row) of a data file that is not valid.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line (or, in a Parquet file, the row), from 1.
        line: usize,
        /// What was expected, what was found, what to do; names the column.
        problem: String,
    },
    /// A file that is not usable as a whole: it is empty, lacks a column, or has an unknown format.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A model folder or run folder that cannot be used for this task.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// An error of one row of a file. It is stored in the row's position.
    #[error(transparent)]
    Row(Arc<TaskError>),
    /// An option's value, given by the caller and not by a file: the name of a task or column, a list of labels, a
    /// learning rate.
    #[error("`{name}`: {problem}")]
    Setting {
        /// The option's name, with underscores.
        name: &'static str,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A value passed in memory that cannot be used: a question without words, an answer that is not in its context, a
    /// length that is too small.
    #[error("{what}: {problem}")]
    Input {
        /// The name of the value: "question", "`max_len`", "start logits of window 3".
        what: String,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A run or an evaluation without rows. The value says which rows: "training".
    #[error("there are no {0} rows; give a file with at least one")]
    NoRows(&'static str),
    /// The rows of the run to resume are not those that it started with.
    #[error(
        "{}: the run started with different rows or labels{}{differ}; pass the same files and options, or choose a different `out`",
        run.display(), if differ.is_empty() { "" } else { ": " }
    )]
    DifferentRows {
        /// The run's folder.
        run: PathBuf,
        /// The differences that are known; may be empty.
        differ: String,
    },
    /// The loss or gradient of several consecutive steps, or of all steps of a short run, was not finite.
    #[error(
        "step {step}: loss or gradient not finite in the last steps; stopped. Lower `lr`, or check the data and the model"
    )]
    NotFinite {
        /// The last of these steps.
        step: u64,
    },
    /// A text without a mask token.
    #[error("no {mask} in \"{text}\"; write {mask}{} where a token is to be predicted", other_mask(text))]
    NoMask {
        /// The text.
        text: String,
        /// The tokenizer's mask token.
        mask: String,
    },
    /// A text that has more tokens than the model has positions.
    #[error("the text has {found} tokens with [CLS] and [SEP], the model {positions} positions; shorten it")]
    TooLong {
        /// The number of tokens of the text, special tokens included.
        found: usize,
        /// The number of positions of the model.
        positions: usize,
    },
    /// The model's logits for a row contain NaN or infinity. The value says which row.
    #[error("{0}: the model's logits are not finite; its weights are damaged: train or download it again")]
    Logits(String),
    /// The executor did not compute the outputs. A server's executor says why: the queue is too long, the client is gone.
    #[error(transparent)]
    Executor(Box<dyn std::error::Error + Send + Sync>),
    /// An error of training or of a checkpoint.
    #[error(transparent)]
    Train(#[from] cloze_train::TrainError),
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] cloze_engine::EngineError),
    /// An error of a model or its folder.
    #[error(transparent)]
    Model(#[from] cloze_model::ModelError),
    /// An error of a tokenizer.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

impl TaskError {
    /// An error about an option's value.
    pub(crate) fn setting(name: &'static str, problem: impl Into<String>) -> TaskError {
        TaskError::Setting { name, problem: problem.into() }
    }

    /// Wraps a system error.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TaskError {
        TaskError::Io { action, path: path.to_owned(), source }
    }

    /// An error about a value in memory.
    pub(crate) fn input(what: impl Into<String>, problem: impl Into<String>) -> TaskError {
        TaskError::Input { what: what.into(), problem: problem.into() }
    }

    /// An error about one line of a file.
    pub(crate) fn line(path: &Path, line: usize, problem: impl Into<String>) -> TaskError {
        TaskError::Line { path: path.to_owned(), line, problem: problem.into() }
    }

    /// An error about a file.
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> TaskError {
        TaskError::File { path: path.to_owned(), problem: problem.into() }
    }

    /// Converts an error of `cloze-data` about the file `path`.
    pub(crate) fn data(path: &Path, error: DataError) -> TaskError {
        match error {
            DataError::Io { action, path, source } => TaskError::Io { action, path, source },
            DataError::Record { path, line, reason } => {
                TaskError::Line { path, line: usize::try_from(line).unwrap_or(usize::MAX), problem: reason }
            }
            DataError::Input { path, reason } | DataError::NotText { path, reason } => {
                TaskError::File { path, problem: reason }
            }
            DataError::Format { path, format, reason } => TaskError::File {
                path,
                problem: format!("not readable as {format}: {reason}; the file is damaged or truncated"),
            },
            other => TaskError::file(path, other.to_string()),
        }
    }
}

impl From<cloze_files::FileError> for TaskError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> TaskError {
        TaskError::Io { action, path, source }
    }
}

/// The mask token of another model that the text contains, as the end of a sentence.
fn other_mask(text: &str) -> String {
    let others = ["[MASK]", "<mask>", "[mask]", "<MASK>", "{mask}", "___"];
    others.iter().find(|other| text.contains(**other)).map_or_else(String::new, |other| format!(" instead of {other}"))
}
