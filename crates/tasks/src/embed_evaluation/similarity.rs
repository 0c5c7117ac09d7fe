//! Similarities of pairs of vectors.

use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;

/// The similarity of each row of `first` with the same row of `second`.
///
/// Sums are f64, the results f32. The cosine of two equal vectors is therefore always 1, and equal pairs are ties.
///
/// # Panics
/// If the matrices do not have the same size.
pub fn pairwise(first: &Vectors, second: &Vectors, similarity: Similarity) -> Vec<f32> {
    assert_eq!((first.len(), first.width()), (second.len(), second.width()), "expected matrices of the same size");
    first.rows().zip(second.rows()).map(|(a, b)| of_pair(a, b, similarity)).collect()
}

fn of_pair(a: &[f32], b: &[f32], similarity: Similarity) -> f32 {
    /// The lower bound of a norm, as in PyTorch's `normalize`.
    const MIN_NORM: f64 = 1e-12;
    let sum = |of: fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| of(f64::from(*a), f64::from(*b))).sum::<f64>();
    let dot = || sum(|a, b| a * b);
    let found = match similarity {
        Similarity::Dot => dot(),
        Similarity::Cosine => {
            let norm = |square: f64| square.sqrt().max(MIN_NORM);
            dot() / (norm(sum(|a, _| a * a)) * norm(sum(|_, b| b * b)))
        }
        // Subtracted from 0, so that the similarity of equal vectors is 0 and not −0.
        Similarity::Euclidean => 0.0 - sum(|a, b| (a - b) * (a - b)).sqrt(),
        Similarity::Manhattan => 0.0 - sum(|a, b| (a - b).abs()),
    };
    found as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_vectors_are_ties_and_zero_vectors_have_cosine_zero() {
        let first = Vectors::new(3, vec![0.1, 0.7, -0.3, 1e-3, 5.0, 77.7, 0.0, 0.0, 0.0]);
        let found = pairwise(&first, &first, Similarity::Cosine);
        assert_eq!(found, [1.0, 1.0, 0.0]);
        let of = |similarity| pairwise(&first, &first, similarity);
        for distance in [of(Similarity::Euclidean), of(Similarity::Manhattan)] {
            assert!(distance.iter().all(|distance| *distance == 0.0 && distance.is_sign_positive()), "{distance:?}");
        }
    }
}
