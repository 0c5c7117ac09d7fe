//! A kind of task: its description, which models it accepts, and constructors of its tasks.

use std::path::{Path, PathBuf};

use cloze_model::{Config, Heads, TaskHead};
use cloze_text::Tokenizer;

use super::description::Description;
use crate::TaskError;
use crate::any_task::{AnyRows, AnyTask, Rows};
use crate::reading::{Notes, Reading};
use crate::task::Task;

/// A task and its training rows.
pub type TaskAndRows = (Box<dyn AnyTask>, Box<dyn AnyRows>);

/// A kind of task. [`KINDS`](crate::kinds::KINDS) lists all of them.
#[derive(Debug)]
pub struct Kind {
    /// The description for user interfaces.
    pub description: Description,
    accepts: fn(&Config, TaskHead) -> Result<(), Mismatch>,
    learn: LearnFn,
    open: OpenFn,
}

type LearnFn = fn(&Reading, &[PathBuf], &Config, &Tokenizer, &mut Notes) -> Result<TaskAndRows, TaskError>;
type OpenFn = fn(&Reading, &Config, TaskHead) -> Result<Box<dyn AnyTask>, TaskError>;

/// Why a kind does not accept a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// Its head is different.
    Head,
    /// Its head is the same, but its configuration says that the logits have another meaning.
    Outputs(String),
}

impl PartialEq for Kind {
    /// Kinds are compared by name.
    fn eq(&self, other: &Kind) -> bool {
        self.name() == other.name()
    }
}

impl Kind {
    /// A kind whose tasks have the type `T`. `accepts` checks whether a model is of this kind.
    pub const fn of<T: Task>(description: Description, accepts: fn(&Config, TaskHead) -> Result<(), Mismatch>) -> Kind {
        Kind { description, accepts, learn: learn::<T>, open: open::<T> }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.description.name
    }

    /// Whether a model with this head and configuration is of this kind.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn accepts(&self, config: &Config, head: TaskHead) -> Result<(), Mismatch> {
        (self.accepts)(config, head)
    }

    /// The task that training files define, and the rows of these files. `start` is the configuration of the model to
    /// fine-tune.
    ///
    /// # Errors
    /// Those of [`Task::from_training_files`]; [`TaskError::Setting`] for [`TaskOptions::long`](crate::TaskOptions::long), which is not for
    /// training.
    pub fn learn(
        &self,
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<TaskAndRows, TaskError> {
        if reading.options().long.is_some() {
            let problem = "has no effect in training, which reads long texts in windows with `stride`";
            return Err(TaskError::setting("long", problem));
        }
        (self.learn)(reading, train, start, tokenizer, notes)
    }

    /// The task of a fine-tuned model. `dir` is the model folder.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model of another kind; those of [`Task::from_model`].
    pub fn open(
        &self,
        reading: &Reading,
        config: &Config,
        head: TaskHead,
        dir: &Path,
    ) -> Result<Box<dyn AnyTask>, TaskError> {
        self.accepts(config, head).map_err(|mismatch| self.mismatch_error(mismatch, head, dir))?;
        (self.open)(reading, config, head)
    }

    /// The error about a model that is not of this kind.
    pub(super) fn mismatch_error(&self, mismatch: Mismatch, head: TaskHead, dir: &Path) -> TaskError {
        let problem = match mismatch {
            Mismatch::Head => format!(
                "expected a model fine-tuned to {1}, found one whose head is {0}; omit the kind of task, or give the model's",
                Heads::of(head),
                self.name()
            ),
            Mismatch::Outputs(problem) => problem,
        };
        TaskError::Folder { path: dir.to_owned(), problem }
    }
}

fn learn<T: Task>(
    reading: &Reading,
    train: &[PathBuf],
    start: &Config,
    tokenizer: &Tokenizer,
    notes: &mut Notes,
) -> Result<TaskAndRows, TaskError> {
    let (task, rows) = T::from_training_files(reading, train, start, tokenizer, notes)?;
    let rows = reading.usable(rows, notes)?;
    Ok((Box::new(task.clone()), Box::new(Rows::new(task, rows))))
}

fn open<T: Task>(reading: &Reading, config: &Config, head: TaskHead) -> Result<Box<dyn AnyTask>, TaskError> {
    Ok(Box::new(T::from_model(reading, config, head)?))
}
