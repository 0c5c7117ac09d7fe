//! The score of one answer, and a question with what thresholds need of it.

use serde::Serialize;

/// How well one prediction answers one question, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AnswerScore {
    /// 1 if it equals a gold answer, both normalised, else 0.
    pub exact: f64,
    /// The largest F1 of its words with those of a gold answer.
    pub f1: f64,
}

impl AnswerScore {
    pub(super) const WRONG: AnswerScore = AnswerScore { exact: 0.0, f1: 0.0 };
    pub(super) const RIGHT: AnswerScore = AnswerScore { exact: 1.0, f1: 1.0 };
}

/// A question of v2.0 with what the scores and the search for thresholds need of it.
pub(super) struct Scored {
    /// Whether it has gold answers.
    pub(super) answerable: bool,
    /// Whether the prediction is an answer: not the empty text, as it stands.
    pub(super) answered: bool,
    /// The score of the prediction, before any threshold; none without a prediction.
    pub(super) raw: Option<AnswerScore>,
    /// Its odds, if there are any.
    pub(super) odds: Option<f64>,
}

impl Scored {
    /// Its score when a question whose odds exceed the threshold is taken as not answered, whatever the prediction.
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
