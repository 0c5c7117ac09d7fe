//! The seam between tasks and everything else: what a row, an example, a prediction and a score are.

use std::path::PathBuf;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::TaskError;
use crate::datasets::labels::{placeholder, same_labels};
use crate::datasets::{LabelsNeeded, listed};
use crate::example::Example;
use crate::input::{Input, Object};
use crate::reading::{Notes, Reading};

/// A row of a task's data as the network sees it.
#[derive(Debug, Clone)]
pub struct Encoded<N> {
    /// One, or several: the windows of a long paragraph or sentence.
    pub examples: Vec<Example>,
    /// Tokens that did not fit and were cut off.
    pub cut: usize,
    /// What a prediction needs beside the logits.
    pub notes: N,
}

/// The rows of files in their order, those that cannot be used as errors in their places.
pub type FileRows<R> = Vec<Result<R, TaskError>>;

/// A kind of task with its labels and settings.
pub trait Task: Clone + Send + Sync + 'static {
    /// A row of its data: a text, a sentence of words, a question.
    type Row: Clone + Send + Sync + 'static;
    /// What a prediction needs beside the logits: where pieces lie in the text.
    type Notes: Send + Sync;
    /// What is predicted of a row.
    type Prediction: Serialize + Send + Sync;

    /// The task that these files are to teach, starting from a model of this configuration, and their rows. A row that cannot be used
    /// is an error in its place.
    ///
    /// # Errors
    /// Files that cannot be read, settings that do not fit.
    fn learned_from(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Self, FileRows<Self::Row>), TaskError>;

    /// The task of a fine-tuned model whose head and configuration its kind [accepts](crate::kinds::Kind::accepts).
    ///
    /// # Errors
    /// Settings that do not fit.
    fn of_model(reading: &Reading, config: &Config, head: TaskHead) -> Result<Self, TaskError>;

    /// The settings that a fine-tuned model remembers for this kind alone.
    fn own_settings(&self, _: &Reading) -> Object {
        Object::new()
    }

    /// The rows of some files. A row that cannot be used, for example because the task does not know its label, is an error in its
    /// place.
    ///
    /// # Errors
    /// Files that cannot be read.
    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Self::Row>, TaskError>;

    /// What a reader of predictions needs of a row: its text, or what tells it from others, and what is right as `gold`; null if that is
    /// not known.
    fn shown(&self, row: &Self::Row) -> Object;

    /// A row without what is right.
    ///
    /// # Errors
    /// An input that lacks something; the message says what.
    fn row(&self, reading: &Reading, input: Input<'_>, tokenizer: &Tokenizer) -> Result<Self::Row, TaskError>;

    /// The network's head.
    fn head(&self) -> TaskHead;

    /// Writes what readers of the model need to know into its configuration: the labels' names.
    fn describe(&self, config: &mut Config);

    /// How the head starts when the model to start from has a head of the same class. `is_known`: whether the labels are in the order
    /// of a known task, which labels without names follow.
    fn head_start(&self, _start: &Config, _is_known: bool) -> HeadStart {
        HeadStart::Kept { rows: None, what: String::new() }
    }

    /// What rows say is right, for people: which labels there are, how many of each, the tagging scheme. A line each.
    fn summary(&self, _rows: &[&Self::Row]) -> Vec<String> {
        Vec::new()
    }

    /// A row as examples, with its targets where it has them.
    ///
    /// # Errors
    /// A row that cannot be one: an empty question, words that do not fit.
    fn encode(&self, row: &Self::Row, tokenizer: &Tokenizer) -> Result<Encoded<Self::Notes>, TaskError>;

    /// What the logits of a row's examples say.
    ///
    /// # Errors
    /// Logits that are not numbers.
    fn predict(
        &self,
        row: &Self::Row,
        encoded: &Encoded<Self::Notes>,
        logits: &[Vec<f32>],
    ) -> Result<Self::Prediction, TaskError>;

    /// The scores of predictions whose rows say what is right.
    fn scores(&self, rows: &[&Self::Row], predictions: &[&Self::Prediction]) -> Scores;
}

/// How the head of a new model starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadStart {
    /// As the checkpoint's head.
    Kept {
        /// Which of the checkpoint's outputs each output is, if their order changes.
        rows: Option<Vec<usize>>,
        /// What a user is to know of it, as the end of a sentence with the mark that begins it; may be empty.
        what: String,
    },
    /// Drawn at random.
    New {
        /// Why, as the end of a sentence.
        why: String,
    },
}

impl HeadStart {
    /// How a head with these labels starts from a checkpoint of the same class: its outputs follow the names of the labels. Other labels
    /// than the checkpoint's have a new head. `is_known`: whether labels without names are in the order of these.
    pub fn of_labels(labels: &[String], start: &Config, is_known: bool) -> HeadStart {
        let placeholders = || (0..labels.len()).map(|id| format!("LABEL_{id}")).collect();
        let before = start.labels().unwrap_or_else(placeholders);
        let shown = |labels: &[String]| listed(labels.iter().map(String::as_str));
        if let Some(rows) = same_labels(&before, labels) {
            let is_same = rows.iter().enumerate().all(|(place, row)| place == *row);
            let what = if is_same { "" } else { ", its outputs put in the order of the labels" };
            return HeadStart::Kept { rows: (!is_same).then_some(rows), what: what.to_owned() };
        }
        if is_known && before.len() == labels.len() && before.iter().all(|name| placeholder(name).is_some()) {
            let what = format!("; it is assumed that its outputs, which have no names, are {}", shown(labels));
            return HeadStart::Kept { rows: None, what };
        }
        HeadStart::New { why: format!("its labels are {}", shown(&before)) }
    }
}

/// Scores of a set of predictions.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Scores {
    /// Rows that were scored.
    pub rows: usize,
    /// The scores by name, in the order in which they are shown; the first decides which model is best. Shares are 0 to 1.
    pub values: Vec<(String, f64)>,
    /// Everything else: a confusion matrix, scores by type.
    pub details: Map<String, Value>,
    /// The one answer that was given to every row, if there was one: a model that has collapsed.
    pub collapsed: Option<String>,
}

impl Scores {
    /// The score that decides which model is best; higher is better.
    pub fn main(&self) -> f64 {
        self.values.first().map_or(f64::NAN, |(_, value)| *value)
    }

    /// The name of that score.
    pub fn main_name(&self) -> &str {
        self.values.first().map_or("score", |(name, _)| name)
    }

    /// The score of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// As one JSON object: the scores by name, then the details.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("rows".to_owned(), self.rows.into());
        for (name, value) in &self.values {
            object.insert(name.clone(), (*value).into());
        }
        object.extend(self.details.clone());
        if let Some(answer) = &self.collapsed {
            object.insert("collapsed".to_owned(), answer.as_str().into());
        }
        Value::Object(object)
    }
}
