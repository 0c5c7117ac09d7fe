//! Descriptions of the kinds of tasks, for user interfaces: names, options and help texts.

use serde_json::Value;

use crate::TaskError;
use crate::task_settings::TaskSettings;

/// The description of a kind of task, as a command line, a server or a language binding needs it.
#[derive(Debug)]
pub struct Description {
    /// The name.
    pub name: &'static str,
    /// What a model of this kind predicts, as a noun phrase.
    pub about: &'static str,
    /// The scores, in one line.
    pub scores: &'static str,
    /// The formats of rows to predict.
    pub input: &'static str,
    /// The prediction for a row.
    pub output: &'static str,
    /// The default maximum number of tokens of a sequence.
    pub max_len: usize,
    /// The metrics that can select the best model, the default first. Empty if the metric cannot be chosen.
    pub metrics: &'static [&'static str],
    /// The options that apply to this kind, among those that apply to several but not all kinds.
    pub options: &'static [&'static str],
    /// The options that only this kind has.
    pub own_options: &'static [KindOption],
    /// Checks the settings for values that this kind does not support.
    pub check: fn(&TaskSettings) -> Result<(), TaskError>,
    /// The type of rows in files, which determines the supported formats.
    pub rows: Rows,
    /// Options that have no effect in a command, each with the reason.
    pub rejected_options: RejectedOptions,
    /// Examples for help pages.
    pub examples: Examples,
}

/// The type of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Texts or pairs of texts: lines, tables, JSON.
    Texts,
    /// Sentences of words: tagged words in lines, or texts.
    Words,
    /// Questions about a text: SQuAD's JSON, one JSON object per line.
    Questions,
    /// Choices between texts: tables, JSON.
    Choices,
}

/// Options that a command rejects for tasks of this kind, each with the reason.
#[derive(Debug)]
pub struct RejectedOptions {
    /// In fine-tuning and sweeps.
    pub finetune: &'static [(&'static str, &'static str)],
    /// In prediction.
    pub predict: &'static [(&'static str, &'static str)],
    /// In evaluation.
    pub evaluate: &'static [(&'static str, &'static str)],
}

impl RejectedOptions {
    /// No options are rejected.
    pub const NONE: RejectedOptions = RejectedOptions { finetune: &[], predict: &[], evaluate: &[] };
}

/// Example command lines for the help pages of `cloze`.
#[derive(Debug)]
pub struct Examples {
    /// Of fine-tuning.
    pub finetune: &'static [&'static str],
    /// Of sweeps.
    pub sweep: &'static [&'static str],
    /// Of prediction.
    pub predict: &'static [&'static str],
    /// Of evaluation.
    pub evaluate: &'static [&'static str],
}

/// An option that only one kind of task has.
#[derive(Debug)]
pub struct KindOption {
    /// The name, with underscores.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
    /// Whether it is shown only in the long help.
    pub rare: bool,
    /// The values.
    pub values: Values,
}

/// The values of a [`KindOption`].
#[derive(Debug)]
pub enum Values {
    /// A flag: sets the setting `key` to `to`. If both it and `against` are given, the last one takes effect.
    Switch {
        /// The name of the setting.
        key: &'static str,
        /// The value that the flag sets.
        to: bool,
        /// The name of the opposite flag.
        against: &'static str,
    },
    /// A text that is parsed.
    Parsed {
        /// The placeholder in the help text.
        placeholder: &'static str,
        /// The parser; its error says what was expected.
        parse: fn(&str) -> Result<Value, String>,
        /// The value if the option is given without one; none if a value is required.
        missing: Option<&'static str>,
    },
    /// One of several names, each with a help text.
    OneOf {
        /// The placeholder in the help text.
        placeholder: &'static str,
        /// The names.
        names: &'static [(&'static str, &'static str)],
    },
}

impl Description {
    /// Whether an option that does not apply to all kinds applies to this one.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.contains(&name) || self.own_options.iter().any(|option| option.name == name)
    }

    /// Checks that a task of this kind can have these settings.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for the first setting that is not valid.
    pub fn check(&self, given: &TaskSettings) -> Result<(), TaskError> {
        if let Some(metric) = given.metric.as_deref().filter(|metric| !self.metrics.contains(metric)) {
            let problem = match self.metrics {
                [] => format!("the metric of a task to {} cannot be chosen; found {metric}", self.name),
                names => format!("expected {1} for a task to {0}, found {metric}", self.name, alternatives(names)),
            };
            return Err(TaskError::setting("metric", problem));
        }
        (self.check)(given)
    }
}

/// Joins names for a sentence: "a, b or c".
pub fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// Parses an integer above 0.
pub(super) fn positive(text: &str) -> Result<Value, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number.into()),
        Err(_) => Err("must be an integer of at least 1".to_owned()),
    }
}
