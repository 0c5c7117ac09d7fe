//! What a kind of task is to those who offer it: its name, the options that concern it, texts for its help.

use serde_json::Value;

use crate::TaskError;
use crate::task_settings::TaskSettings;

/// A kind of task in data: what a command line, a server or a binding needs to offer it.
#[derive(Debug)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// What a model of this kind predicts, as the object of a sentence.
    pub about: &'static str,
    /// Its scores, in one line.
    pub scores: &'static str,
    /// What rows to predict look like.
    pub input: &'static str,
    /// What is predicted of a row.
    pub output: &'static str,
    /// Tokens of a sequence at most, by default.
    pub max_len: usize,
    /// The scores that may decide which model is best, the usual one first; none: the field's own score decides.
    pub metrics: &'static [&'static str],
    /// Of the options that concern some kinds of tasks alone, those that concern this one.
    pub options: &'static [&'static str],
    /// The settings that this kind has for itself.
    pub own_options: &'static [TaskOption],
    /// Refuses values that this kind cannot have.
    pub check: fn(&TaskSettings) -> Result<(), TaskError>,
    /// What the rows of its files are, which tells how a file may be written.
    pub rows: Rows,
    /// Options without effect in a command, each with the reason.
    pub refused: Refused,
    /// Examples for help pages.
    pub examples: Examples,
}

/// What rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Texts or pairs of texts: lines, tables, JSON.
    Texts,
    /// Sentences of words: tagged words in lines, or texts.
    Words,
    /// Questions about a text: SQuAD's JSON, objects a line.
    Questions,
    /// Choices between texts: tables, JSON.
    Choices,
}

/// Options that a command refuses where the task is of this kind, each with the reason.
#[derive(Debug)]
pub struct Refused {
    /// By `cloze finetune` and `cloze sweep`.
    pub finetune: &'static [(&'static str, &'static str)],
    /// By `cloze predict`.
    pub predict: &'static [(&'static str, &'static str)],
    /// By `cloze evaluate`.
    pub evaluate: &'static [(&'static str, &'static str)],
}

impl Refused {
    /// None.
    pub const NOTHING: Refused = Refused { finetune: &[], predict: &[], evaluate: &[] };
}

/// Command lines, those of each command.
#[derive(Debug)]
pub struct Examples {
    /// Of `cloze finetune`.
    pub finetune: &'static [&'static str],
    /// Of `cloze sweep`.
    pub sweep: &'static [&'static str],
    /// Of `cloze predict`.
    pub predict: &'static [&'static str],
    /// Of `cloze evaluate`.
    pub evaluate: &'static [&'static str],
}

/// A setting that one kind of task has for itself.
#[derive(Debug)]
pub struct TaskOption {
    /// Its name, with underscores.
    pub name: &'static str,
    /// What it is, for help.
    pub help: &'static str,
    /// Whether only the long help shows it.
    pub rare: bool,
    /// Its values.
    pub values: Values,
}

/// The values of a [`TaskOption`].
#[derive(Debug)]
pub enum Values {
    /// A switch: sets the setting `key` to `to`; the later of it and `against` counts.
    Switch {
        /// The setting.
        key: &'static str,
        /// Its value.
        to: bool,
        /// The switch for the contrary.
        against: &'static str,
    },
    /// A text that is read as a value.
    Parsed {
        /// What to show for it in help.
        placeholder: &'static str,
        /// Reads it; the error says what was expected.
        parse: fn(&str) -> Result<Value, String>,
        /// What the option means without a value, where it may stand alone.
        missing: Option<&'static str>,
    },
    /// One of some names, each with its help.
    OneOf {
        /// What to show for it in help.
        placeholder: &'static str,
        /// The names.
        names: &'static [(&'static str, &'static str)],
    },
}

impl Description {
    /// Whether an option that concerns some kinds of tasks alone concerns this one.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.contains(&name) || self.own_options.iter().any(|option| option.name == name)
    }

    /// Refuses settings that a task of this kind cannot have.
    ///
    /// # Errors
    /// [`TaskError::Setting`] naming the first.
    pub fn check(&self, given: &TaskSettings) -> Result<(), TaskError> {
        if let Some(metric) = given.metric.as_deref().filter(|metric| !self.metrics.contains(metric)) {
            let problem = match self.metrics {
                [] => format!("{metric}: a task to {} is judged by the field's own score", self.name),
                names => format!("{metric}: a task to {} is judged by {}", self.name, alternatives(names)),
            };
            return Err(TaskError::setting("metric", problem));
        }
        (self.check)(given)
    }
}

/// Names for a sentence: "a, b or c".
pub fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// A whole number above 0, as an option's value.
pub(super) fn positive(text: &str) -> Result<Value, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number.into()),
        Err(_) => Err("must be a whole number of at least 1".to_owned()),
    }
}
