//! SQuAD's official metrics: exact match and F1 of answers.
//!
//! Reference: the official `evaluate-v1.1.py` and `evaluate-v2.0.py` of Rajpurkar et al. They differ not only in
//! unanswerable questions: if prediction and gold are both empty after normalization ("the" and "a"), v1.1 gives an F1
//! of 0 and v2.0 gives 1; v2.0 ignores gold answers that are empty after normalization.
//!
//! The ids of the questions must be distinct.

mod normalise;
mod odds;
mod scored;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;

pub use self::normalise::normalise;
use self::normalise::words;
use self::odds::best_thresholds;
pub use self::odds::{BestThresholds, NullOdds};
pub use self::scored::AnswerScore;
use self::scored::Scored;

/// A question and its gold answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question<'a> {
    /// The id, which identifies its prediction.
    pub id: &'a str,
    /// All gold answers, as in the file; empty for an unanswerable question.
    pub answers: Vec<&'a str>,
}

/// Means over questions, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SquadScores {
    /// Exact match: the percentage of predictions that equal a gold answer.
    pub exact: f64,
    /// Mean F1, in percent.
    pub f1: f64,
    /// The number of questions.
    pub total: usize,
}

/// The scores of v1.1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SquadV1 {
    /// The scores of all questions.
    pub all: SquadScores,
    /// The ids of the questions without a prediction, in order. They count as wrong.
    pub missing: Vec<String>,
}

/// The scores of v2.0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SquadV2 {
    /// The scores of all questions.
    pub all: SquadScores,
    /// The scores of the questions that have an answer, if there are any: `HasAns` of the script.
    pub has_answer: Option<SquadScores>,
    /// The scores of the questions that have no answer, if there are any: `NoAns` of the script.
    pub no_answer: Option<SquadScores>,
    /// The best thresholds, if odds were given.
    pub best: Option<BestThresholds>,
    /// The ids of the questions without a prediction, in order. They count as wrong.
    pub missing: Vec<String>,
    /// The ids of the questions that have a prediction but no odds, although odds were given, in order. They keep their
    /// prediction at the given threshold; the search for the best threshold treats them as not answered.
    pub without_odds: Vec<String>,
}

/// Scores one prediction as v1.1 does. 0 if there is no gold answer.
pub fn score_v1(prediction: &str, answers: &[&str]) -> AnswerScore {
    let prediction = normalise(prediction);
    best(answers.iter().map(|answer| compare(&prediction, &normalise(answer), 0.0)))
}

/// Scores one prediction as v2.0 does. If there are no gold answers, or all are empty after normalization, only a
/// prediction that is empty after normalization is correct.
pub fn score_v2(prediction: &str, answers: &[&str]) -> AnswerScore {
    let prediction = normalise(prediction);
    let mut answers: Vec<String> = answers.iter().map(|answer| normalise(answer)).filter(|a| !a.is_empty()).collect();
    if answers.is_empty() {
        answers.push(String::new());
    }
    best(answers.iter().map(|answer| compare(&prediction, answer, 1.0)))
}

/// The maximum of each of the two scores, possibly of different answers.
fn best(scores: impl Iterator<Item = AnswerScore>) -> AnswerScore {
    scores.fold(AnswerScore::WRONG, |a, b| AnswerScore { exact: a.exact.max(b.exact), f1: a.f1.max(b.f1) })
}

/// Compares two normalized texts. `both_empty` is the F1 of two empty texts, in which the two scripts differ.
fn compare(prediction: &str, answer: &str, both_empty: f64) -> AnswerScore {
    let exact = if prediction == answer { 1.0 } else { 0.0 };
    if prediction.is_empty() && answer.is_empty() {
        return AnswerScore { exact, f1: both_empty };
    }
    let mut left = HashMap::<&str, usize>::new();
    words(answer).for_each(|word| *left.entry(word).or_default() += 1);
    let mut shared = 0;
    for word in words(prediction) {
        if let Some(n) = left.get_mut(word).filter(|n| **n > 0) {
            *n -= 1;
            shared += 1;
        }
    }
    if shared == 0 {
        return AnswerScore { exact, f1: 0.0 };
    }
    let precision = f64::from(shared) / words(prediction).count() as f64;
    let recall = f64::from(shared) / words(answer).count() as f64;
    AnswerScore { exact, f1: 2.0 * precision * recall / (precision + recall) }
}

/// Scores predictions as v1.1 does; none if there are no questions. Predictions for other questions are ignored.
pub fn evaluate_v1<'a>(
    questions: impl IntoIterator<Item = Question<'a>>,
    predictions: &HashMap<String, String>,
) -> Option<SquadV1> {
    let mut missing = Vec::new();
    let mut scores = Vec::new();
    for Question { id, answers } in questions {
        scores.push(match predictions.get(id) {
            Some(prediction) => score_v1(prediction, &answers),
            None => {
                missing.push(id.to_string());
                AnswerScore::WRONG
            }
        });
    }
    Some(SquadV1 { all: mean(scores)?, missing })
}

/// Scores predictions as v2.0 does; none if there are no questions. An empty prediction means that there is no answer.
/// Predictions and odds for other questions are ignored.
///
/// With odds, a question whose odds exceed the threshold counts as not answered, and the best thresholds are computed
/// as in `find_all_best_thresh`. For this the predictions must be the best answers, before any threshold is applied.
///
/// The official script fails with a `KeyError` if a prediction is missing. Here such questions count as wrong at every
/// threshold, as in v1.1.
pub fn evaluate_v2<'a>(
    questions: impl IntoIterator<Item = Question<'a>>,
    predictions: &HashMap<String, String>,
    null_odds: Option<NullOdds<'_>>,
) -> Option<SquadV2> {
    let (mut missing, mut without_odds) = (Vec::new(), Vec::new());
    let mut scored = Vec::new();
    for Question { id, answers } in questions {
        let prediction = predictions.get(id);
        let odds = null_odds.as_ref().and_then(|given| given.odds.get(id).copied());
        if prediction.is_none() {
            missing.push(id.to_string());
        } else if null_odds.is_some() && odds.is_none() {
            without_odds.push(id.to_string());
        }
        scored.push(Scored {
            answerable: !answers.is_empty(),
            answered: prediction.is_some_and(|p| !p.is_empty()),
            raw: prediction.map(|p| score_v2(p, &answers)),
            odds,
        });
    }
    let threshold = null_odds.as_ref().map_or(f64::INFINITY, |given| given.threshold);
    let of = |kind: fn(&Scored) -> bool| mean(scored.iter().filter(|s| kind(s)).map(|s| s.at(threshold)));
    Some(SquadV2 {
        all: of(|_| true)?,
        has_answer: of(|s| s.answerable),
        no_answer: of(|s| !s.answerable),
        best: null_odds.is_some().then(|| best_thresholds(&scored)),
        missing,
        without_odds,
    })
}

/// The means in percent; none if there are no scores.
fn mean(scores: impl IntoIterator<Item = AnswerScore>) -> Option<SquadScores> {
    let (mut exact, mut f1, mut total) = (0.0, 0.0, 0);
    for score in scores {
        exact += score.exact;
        f1 += score.f1;
        total += 1;
    }
    let percent = |sum: f64| 100.0 * sum / total as f64;
    (total > 0).then(|| SquadScores { exact: percent(exact), f1: percent(f1), total })
}
