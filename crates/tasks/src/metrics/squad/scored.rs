//! The score of one answer, and the data of a question for the search for thresholds.

use serde::Serialize;

/// The scores of one prediction, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AnswerScore {
    /// Exact match: 1 if it equals a gold answer after normalization, else 0.
    pub exact: f64,
    /// The maximum over the gold answers of the F1 of common words.
    pub f1: f64,
}

impl AnswerScore {
    pub(super) const WRONG: AnswerScore = AnswerScore { exact: 0.0, f1: 0.0 };
    pub(super) const RIGHT: AnswerScore = AnswerScore { exact: 1.0, f1: 1.0 };
}

/// The data of a v2.0 question for scores and for the search for thresholds.
pub(super) struct Scored {
    /// Whether it has gold answers.
    pub(super) answerable: bool,
    /// Whether the prediction is an answer: not empty, before normalization.
    pub(super) answered: bool,
    /// The score of the prediction, before any threshold; none without a prediction.
    pub(super) raw: Option<AnswerScore>,
    /// The odds that it has no answer, if given.
    pub(super) odds: Option<f64>,
}

impl Scored {
    /// The score at a threshold: if the odds exceed it, the question counts as not answered.
    pub(super) fn at(&self, threshold: f64) -> AnswerScore {
        match (self.raw, self.odds) {
            (None, _) => AnswerScore::WRONG,
            (Some(_), Some(odds)) if odds > threshold => {
                if self.answerable {
                    AnswerScore::WRONG
                } else {
                    AnswerScore::RIGHT
                }
            }
            (Some(raw), _) => raw,
        }
    }
}
