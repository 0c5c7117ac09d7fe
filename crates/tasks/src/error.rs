//! The one error type of this crate: what was expected, what was found, where, what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_data::DataError;

/// Everything that the world can do wrong to a task's data, models and predictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// A model's folder, or a run's, that cannot be used for this.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// An error of a row of a file, which is kept with the file's rows.
    #[error(transparent)]
    Row(Arc<TaskError>),
    /// A value given by the caller, not by a file: a task's or column's name, a list of labels, a rate.
    #[error("{name}: {problem}")]
    Setting {
        /// What the value is for.
        name: &'static str,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// Something handed over in memory that cannot be worked with: a question without words, an answer that does not
    /// stand in its context, a length too small, logits that are no numbers.
    #[error("{what}: {problem}")]
    Input {
        /// What was handed over, as its maker calls it: "question", "max_len", "start logits of window 3".
        what: String,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// Nothing to learn from, or to judge.
    #[error("there are no {0} rows; give a file with at least one")]
    NoRows(&'static str),
    /// The rows of a run to resume are not those that it began with.
    #[error(
        "{}: the run began with other rows or labels{}{differ}; give the same files and options again, or choose another --out",
        run.display(), if differ.is_empty() { "" } else { ": " }
    )]
    OtherRows {
        /// The run's folder.
        run: PathBuf,
        /// Which of them differ, as far as it is known.
        differ: String,
    },
    /// Several steps in a row, or all of a short run, had a loss or gradient that is not finite.
    #[error(
        "step {step}: loss or gradient not finite in the last steps; stopped. Lower --lr, or look at the data and the model"
    )]
    NotFinite {
        /// The last of them.
        step: u64,
    },
    /// A text with nothing to fill.
    #[error("no {mask} in \"{text}\"; write {mask}{} where a token is to be filled in", other_mask(text))]
    NoMask {
        /// The text.
        text: String,
        /// The mask as the tokenizer spells it.
        mask: String,
    },
    /// A text longer than the model's positions.
    #[error("the text has {found} tokens with [CLS] and [SEP], the model {positions} positions; shorten it")]
    TooLong {
        /// Tokens of the text.
        found: usize,
        /// The model's positions.
        positions: usize,
    },
    /// The network's answer to a row is not a number: the weights are damaged.
    #[error("{0}: the model's logits are not numbers; its weights are damaged: train or download it again")]
    Logits(String),
    /// Training and checkpoints.
    #[error(transparent)]
    Train(#[from] cloze_train::TrainError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] cloze_engine::EngineError),
    /// Models and their folders.
    #[error(transparent)]
    Model(#[from] cloze_model::ModelError),
    /// Tokenizers.
    #[error(transparent)]
    Text(#[from] cloze_text::TextError),
}

impl TaskError {
    /// Refuses a setting.
    pub(crate) fn setting(name: &'static str, problem: impl Into<String>) -> TaskError {
        TaskError::Setting { name, problem: problem.into() }
    }

    /// Wraps a system error.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TaskError {
        TaskError::Io { action, path: path.to_owned(), source }
    }

    /// Refuses what a caller handed over.
    pub(crate) fn input(what: impl Into<String>, problem: impl Into<String>) -> TaskError {
        TaskError::Input { what: what.into(), problem: problem.into() }
    }

    /// A problem of one line.
    pub(crate) fn line(path: &Path, line: usize, problem: impl Into<String>) -> TaskError {
        TaskError::Line { path: path.to_owned(), line, problem: problem.into() }
    }

    /// A problem of a whole file.
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> TaskError {
        TaskError::File { path: path.to_owned(), problem: problem.into() }
    }

    /// What reading the file `path` through `cloze-data` said.
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
                problem: format!("not readable as {format}: {reason}; the file is damaged or was cut short"),
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

/// What a text has in the place of a mask, if it is one that other models or people use.
fn other_mask(text: &str) -> String {
    let others = ["[MASK]", "<mask>", "[mask]", "<MASK>", "{mask}", "___"];
    others.iter().find(|other| text.contains(**other)).map_or_else(String::new, |other| format!(" instead of {other}"))
}
