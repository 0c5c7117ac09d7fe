//! The events of a fine-tuning run, and its outcome.

use std::path::PathBuf;

use cloze_model::LoadReport;
use cloze_train::train_loop::{Event, Score};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::task::Scores;

/// An event of a fine-tuning run.
pub type FineTuneEvent = Event<Start, Estimate, Figures, Evaluation>;

/// The start of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Start {
    /// Steps completed before; above 0 if the run is resumed.
    pub step: u64,
    /// The total number of steps.
    pub steps: u64,
    /// The number of training examples.
    pub examples: usize,
    /// The number of tokens of all training examples.
    pub tokens: usize,
    /// The number of training and dev rows that were truncated.
    pub cut_rows: usize,
    /// The tensors of the heads that were randomly initialized, and the tensors of the checkpoint that were not used.
    pub load_report: LoadReport,
    /// Notes for the user: which heads are new, and how the task head was initialized.
    pub notes: Vec<String>,
    /// A description of the device and of the data type of the activations, with the reason for this type.
    pub machine: String,
}

/// The estimated duration of a run, or of the rest of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// Remaining steps.
    pub steps: u64,
    /// Mean seconds per step.
    pub step_seconds: f64,
    /// Remaining evaluations.
    pub evaluations: u64,
    /// Remaining seconds in total, including evaluations.
    pub seconds: f64,
}

/// Means over the steps since the last line of the log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Completed steps.
    pub step: u64,
    /// Completed epochs; may be fractional.
    pub epoch: f64,
    /// Mean loss.
    pub loss: f64,
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global norm of the gradient of the last step, before clipping.
    pub grad_norm: f64,
    /// Seconds of training without evaluation, summed over all sessions of the run.
    pub train_seconds: f64,
}

/// The result of an evaluation on the dev rows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evaluation {
    /// Completed epochs; may be fractional.
    pub epoch: f64,
    /// Mean loss on the dev rows.
    pub loss: f64,
    /// The scores.
    pub scores: Scores,
    /// The duration in seconds.
    pub seconds: f64,
}

/// The outcome of a fine-tuning run. Of a finished run that is resumed, only rank 0 of a job knows the scores.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether the run is complete. Otherwise it was interrupted and can be resumed.
    pub finished: bool,
    /// The folder of the best model; none if the run was interrupted before the first evaluation.
    pub model: Option<PathBuf>,
    /// The best evaluation; none without dev rows.
    pub best: Option<Best>,
    /// Seconds of training without evaluation, summed over all sessions of the run.
    pub train_seconds: f64,
    /// Completed steps.
    pub steps: u64,
}

/// The best evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Best {
    /// The step after which it was evaluated.
    pub step: u64,
    /// The epochs completed at that step.
    pub epoch: f64,
    /// The name of the main score.
    pub metric: String,
    /// The main score; NaN if it is undefined, such as the correlation with a constant.
    #[serde(deserialize_with = "number_or_nan")]
    pub score: f64,
    /// The mean loss on the dev rows, which selects the best model if the score is NaN. Earlier versions did not store
    /// it.
    #[serde(default = "not_a_number", deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// All scores, as a JSON object.
    pub scores: Value,
    /// The prediction that was made for every row, if the model had collapsed.
    pub collapsed: Option<String>,
}

impl Best {
    /// The score by which evaluations are compared.
    pub fn decides(&self) -> Score {
        Score { value: self.score, loss: self.loss }
    }
}

/// The default of a missing field. JSON has no NaN, which is stored as null.
fn not_a_number() -> f64 {
    f64::NAN
}

fn number_or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}
