//! Scores from logits. They are computed in f64 and rounded to f32, the type of the scores of Transformers, so that scores
//! that are equal there (two sigmoids of 1) are equal here, and the order is the same.

/// A number, rounded to f32.
pub(super) fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The softmax.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max).exp()).collect();
    let sum: f64 = shares.iter().sum();
    shares.into_iter().map(|share| rounded(share / sum)).collect()
}

/// The sigmoid.
pub(super) fn sigmoid(logit: f32) -> f64 {
    rounded(1.0 / (1.0 + (-f64::from(logit)).exp()))
}

/// The index of the largest value; the first one if there are several.
pub(super) fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Whether there are logits, and all are finite.
pub(super) fn are_finite(logits: &[f32]) -> bool {
    !logits.is_empty() && logits.iter().all(|logit| logit.is_finite())
}
