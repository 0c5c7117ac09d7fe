//! What all kinds of tasks make of logits and of predictions.

use serde::Serializer;

/// Writes names and their probabilities as an object, in their order.
pub(super) fn as_map<S: Serializer>(pairs: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// exp(zᵢ − max) / Σ: probabilities of logits, in f64; `None` if one is not a number.
pub(super) fn softmax(logits: &[f32]) -> Option<Vec<f64>> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = logits.iter().map(|z| f64::from(z - most).exp()).collect();
    let sum: f64 = shares.iter().sum();
    (sum.is_finite() && sum > 0.0).then(|| shares.iter().map(|share| share / sum).collect())
}

/// The one answer that every row was given, if there is one and the rows' own answers are several: a model that has collapsed.
pub(super) fn collapsed<'a, L: PartialEq>(gold: &[L], predicted: &'a [L]) -> Option<&'a L> {
    let first = predicted.first()?;
    let several = gold.iter().any(|label| Some(label) != gold.first());
    (several && predicted.iter().all(|label| label == first)).then_some(first)
}

/// The first of the largest.
pub(super) fn largest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
