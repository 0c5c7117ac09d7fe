//! Scores of a decision by a threshold: a pair is positive if its score reaches the threshold.
//!
//! Reference: scikit-learn's `average_precision_score`, and the thresholds of sentence-transformers'
//! `BinaryClassificationEvaluator`. Higher scores are more positive; for distances, negate them, and negate the
//! thresholds found. Scores are f32, as there: a threshold between two scores is their mean in f32.

use super::assert_paired;

/// The accuracy of the best threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestAccuracy {
    /// The fraction of correct decisions.
    pub accuracy: f64,
    /// The threshold: halfway between the lowest positive and the next score.
    pub threshold: f32,
}

/// The scores of the threshold with the best F1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestF1 {
    /// F1 of the positive pairs.
    pub f1: f64,
    /// The fraction of the pairs found that are positive.
    pub precision: f64,
    /// The fraction of the positive pairs that are found.
    pub recall: f64,
    /// The threshold: halfway between the lowest score found and the next one.
    pub threshold: f32,
}

/// Average precision, from 0 to 1: the mean over the positives of the precision at their score. Equal scores are one
/// step. None without a positive.
///
/// # Panics
/// If the slices' lengths differ.
pub fn average_precision(labels: &[bool], scores: &[f32]) -> Option<f64> {
    let all = positives(labels);
    if all == 0 {
        return None;
    }
    let mut sum = 0.0;
    let mut before = 0;
    for Step { found, correct, .. } in steps(labels, scores) {
        sum += (correct - before) as f64 * correct as f64 / found as f64;
        before = correct;
    }
    Some(sum / all as f64)
}

/// The best accuracy of a threshold, and this threshold, the highest if there are several. None without scores.
///
/// # Panics
/// If the slices' lengths differ.
pub fn best_accuracy(labels: &[bool], scores: &[f32]) -> Option<BestAccuracy> {
    let (all, negatives) = (labels.len() as f64, labels.len() - positives(labels));
    let steps = steps(labels, scores);
    // The first threshold is above all scores: no pair is positive.
    let first = steps.first()?.score.next_up();
    let mut best = BestAccuracy { accuracy: negatives as f64 / all, threshold: first };
    for (number, step) in steps.iter().enumerate() {
        let right = step.correct + negatives - (step.found - step.correct);
        let accuracy = right as f64 / all;
        if accuracy > best.accuracy {
            best = BestAccuracy { accuracy, threshold: threshold(&steps, number) };
        }
    }
    Some(best)
}

/// The best F1 of a threshold, and this threshold, the highest if there are several. All values are 0 without a
/// positive.
///
/// # Panics
/// If the slices' lengths differ.
pub fn best_f1(labels: &[bool], scores: &[f32]) -> BestF1 {
    let all = positives(labels) as f64;
    let steps = steps(labels, scores);
    let mut best = BestF1 { f1: 0.0, precision: 0.0, recall: 0.0, threshold: 0.0 };
    for (number, step) in steps.iter().enumerate().filter(|(_, step)| step.correct > 0) {
        let (precision, recall) = (step.correct as f64 / step.found as f64, step.correct as f64 / all);
        let f1 = 2.0 * precision * recall / (precision + recall);
        if f1 > best.f1 {
            best = BestF1 { f1, precision, recall, threshold: threshold(&steps, number) };
        }
    }
    best
}

/// All pairs whose score is at least this one.
struct Step {
    score: f32,
    found: usize,
    correct: usize,
}

/// The distinct scores, descending, with the counts of the pairs that reach them.
fn steps(labels: &[bool], scores: &[f32]) -> Vec<Step> {
    assert_paired(labels.len(), scores.len());
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut steps: Vec<Step> = Vec::new();
    for (before, &row) in order.iter().enumerate() {
        let correct = steps.last().map_or(0, |step| step.correct) + usize::from(labels[row]);
        let step = Step { score: scores[row], found: before + 1, correct };
        match steps.last_mut() {
            Some(last) if last.score == step.score => *last = step,
            _ => steps.push(step),
        }
    }
    steps
}

/// The threshold that separates a step from the next: the mean of their scores, unless rounding makes it the next one.
fn threshold(steps: &[Step], number: usize) -> f32 {
    let score = steps[number].score;
    match steps.get(number + 1) {
        None => score,
        Some(next) => Some((score + next.score) / 2.0).filter(|mean| *mean != next.score).unwrap_or(score),
    }
}

fn positives(labels: &[bool]) -> usize {
    labels.iter().filter(|label| **label).count()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::fixtures::{assert_close, read};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        labels: Vec<u8>,
        scores: Vec<f32>,
        average_precision: Option<f64>,
        accuracy: (f64, f64),
        /// F1, precision, recall, threshold.
        f1: (f64, f64, f64, f64),
    }

    #[test]
    fn thresholds_and_average_precision_equal_the_references() {
        let cases: Vec<Case> = read("binary");
        assert!(cases.len() > 15);
        for Case { name, labels, scores, average_precision: ap, accuracy, f1 } in cases {
            let labels: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
            let found = average_precision(&labels, &scores);
            assert_eq!(found.is_some(), ap.is_some(), "{name}");
            assert_close(found.unwrap_or(0.0), ap.unwrap_or(0.0), 1e-12, &name);
            let best = best_accuracy(&labels, &scores).unwrap();
            assert_close(best.accuracy, accuracy.0, 1e-12, &name);
            assert_eq!(best.threshold, accuracy.1 as f32, "{name}");
            let best = best_f1(&labels, &scores);
            for (found, expected) in [(best.f1, f1.0), (best.precision, f1.1), (best.recall, f1.2)] {
                assert_close(found, expected, 1e-12, &name);
            }
            assert_eq!(best.threshold, f1.3 as f32, "{name}");
        }
        assert_eq!((best_accuracy(&[], &[]), average_precision(&[], &[])), (None, None));
    }
}
