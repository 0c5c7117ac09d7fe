//! CoSENT: for pairs with similarities sᵢ (cosine, times the scale) and gold scores yᵢ,
//!
//! ```text
//! L = log(1 + Σ_{y_k < y_i} exp(s_k − s_i))
//! ```
//!
//! Huang et al. 2024, "CoSENT: Consistent Sentence Embedding via Similarity Ranking". With the pairs in the order of their
//! scores, all sums are prefix sums, in the log domain.

use cloze_engine::ops::LossSum;

use super::vectors::row_of;
use super::{Compare, Embeddings, Outcome, Step};

/// log(eᵃ + eᵇ).
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

pub(super) fn loss(scale: f64, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
    let width = embeddings.anchors.width;
    let pair = |i: usize| [embeddings.anchors.row(i), embeddings.candidates.row(step.rows[i].positives.start)];
    let scores: Vec<f64> =
        (0..step.rows.len()).map(|i| scale * Compare::Cosine.similarity(pair(i)[0], pair(i)[1])).collect();
    let gold = |i: usize| step.rows[i].labels[0];
    let mut order: Vec<usize> = (0..step.rows.len()).collect();
    order.sort_by(|&a, &b| gold(a).total_cmp(&gold(b)));

    // For each pair: log Σ exp(−s) of the pairs with a higher gold score, and log Σ exp(s) of those with a lower one.
    let sums_before = |order: &mut dyn Iterator<Item = usize>, sign: f64| {
        let (mut sums, mut closed, mut open, mut last) =
            (vec![f64::NEG_INFINITY; scores.len()], f64::NEG_INFINITY, f64::NEG_INFINITY, None);
        for i in order {
            if last != Some(gold(i)) {
                (closed, last) = (open, Some(gold(i)));
            }
            sums[i] = closed;
            open = log_add(open, sign * scores[i]);
        }
        sums
    };
    let higher = sums_before(&mut order.iter().rev().copied(), -1.0);
    let lower = sums_before(&mut order.iter().copied(), 1.0);
    let total = (0..scores.len()).fold(0.0, |sum, i| log_add(sum, scores[i] + higher[i]));

    let mut outcome = Outcome::zeros(embeddings);
    let mut ordered = 0;
    for i in 0..scores.len() {
        let d = (scores[i] + higher[i] - total).exp() - (lower[i] - scores[i] - total).exp();
        let to = row_of(&mut outcome.anchors, width, i);
        let other = row_of(&mut outcome.candidates, width, step.rows[i].positives.start);
        Compare::Cosine.add_derivative(pair(i), scale * d, to, other);
    }
    // How many neighbours in the gold order have similarities in that order.
    let neighbours = order.windows(2).filter(|pair| gold(pair[0]) < gold(pair[1]));
    let mut count = 0;
    for pair in neighbours {
        count += 1;
        ordered += usize::from(scores[pair[0]] < scores[pair[1]]);
    }
    outcome.loss = LossSum { sum: total, weight: 1.0, count, correct: ordered };
    outcome
}
