//! Semantic textual similarity: the correlation of similarities with gold scores.

use serde::Serialize;

use super::similarity::pairwise;
use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;
use crate::metrics::correlation::{pearson, spearman};

/// The correlations of one similarity function with the gold scores; none if they are undefined, because all scores or
/// all similarities are equal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Correlations {
    /// The similarity function.
    pub similarity: Similarity,
    /// Pearson's correlation coefficient, −1 to 1.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation coefficient, −1 to 1: the usual score of STS tasks.
    pub spearman: Option<f64>,
}

/// The correlations of each similarity function, in the order of [`Similarity::ALL`].
///
/// # Panics
/// Unless there is one score for each pair of vectors of the same width.
pub fn correlations(first: &Vectors, second: &Vectors, scores: &[f64]) -> Vec<Correlations> {
    let of = |similarity: Similarity| {
        let found: Vec<f64> = pairwise(first, second, similarity).into_iter().map(f64::from).collect();
        Correlations { similarity, pearson: pearson(scores, &found), spearman: spearman(scores, &found) }
    };
    Similarity::ALL.iter().map(|(similarity, ..)| of(*similarity)).collect()
}
