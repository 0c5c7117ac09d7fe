//! Losses from a teacher's scores or vectors.

use cloze_engine::ops::LossSum;

use super::vectors::row_of;
use super::{Compare, Embeddings, Outcome, Row, Step};

/// Adds the derivatives of a row's similarities, `factors` for each of its candidates.
fn add(outcome: &mut Outcome, compare: Compare, embeddings: &Embeddings<'_>, i: usize, row: &Row, factors: &[f64]) {
    let width = embeddings.anchors.width;
    for (of, &factor) in row.own().zip(factors) {
        let pair = [embeddings.anchors.row(i), embeddings.candidates.row(of)];
        let to = row_of(&mut outcome.anchors, width, i);
        compare.add_derivative(pair, factor, to, row_of(&mut outcome.candidates, width, of));
    }
}

fn similarities(compare: Compare, embeddings: &Embeddings<'_>, i: usize, row: &Row) -> Vec<f64> {
    let anchor = embeddings.anchors.row(i);
    row.own().map(|of| compare.similarity(anchor, embeddings.candidates.row(of))).collect()
}

/// The squared difference of margins, the mean over all negatives of all rows.
pub(super) fn margin_mse(compare: Compare, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
    let mut outcome = Outcome::zeros(embeddings);
    let count: usize = step.rows.iter().map(|row| row.negatives.len()).sum();
    for (i, row) in step.rows.iter().enumerate() {
        let scores = similarities(compare, embeddings, i, row);
        let labels: Vec<f64> = row.labels.iter().map(|label| f64::from(*label)).collect();
        let mut factors = vec![0.0; scores.len()];
        for (number, score) in scores.iter().enumerate().skip(1) {
            let gold = if labels.len() == scores.len() { labels[0] - labels[number] } else { labels[number - 1] };
            let (margin, error) = (scores[0] - score, scores[0] - score - gold);
            let correct = usize::from((margin > 0.0) == (gold > 0.0));
            outcome.loss += LossSum { sum: error * error, weight: 1.0, count: 1, correct };
            let d = 2.0 * error / count as f64;
            factors[0] += d;
            factors[number] -= d;
        }
        add(&mut outcome, compare, embeddings, i, row, &factors);
        outcome.negatives += row.negatives.len() as u64;
    }
    outcome
}

/// T² KL(softmax(labels/T) ‖ softmax(s/T)), the mean over the rows.
pub(super) fn kl(compare: Compare, temperature: f64, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
    let mut outcome = Outcome::zeros(embeddings);
    let count = step.rows.len() as f64;
    for (i, row) in step.rows.iter().enumerate() {
        let scores = similarities(compare, embeddings, i, row);
        let student = log_softmax(&scores.iter().map(|score| score / temperature).collect::<Vec<_>>());
        let teacher = log_softmax(&row.labels.iter().map(|label| f64::from(*label) / temperature).collect::<Vec<_>>());
        let terms = student.iter().zip(&teacher).map(|(s, t)| if t.exp() > 0.0 { t.exp() * (t - s) } else { 0.0 });
        let correct = usize::from(largest(&student) == largest(&teacher));
        let sum = temperature * temperature * terms.sum::<f64>();
        outcome.loss += LossSum { sum, weight: 1.0, count: 1, correct };
        let factors: Vec<f64> =
            student.iter().zip(&teacher).map(|(s, t)| temperature * (s.exp() - t.exp()) / count).collect();
        add(&mut outcome, compare, embeddings, i, row, &factors);
        outcome.negatives += row.negatives.len() as u64;
    }
    outcome
}

/// The squared difference of the anchors' and all their candidates' embeddings from the teacher's vector of the row, the
/// mean over all numbers: the row's texts have one meaning, such as a sentence and its translations.
pub(super) fn mse(step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
    let width = embeddings.anchors.width;
    let mut outcome = Outcome::zeros(embeddings);
    let count: usize = step.rows.iter().map(|row| width * (1 + row.own().count())).sum();
    for (i, row) in step.rows.iter().enumerate() {
        let mut pull = |values: &[f32], to: &mut [f32]| {
            for ((x, label), to) in values.iter().zip(&row.labels).zip(to) {
                let error = f64::from(*x) - f64::from(*label);
                outcome.loss += LossSum { sum: error * error, weight: 1.0, count: 0, correct: 0 };
                *to = (2.0 * error / count as f64) as f32;
            }
        };
        pull(embeddings.anchors.row(i), row_of(&mut outcome.anchors, width, i));
        for of in row.own() {
            pull(embeddings.candidates.row(of), row_of(&mut outcome.candidates, width, of));
        }
    }
    outcome
}

fn log_softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + scores.iter().map(|score| (score - max).exp()).sum::<f64>().ln();
    scores.iter().map(|score| score - log_sum).collect()
}

/// The place of the largest number.
fn largest(of: &[f64]) -> Option<usize> {
    (0..of.len()).max_by(|&a, &b| of[a].total_cmp(&of[b]))
}
