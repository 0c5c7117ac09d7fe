//! Scores from logits. They are computed in f64 and rounded to f32, the type of the scores of Transformers, so that scores
//! that are equal there (two sigmoids of 1) are equal here, and the order is the same.

use crate::kinds::probabilities;
pub(super) use crate::kinds::probabilities::argmax;

/// A number, rounded to f32.
pub(super) fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The softmax.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    // There are shares: the callers check that the logits are finite.
    probabilities::softmax(logits).unwrap_or_default().into_iter().map(rounded).collect()
}

/// The sigmoid.
pub(super) fn sigmoid(logit: f32) -> f64 {
    rounded(1.0 / (1.0 + (-f64::from(logit)).exp()))
}

/// Whether there are logits, and all are finite.
pub(super) fn are_finite(logits: &[f32]) -> bool {
    !logits.is_empty() && logits.iter().all(|logit| logit.is_finite())
}
