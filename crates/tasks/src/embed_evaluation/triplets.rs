//! Triplets: whether the anchor is more similar to the positive than to the negative.

use serde::Serialize;

use super::similarity::pairwise;
use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;

/// The accuracy of one similarity function.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TripletAccuracy {
    /// The similarity function.
    pub similarity: Similarity,
    /// The fraction of triplets whose anchor is more similar to the positive. Equal similarities are wrong.
    pub accuracy: f64,
}

/// The accuracy of each similarity function, in the order of [`Similarity::ALL`]; 0 without triplets.
///
/// # Panics
/// If the matrices do not have the same size.
pub fn accuracies(anchors: &Vectors, positives: &Vectors, negatives: &Vectors) -> Vec<TripletAccuracy> {
    let of = |similarity: Similarity| {
        let (positive, negative) = (pairwise(anchors, positives, similarity), pairwise(anchors, negatives, similarity));
        let right = positive.iter().zip(&negative).filter(|(positive, negative)| positive > negative).count();
        TripletAccuracy { similarity, accuracy: right as f64 / anchors.len().max(1) as f64 }
    };
    Similarity::ALL.iter().map(|(similarity, ..)| of(*similarity)).collect()
}
