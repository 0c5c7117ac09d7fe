//! Pairs of similar and of other texts, told apart by a threshold of their similarity.

use serde::Serialize;

use super::similarity::pairwise;
use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;
use crate::metrics::binary::{average_precision, best_accuracy, best_f1};
use crate::metrics::classes::matthews;

/// The scores of one similarity function. Thresholds of the Euclidean and the Manhattan similarity are distances: pairs
/// of at most this distance are similar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PairScores {
    /// The similarity function.
    pub similarity: Similarity,
    /// Average precision, the main score.
    pub ap: f64,
    /// The accuracy of the best threshold for it.
    pub accuracy: f64,
    /// This threshold.
    pub accuracy_threshold: f32,
    /// F1 of the similar pairs with the best threshold for it.
    pub f1: f64,
    /// This threshold.
    pub f1_threshold: f32,
    /// The precision with this threshold.
    pub precision: f64,
    /// The recall with this threshold.
    pub recall: f64,
    /// The Matthews correlation coefficient with this threshold.
    pub mcc: f64,
}

/// The scores of each similarity function, in the order of [`Similarity::ALL`]. None without a similar pair.
///
/// # Panics
/// Unless there is one label for each pair of vectors of the same width.
pub fn scores(first: &Vectors, second: &Vectors, labels: &[bool]) -> Option<Vec<PairScores>> {
    let gold: Vec<usize> = labels.iter().map(|label| usize::from(*label)).collect();
    let of = |similarity: Similarity| {
        let found = pairwise(first, second, similarity);
        let (ap, accuracy, f1) =
            (average_precision(labels, &found)?, best_accuracy(labels, &found)?, best_f1(labels, &found));
        let predicted: Vec<usize> = found.iter().map(|score| usize::from(*score >= f1.threshold)).collect();
        let sign = if is_distance(similarity) { -1.0 } else { 1.0 };
        Some(PairScores {
            similarity,
            ap,
            accuracy: accuracy.accuracy,
            accuracy_threshold: sign * accuracy.threshold,
            f1: f1.f1,
            f1_threshold: sign * f1.threshold,
            precision: f1.precision,
            recall: f1.recall,
            mcc: matthews(&gold, &predicted, 2),
        })
    };
    Similarity::ALL.iter().map(|(similarity, ..)| of(*similarity)).collect()
}

/// Whether it is a negative distance.
fn is_distance(similarity: Similarity) -> bool {
    matches!(similarity, Similarity::Euclidean | Similarity::Manhattan)
}
