//! A kind of task: its description, which models are of it, and its tasks.

use std::path::{Path, PathBuf};

use cloze_model::{Config, Heads, TaskHead};
use cloze_text::Tokenizer;

use super::description::Description;
use crate::TaskError;
use crate::any_task::{AnyRows, AnyTask, Rows};
use crate::reading::{Notes, Reading};
use crate::task::Task;

/// A task to learn, and the rows that teach it.
pub type Learned = (Box<dyn AnyTask>, Box<dyn AnyRows>);

/// A kind of task. [`KINDS`](crate::kinds::KINDS) lists all of them.
#[derive(Debug)]
pub struct Kind {
    /// What it is to those who offer it.
    pub description: Description,
    accepts: fn(&Config, TaskHead) -> Result<(), Misfit>,
    learn: Learn,
    open: Open,
}

type Learn = fn(&Reading, &[PathBuf], &Config, &Tokenizer, &mut Notes) -> Result<Learned, TaskError>;
type Open = fn(&Reading, &Config, TaskHead) -> Result<Box<dyn AnyTask>, TaskError>;

/// Why a model is not of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// Its head is another one.
    Head,
    /// Its head looks alike, but its configuration says that the logits mean something else.
    Meaning(String),
}

impl PartialEq for Kind {
    /// Kinds are told apart by their names.
    fn eq(&self, other: &Kind) -> bool {
        self.name() == other.name()
    }
}

impl Kind {
    /// A kind whose tasks are `T`; `accepts` says which models are of it.
    pub const fn of<T: Task>(description: Description, accepts: fn(&Config, TaskHead) -> Result<(), Misfit>) -> Kind {
        Kind { description, accepts, learn: learn::<T>, open: open::<T> }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.description.name
    }

    /// Whether a model with this head and configuration is of this kind.
    ///
    /// # Errors
    /// Why it is not.
    pub fn accepts(&self, config: &Config, head: TaskHead) -> Result<(), Misfit> {
        (self.accepts)(config, head)
    }

    /// The task that these files are to teach, starting from a model of this configuration, and their rows.
    ///
    /// # Errors
    /// Those of [`Task::learned_from`].
    pub fn learn(
        &self,
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Learned, TaskError> {
        (self.learn)(reading, train, start, tokenizer, notes)
    }

    /// The task of a fine-tuned model; `dir` is its folder.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model of another kind; those of [`Task::of_model`].
    pub fn open(
        &self,
        reading: &Reading,
        config: &Config,
        head: TaskHead,
        dir: &Path,
    ) -> Result<Box<dyn AnyTask>, TaskError> {
        self.accepts(config, head).map_err(|misfit| self.refusal(misfit, head, dir))?;
        (self.open)(reading, config, head)
    }

    /// The error about a model that is not of this kind.
    pub(super) fn refusal(&self, misfit: Misfit, head: TaskHead, dir: &Path) -> TaskError {
        let problem = match misfit {
            Misfit::Head => format!(
                "its head is {}: expected a model fine-tuned to {}; leave the kind of task out, or name its own",
                Heads::of(head),
                self.name()
            ),
            Misfit::Meaning(problem) => problem,
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
) -> Result<Learned, TaskError> {
    let (task, rows) = T::learned_from(reading, train, start, tokenizer, notes)?;
    let rows = reading.usable(rows, notes)?;
    Ok((Box::new(task.clone()), Box::new(Rows::new(task, rows))))
}

fn open<T: Task>(reading: &Reading, config: &Config, head: TaskHead) -> Result<Box<dyn AnyTask>, TaskError> {
    Ok(Box::new(T::of_model(reading, config, head)?))
}
