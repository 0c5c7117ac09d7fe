//! Training examples: sequences of token ids and their targets.

use cloze_engine::ops::{self, ClassLabels, LossSum};
use cloze_engine::{Pass, Var};
use cloze_text::Sequence;

/// PyTorch's `ignore_index`: the target is not known and does not contribute to the loss.
pub const IGNORE_INDEX: i32 = -100;

/// The unit of training: sequences that are scored together, and their target.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// One sequence; or the windows of a long text, whose logits are averaged; or the choices; or the documents of a
    /// query, if the target is a position among them.
    pub sequences: Vec<Sequence>,
    /// The positions of the tokens whose logits are computed, ascending: the first piece of each word. Only tagging
    /// heads use them, with one sequence per example.
    pub tokens: Vec<u32>,
    /// The target.
    pub target: Target,
}

impl Example {
    /// An example for a head that does not need token positions.
    pub fn new(sequences: Vec<Sequence>, target: Target) -> Example {
        Example { sequences, tokens: Vec::new(), target }
    }

    /// The number of tokens of all sequences.
    pub fn length(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.ids.len()).sum()
    }
}

/// What the logits are compared with: the target of one of the engine's losses.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Cross-entropy over the columns: the class of each row of logits; [`IGNORE_INDEX`] if it is not known.
    Classes(Vec<i32>),
    /// Squared error: a number for each logit; NaN if it is not known.
    Values(Vec<f32>),
    /// Binary cross-entropy of each logit: 1 or 0; NaN if it is not known.
    Binary(Vec<f32>),
    /// Cross-entropy over the rows of an example: for each column of logits the correct row, counted from the example's
    /// first; [`IGNORE_INDEX`] if it is not known.
    Positions(Vec<i32>),
}

impl Target {
    /// The target of an example with one class, if known.
    pub fn class(class: Option<usize>) -> Target {
        Target::Classes(vec![known(class)])
    }

    /// The target of an example with one number, if known.
    pub fn value(value: Option<f32>) -> Target {
        Target::Values(vec![value.unwrap_or(f32::NAN)])
    }

    /// The target of an example whose correct row is `rows[c]` in column c, if known.
    pub fn positions<const COLUMNS: usize>(rows: Option<[usize; COLUMNS]>) -> Target {
        Target::Positions(match rows {
            Some(rows) => rows.map(|row| row as i32).to_vec(),
            None => vec![IGNORE_INDEX; COLUMNS],
        })
    }

    /// The number of known targets.
    pub fn known_count(&self) -> usize {
        match self {
            Target::Classes(labels) | Target::Positions(labels) => {
                labels.iter().filter(|label| **label != IGNORE_INDEX).count()
            }
            Target::Values(values) | Target::Binary(values) => values.iter().filter(|value| !value.is_nan()).count(),
        }
    }

    /// A target of the same loss that is not known.
    pub(crate) fn unknown(&self) -> Target {
        match self {
            Target::Classes(labels) => Target::Classes(vec![IGNORE_INDEX; labels.len()]),
            Target::Values(values) => Target::Values(vec![f32::NAN; values.len()]),
            Target::Binary(labels) => Target::Binary(vec![f32::NAN; labels.len()]),
            Target::Positions(rows) => Target::Positions(vec![IGNORE_INDEX; rows.len()]),
        }
    }

    /// The summed loss of these logits; its gradient is multiplied by `scale`. `rows` has the first row of each example's
    /// logits, then their number, for [`Positions`](Target::Positions); `classes` are weights of the classes.
    pub(crate) fn loss(
        &self,
        pass: &mut Pass<'_>,
        logits: &Var,
        rows: &[i32],
        classes: Option<&[f32]>,
        scale: f32,
    ) -> LossSum {
        let device = pass.device().clone();
        match self {
            Target::Classes(labels) => {
                let labels = &device.tensor_i32(labels, &[labels.len()]);
                ops::cross_entropy(pass, logits, ClassLabels { labels, weights: classes }, scale)
            }
            Target::Values(values) => {
                let targets = device.tensor_f32(values, logits.value().shape());
                ops::mse_loss(pass, logits, &targets, scale)
            }
            Target::Binary(labels) => {
                let targets = device.tensor_f32(labels, logits.value().shape());
                ops::binary_cross_entropy(pass, logits, &targets, scale)
            }
            Target::Positions(labels) => {
                let ends = device.tensor_i32(rows, &[rows.len()]);
                let examples = rows.len() - 1;
                let labels = device.tensor_i32(labels, &[examples, labels.len() / examples.max(1)]);
                ops::segment_cross_entropy(pass, logits, &ends, &labels, scale)
            }
        }
    }

    /// Appends the target of another example. Panics if it belongs to a different loss.
    pub fn append(&mut self, other: &Target) {
        match (self, other) {
            (Target::Classes(all), Target::Classes(more)) | (Target::Positions(all), Target::Positions(more)) => {
                all.extend(more);
            }
            (Target::Values(all), Target::Values(more)) | (Target::Binary(all), Target::Binary(more)) => {
                all.extend(more)
            }
            (_, other) => panic!("a batch of one loss, found {other:?} among others"),
        }
    }
}

fn known(class: Option<usize>) -> i32 {
    class.map_or(IGNORE_INDEX, |class| class as i32)
}
