//! The triplet loss (Schroff et al. 2015): max(d(a, p) − d(a, n) + margin, 0), the mean over all pairs of a positive and a
//! negative of all rows.

use cloze_engine::ops::LossSum;

use super::vectors::row_of;
use super::{Distance, Embeddings, Outcome, Step};

pub(super) fn loss(distance: Distance, margin: f64, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
    let width = embeddings.anchors.width;
    let mut outcome = Outcome::zeros(embeddings);
    let count: usize = step.rows.iter().map(|row| row.positives.len() * row.negatives.len()).sum();
    let scale = 1.0 / count as f64;
    for (i, row) in step.rows.iter().enumerate() {
        let anchor = embeddings.anchors.row(i);
        for positive in row.positives.clone() {
            let near = distance.of(anchor, embeddings.candidates.row(positive));
            for negative in row.negatives.clone() {
                let far = distance.of(anchor, embeddings.candidates.row(negative));
                let value = (near - far + margin).max(0.0);
                outcome.loss += LossSum { sum: value, weight: 1.0, count: 1, correct: usize::from(near < far) };
                if value > 0.0 {
                    for (of, factor) in [(positive, scale), (negative, -scale)] {
                        let to = row_of(&mut outcome.anchors, width, i);
                        let other = row_of(&mut outcome.candidates, width, of);
                        distance.add_derivative([anchor, embeddings.candidates.row(of)], factor, to, other);
                    }
                }
            }
        }
        outcome.negatives += row.negatives.len() as u64;
    }
    outcome
}
