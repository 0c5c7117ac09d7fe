//! Scores of predictions, one file a subject, each equal to the implementation that the field reports.
//!
//! | module | what | equal to |
//! | --- | --- | --- |
//! | [`classes`] | accuracy, precision, recall, F1, Matthews, confusion | scikit-learn |
//! | [`multi_label`] | micro and macro F1, exact match of several labels an example | scikit-learn |
//! | [`correlation`] | Pearson, Spearman | scipy |
//! | [`entities`] | entities of BIO, IOB1 and BIOES tags and their scores | seqeval, default mode |
//! | [`scheme`] | tagging schemes and their spellings, found out from the tags | seqeval, strict mode for BILOU |
//! | [`squad`] | exact match and F1 of answers, with and without unanswerable questions | the official SQuAD scripts |
//! | [`retrieval`] | nDCG, MAP, MRR, recall of rankings | trec_eval |
//! | [`bootstrap`] | how far a score may be from the truth, given so many examples | scipy |
//! | [`spread`] | how far it moves with the seed | – |
//!
//! Everything here is arithmetic on slices: nothing reads a file. Gold and predictions of unequal length, and class indices
//! beyond the number of classes, are the caller's bugs and panic; whoever reads them from a file checks them there.

pub mod bootstrap;
pub mod classes;
pub mod correlation;
pub mod entities;
pub mod multi_label;
pub mod retrieval;
pub mod scheme;
pub mod spread;
pub mod squad;

use std::ops::AddAssign;

use serde::Serialize;

/// What precision and recall are made of. Counts of parts (sentences, types) add up to the counts of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Predicted and right: true positives.
    pub correct: usize,
    /// Predicted: true and false positives.
    pub predicted: usize,
    /// Present: true positives and false negatives.
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

/// Precision, recall and F1, from 0 to 1. Each is 0 where it is undefined, that is where nothing was predicted or nothing
/// was there (scikit-learn's and seqeval's `zero_division=0`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Score {
    /// Share of the predicted that is right.
    pub precision: f64,
    /// Share of the gold that was predicted.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// How many gold ones there are.
    pub support: usize,
}

impl Score {
    /// Mean of the scores, each counting the same; the support is their sum. All 0 of no scores.
    ///
    /// F1 is the mean of the F1s, not the harmonic mean of the other two means.
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

/// The quotient, and 0 of nothing.
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Panics unless there is one prediction for each gold label.
#[track_caller]
fn assert_paired(gold: usize, predicted: usize) {
    assert_eq!(gold, predicted, "as many predictions as gold labels are expected");
}

#[cfg(test)]
mod fixtures {
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::Score;

    /// Reads `fixtures/metrics/NAME.json`; `make.py` beside it says how it came about.
    pub fn read<T: DeserializeOwned>(name: &str) -> T {
        let path = format!("{}/fixtures/metrics/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Precision, recall and F1, and the support where the reference says it.
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
