//! Functions on logits and probabilities that the kinds of tasks share.

use serde::Serializer;

/// Serializes names with their probabilities as an object, in order.
pub(super) fn as_map<S: Serializer>(pairs: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// The softmax of logits, exp(zᵢ − max) / Σ, in f64; `None` if a logit is NaN.
pub(crate) fn softmax(logits: &[f32]) -> Option<Vec<f64>> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = logits.iter().map(|z| f64::from(z - max).exp()).collect();
    let sum: f64 = shares.iter().sum();
    (sum.is_finite() && sum > 0.0).then(|| shares.iter().map(|share| share / sum).collect())
}

/// The prediction that all rows have in common, if the gold labels differ: the model has collapsed. None otherwise.
pub(super) fn collapsed<'a, L: PartialEq>(gold: &[L], predicted: &'a [L]) -> Option<&'a L> {
    let first = predicted.first()?;
    let several = gold.iter().any(|label| Some(label) != gold.first());
    (several && predicted.iter().all(|label| label == first)).then_some(first)
}

/// The index of the largest value; the first one if there are several.
pub(crate) fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
