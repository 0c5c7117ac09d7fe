//! Metrics, one file per topic. Each equals the reference implementation of the field.
//! | module | metrics | reference |
//! | --- | --- | --- |
//! | [`classes`] | accuracy, precision, recall, F1, Matthews, confusion | scikit-learn |
//! | [`multi_label`] | micro and macro F1, exact match of multi-label classification | scikit-learn |
//! | [`correlation`] | Pearson, Spearman | scipy |
//! | [`entities`] | entities of BIO, IOB1 and BIOES tags and their scores | seqeval, default mode |
//! | [`scheme`] | tagging schemes in all their forms, detected from the tags | seqeval, strict mode for BILOU |
//! | [`squad`] | exact match and F1 of answers, with and without unanswerable questions | the official SQuAD scripts |
//! | [`retrieval`] | nDCG, MAP, MRR, recall of rankings | trec_eval |
//! | [`binary`] | average precision, best accuracy and best F1 of a threshold | scikit-learn, sentence-transformers |
//! | [`reranking`] | MAP, MRR, nDCG of reranked lists | sentence-transformers |
//! | [`bootstrap`] | confidence intervals of scores | scipy |
//! | [`mean_std`] | mean and standard deviation over seeds | – |
//!
//! All functions compute on slices; none reads files. Gold and predicted slices of different lengths, and class indices
//! that are too large, are bugs of the caller and panic. Code that reads them from a file must check them.

pub mod binary;
pub mod bootstrap;
pub mod classes;
pub mod correlation;
pub mod entities;
pub mod mean_std;
pub mod multi_label;
pub mod reranking;
pub mod retrieval;
pub mod scheme;
pub mod squad;

use std::ops::AddAssign;

use serde::Serialize;

/// The counts from which precision and recall are computed. Counts of parts (sentences, types) can be added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Correct predictions: true positives.
    pub correct: usize,
    /// Predictions: true and false positives.
    pub predicted: usize,
    /// Gold items: true positives and false negatives.
    pub gold: usize,
}

impl Counts {
    /// Precision, recall and F1 of these counts.
    pub fn score(self) -> Score {
        Score {
            precision: ratio(self.correct, self.predicted),
            recall: ratio(self.correct, self.gold),
            f1: ratio(2 * self.correct, self.predicted + self.gold),
            support: self.gold,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.correct += other.correct;
        self.predicted += other.predicted;
        self.gold += other.gold;
    }
}

/// Precision, recall and F1, from 0 to 1. Each is 0 if it is undefined, because there are no predictions or no gold
/// items (`zero_division=0` of scikit-learn and seqeval).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Score {
    /// The fraction of predictions that are correct.
    pub precision: f64,
    /// The fraction of gold items that were predicted.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
    /// The number of gold items.
    pub support: usize,
}

impl Score {
    /// The unweighted mean of scores; the support is their sum. All values are 0 if there are no scores.
    ///
    /// F1 is the mean of the F1 values, not the harmonic mean of mean precision and mean recall.
    pub fn macro_average(scores: impl IntoIterator<Item = Score>) -> Score {
        let mut sum = Score::default();
        let mut n = 0;
        for score in scores {
            sum.precision += score.precision;
            sum.recall += score.recall;
            sum.f1 += score.f1;
            sum.support += score.support;
            n += 1;
        }
        let n = f64::from(n.max(1));
        Score { precision: sum.precision / n, recall: sum.recall / n, f1: sum.f1 / n, support: sum.support }
    }
}

/// The quotient; 0 if the divisor is 0.
fn ratio(part: usize, total: usize) -> f64 {
    if total == 0 { 0.0 } else { part as f64 / total as f64 }
}

/// Panics unless there is one prediction for each gold label.
#[track_caller]
fn assert_paired(gold: usize, predicted: usize) {
    assert_eq!(gold, predicted, "expected one prediction for each gold label");
}

#[cfg(test)]
mod fixtures {
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::Score;

    /// Reads `fixtures/metrics/NAME.json`, which `make.py` in the same folder generates.
    pub fn read<T: DeserializeOwned>(name: &str) -> T {
        let path = format!("{}/fixtures/metrics/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Precision, recall and F1, and the support if the reference has it.
    #[derive(Deserialize)]
    #[serde(untagged)]
    pub enum Expected {
        Scores(f64, f64, f64),
        WithSupport(f64, f64, f64, usize),
    }

    #[track_caller]
    pub fn assert_score(found: Score, expected: &Expected, what: &str) {
        let (precision, recall, f1, support) = match *expected {
            Expected::Scores(p, r, f) => (p, r, f, found.support),
            Expected::WithSupport(p, r, f, s) => (p, r, f, s),
        };
        assert_close(found.precision, precision, 1e-12, what);
        assert_close(found.recall, recall, 1e-12, what);
        assert_close(found.f1, f1, 1e-12, what);
        assert_eq!(found.support, support, "{what}");
    }

    #[track_caller]
    pub fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
        assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
    }
}
