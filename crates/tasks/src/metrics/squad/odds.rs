//! The threshold above which a question counts as unanswerable.

use std::collections::HashMap;

use serde::Serialize;

use super::scored::Scored;

/// The model's confidence that each question has no answer.
#[derive(Debug, Clone, Copy)]
pub struct NullOdds<'a> {
    /// The confidence by question id: any number that increases with it, such as BERT's difference of the scores of the
    /// null answer and the best other answer, or a probability.
    pub odds: &'a HashMap<String, f64>,
    /// Questions with larger odds count as not answered. The official script uses 1, which is suitable for
    /// probabilities; infinity does not change the predictions.
    pub threshold: f64,
}

/// The thresholds with the best scores, as in `find_all_best_thresh` of `evaluate-v2.0.py`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BestThresholds {
    /// The best exact match, in percent.
    pub exact: f64,
    /// Its threshold: questions with larger odds are not answered. 0 if it is best to answer no question, as in the
    /// official script.
    pub exact_threshold: f64,
    /// The best F1, in percent.
    pub f1: f64,
    /// Its threshold, with the same meaning.
    pub f1_threshold: f64,
}

/// Finds the best thresholds.
pub(super) fn best_thresholds(scored: &[Scored]) -> BestThresholds {
    let (exact, exact_threshold) = best_threshold(scored, |s| s.raw.map_or(0.0, |raw| raw.exact));
    let (f1, f1_threshold) = best_threshold(scored, |s| s.raw.map_or(0.0, |raw| raw.f1));
    BestThresholds { exact, exact_threshold, f1, f1_threshold }
}

/// Raises the threshold from question to question, starting with no answered questions, and returns the first best
/// score and its threshold.
///
/// Like the official script, this also considers the score between questions of equal odds, where no threshold can be;
/// then the order of the questions matters. The script uses the order of its file of odds; here it is the order of the
/// questions, in which such files are usually written.
fn best_threshold(scored: &[Scored], score: impl Fn(&Scored) -> f64) -> (f64, f64) {
    // Adding 0 converts −0 to 0, so that they are ties.
    let mut with_odds: Vec<(f64, &Scored)> =
        scored.iter().filter(|s| s.raw.is_some()).filter_map(|s| Some((s.odds? + 0.0, s))).collect();
    with_odds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut now = scored.iter().filter(|s| !s.answerable && s.raw.is_some()).count() as f64;
    let (mut best, mut threshold) = (now, 0.0);
    for (odds, question) in with_odds {
        now += match (question.answerable, question.answered) {
            (true, _) => score(question),
            (false, true) => -1.0,
            (false, false) => 0.0,
        };
        if now > best {
            (best, threshold) = (now, odds);
        }
    }
    (100.0 * best / scored.len().max(1) as f64, threshold)
}
