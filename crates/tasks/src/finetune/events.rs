//! What happens in a fine-tuning, and how it ends.

use std::path::PathBuf;

use cloze_model::LoadReport;
use cloze_train::train_loop::{Event, Score};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::task::Scores;

/// What happens in a fine-tuning.
pub type FineTuneEvent = Event<Start, Estimate, Figures, Evaluation>;

/// What a run starts with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Start {
    /// Steps done before.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Training examples (windows count each).
    pub examples: usize,
    /// Tokens of all training examples.
    pub tokens: usize,
    /// Rows, of training and dev together, some of whose tokens were cut off to fit.
    pub cut_rows: usize,
    /// Tensors of the head that were drawn, tensors of the checkpoint that were left aside.
    pub adopted: LoadReport,
    /// Which heads are new, and how the task's head starts, in words.
    pub notes: Vec<String>,
    /// The device in words, with the type of activations and the reason for both.
    pub machine: String,
}

/// How long a fine-tuning takes, or the rest of one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// Steps to go.
    pub steps: u64,
    /// Seconds of a step, on average.
    pub step_seconds: f64,
    /// Evaluations to go.
    pub evaluations: u64,
    /// Seconds in all, evaluations among them.
    pub seconds: f64,
}

/// Means since the last logged line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: f64,
    /// Mean loss.
    pub loss: f64,
    /// Real tokens per second.
    pub tokens_per_s: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global norm of the last step's gradient before clipping.
    pub grad_norm: f64,
    /// Seconds of training, evaluation left out, over all sessions.
    pub train_seconds: f64,
}

/// How well the model does on the dev rows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evaluation {
    /// Epochs done.
    pub epoch: f64,
    /// Mean loss of the dev rows.
    pub loss: f64,
    /// Their scores.
    pub scores: Scores,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How a fine-tuning ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether it ran to its end; otherwise it was interrupted and can be resumed.
    pub finished: bool,
    /// The best model; none if interrupted before the first evaluation.
    pub model: Option<PathBuf>,
    /// The best scores; none without dev rows.
    pub best: Option<Best>,
    /// Seconds of training, evaluation left out, over all sessions.
    pub train_seconds: f64,
    /// Steps done.
    pub steps: u64,
}

/// The best evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Best {
    /// After this step.
    pub step: u64,
    /// Epochs done then.
    pub epoch: f64,
    /// The deciding score's name.
    pub metric: String,
    /// The deciding score; not a number for a correlation with a constant, for instance.
    #[serde(deserialize_with = "number_or_nan")]
    pub score: f64,
    /// The mean loss of the dev rows, which decides where the score is not a number. Earlier versions did not write it.
    #[serde(default = "not_a_number", deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// All scores as one JSON object.
    pub scores: Value,
    /// The one answer given to every row, if the model had collapsed.
    pub collapsed: Option<String>,
}

impl Best {
    /// What decides which evaluation is the best.
    pub fn decides(&self) -> Score {
        Score { value: self.score, loss: self.loss }
    }
}

/// JSON has no NaN: it is written as null.
fn not_a_number() -> f64 {
    f64::NAN
}

fn number_or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}
