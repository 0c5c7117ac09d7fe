//! The interface that each kind of task implements: its rows, examples, predictions and scores.

use std::path::PathBuf;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::TaskError;
use crate::datasets::labels::{match_labels, placeholder_number};
use crate::datasets::{LabelsNeeded, quoted_list};
use crate::example::Example;
use crate::input::{Input, Object};
use crate::long::TextWindows;
use crate::reading::{Notes, Reading};

/// A row of a task's data, encoded for the network.
#[derive(Debug, Clone)]
pub struct Encoded<A> {
    /// One example, or several: the windows of a long paragraph, the parts of a long sentence.
    pub examples: Vec<Example>,
    /// The number of tokens that did not fit and were cut off.
    pub cut: usize,
    /// The windows of a long text, if each is one of the examples and [`Task::predict`] is to get their pooled logits.
    pub windows: Option<TextWindows>,
    /// What [`Task::predict`] needs in addition to the logits.
    pub aux: A,
}

/// The rows of files, in order. A row that cannot be used is an error in its position.
pub type FileRows<R> = Vec<Result<R, TaskError>>;

/// A kind of task with its labels and settings.
pub trait Task: Clone + Send + Sync + 'static {
    /// A row of the task's data: a text, a sentence of words, a question.
    type Row: Clone + Send + Sync + 'static;
    /// What [`predict`](Self::predict) needs in addition to the logits, such as the positions of the tokens in the
    /// text.
    type Aux: Send + Sync;
    /// The prediction for a row.
    type Prediction: Serialize + Send + Sync;

    /// The task that training files define, and the rows of these files. `start` is the configuration of the model to
    /// fine-tune. A row that cannot be used is an error in its position.
    ///
    /// # Errors
    /// Files that cannot be read; settings that do not fit the data or the model.
    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Self, FileRows<Self::Row>), TaskError>;

    /// The task of a fine-tuned model whose head and configuration its kind [accepts](crate::kinds::Kind::accepts).
    ///
    /// # Errors
    /// Settings that do not fit the model.
    fn from_model(reading: &Reading, config: &Config, head: TaskHead) -> Result<Self, TaskError>;

    /// The settings specific to this kind that are stored in a fine-tuned model.
    fn own_settings(&self, _: &Reading) -> Object {
        Object::new()
    }

    /// The rows of files. A row that cannot be used, for example because its label is unknown, is an error in its
    /// position.
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

    /// What identifies the row in a file of predictions: its text or id, and the gold label as `gold`, null if it is
    /// not known.
    fn row_json(&self, row: &Self::Row) -> Object;

    /// The row of an input to predict, without a gold label.
    ///
    /// # Errors
    /// An input that lacks a key; the message names it.
    fn row(&self, reading: &Reading, input: Input<'_>, tokenizer: &Tokenizer) -> Result<Self::Row, TaskError>;

    /// The network's head.
    fn head(&self) -> TaskHead;

    /// Stores the names of the labels in the model's configuration.
    fn describe(&self, config: &mut Config);

    /// How the head is initialized if the model to fine-tune has a head of the same class. `has_preset`: whether the
    /// task has a data set preset; labels without names are then assumed to be in the preset's order.
    fn head_init(&self, _start: &Config, _has_preset: bool) -> HeadInit {
        HeadInit::Copied { rows: None, note: String::new() }
    }

    /// A summary of the gold labels for users, as lines: the labels, their frequencies, the tagging scheme.
    fn summary(&self, _rows: &[&Self::Row]) -> Vec<String> {
        Vec::new()
    }

    /// The examples of a row, with targets if the gold label is known.
    ///
    /// # Errors
    /// A row that cannot be encoded: an empty question, a maximum length that leaves no room.
    fn encode(&self, row: &Self::Row, tokenizer: &Tokenizer) -> Result<Encoded<Self::Aux>, TaskError>;

    /// The prediction for a row, computed from the logits of its examples, or from the pooled logits of its windows.
    ///
    /// # Errors
    /// [`TaskError::Logits`] for logits that are not finite.
    fn predict(
        &self,
        row: &Self::Row,
        encoded: &Encoded<Self::Aux>,
        logits: &[Vec<f32>],
    ) -> Result<Self::Prediction, TaskError>;

    /// The scores of the predictions whose rows have a gold label.
    fn scores(&self, rows: &[&Self::Row], predictions: &[&Self::Prediction]) -> Scores;
}

/// How the task head of a new model is initialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadInit {
    /// Copied from the checkpoint.
    Copied {
        /// For each output, the index of the checkpoint's output that it is copied from; none if the order is the same.
        rows: Option<Vec<usize>>,
        /// A note for the user, as the end of a sentence with its leading punctuation mark; may be empty.
        note: String,
    },
    /// Initialized randomly.
    Random {
        /// The reason, as the end of a sentence.
        reason: String,
    },
}

impl HeadInit {
    /// How a head with these labels is initialized from a checkpoint of the same class. Outputs are matched by the
    /// names of the labels. If the names are not the checkpoint's, the head is new. `has_preset`: whether labels
    /// without names are assumed to be in this order.
    pub fn from_labels(labels: &[String], start: &Config, has_preset: bool) -> HeadInit {
        let placeholders = || (0..labels.len()).map(|id| format!("LABEL_{id}")).collect();
        let before = start.labels().unwrap_or_else(placeholders);
        let shown = |labels: &[String]| quoted_list(labels.iter().map(String::as_str));
        if let Some(rows) = match_labels(&before, labels) {
            let is_same = rows.iter().enumerate().all(|(place, row)| place == *row);
            let note = if is_same { "" } else { ", its outputs reordered to the order of the labels" };
            return HeadInit::Copied { rows: (!is_same).then_some(rows), note: note.to_owned() };
        }
        if has_preset && before.len() == labels.len() && before.iter().all(|name| placeholder_number(name).is_some()) {
            let note = format!("; its outputs have no names and are assumed to be {}", shown(labels));
            return HeadInit::Copied { rows: None, note };
        }
        HeadInit::Random { reason: format!("its labels are {}", shown(&before)) }
    }
}

/// Scores of a set of predictions.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Scores {
    /// The number of scored rows.
    pub rows: usize,
    /// The scores by name, in the order of display. The first one selects the best model. Ratios are from 0 to 1.
    pub values: Vec<(String, f64)>,
    /// Further results: a confusion matrix, scores by type.
    pub details: Map<String, Value>,
    /// The prediction that was made for every row although the gold labels differ: the model has collapsed. None
    /// otherwise.
    pub collapsed: Option<String>,
}

impl Scores {
    /// The score that selects the best model; higher is better.
    pub fn main(&self) -> f64 {
        self.values.first().map_or(f64::NAN, |(_, value)| *value)
    }

    /// The name of the main score.
    pub fn main_name(&self) -> &str {
        self.values.first().map_or("score", |(name, _)| name)
    }

    /// The score of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The scores as one JSON object: the scores by name, then the details.
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
