//! Scores of a reranked list: relevant and irrelevant documents of a query with their scores.
//!
//! Reference: sentence-transformers' `CrossEncoderRerankingEvaluator`, with scikit-learn's `average_precision_score` and
//! `ndcg_score`. Documents of equal score share one rank in the average precision, and the mean gain of their ranks in
//! nDCG. For the reciprocal rank, which needs an order, the later document comes first (there,
//! the order depends on the CPU).

use serde::Serialize;

use super::assert_paired;
use super::binary::average_precision;

/// The scores of one query, or their means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RerankingScores {
    /// Average precision of the complete list.
    pub map: f64,
    /// Reciprocal rank of the first relevant document, if it is among the first `k`; else 0.
    pub mrr: f64,
    /// Normalised discounted cumulative gain of the first `k`.
    pub ndcg: f64,
}

/// The scores of a query. All are 0 without a relevant document.
///
/// # Panics
/// If the slices' lengths differ.
pub fn of_query(relevant: &[bool], scores: &[f32], k: usize) -> RerankingScores {
    assert_paired(relevant.len(), scores.len());
    let Some(map) = average_precision(relevant, scores) else { return RerankingScores::default() };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Adding 0 converts −0 to 0, so that they are ties.
    order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)).then(b.cmp(&a)));
    let first = order.iter().take(k).position(|&row| relevant[row]);
    RerankingScores {
        map,
        mrr: first.map_or(0.0, |before| 1.0 / (before + 1) as f64),
        ndcg: ndcg(&order, relevant, scores, k),
    }
}

/// The means over queries; all values are 0 without queries.
pub fn mean(of_queries: &[RerankingScores]) -> RerankingScores {
    let count = of_queries.len().max(1) as f64;
    let mean = |value: fn(&RerankingScores) -> f64| of_queries.iter().map(value).sum::<f64>() / count;
    RerankingScores { map: mean(|s| s.map), mrr: mean(|s| s.mrr), ndcg: mean(|s| s.ndcg) }
}

/// nDCG of the first `k` documents of an order by score, at least one of which is relevant.
fn ndcg(order: &[usize], relevant: &[bool], scores: &[f32], k: usize) -> f64 {
    let discount = |rank: usize| if rank < k { ((rank + 2) as f64).log2().recip() } else { 0.0 };
    let (mut gain, mut rank, mut all) = (0.0, 0, 0);
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let found = tie.iter().filter(|row| relevant[**row]).count();
        let discounts: f64 = (rank..rank + tie.len()).map(discount).sum();
        gain += found as f64 / tie.len() as f64 * discounts;
        rank += tie.len();
        all += found;
    }
    let ideal: f64 = (0..all).map(discount).sum();
    if ideal > 0.0 { gain / ideal } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::fixtures::{assert_close, read};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        relevant: Vec<u8>,
        scores: Vec<f32>,
        k: usize,
        map: f64,
        mrr: f64,
        ndcg: f64,
    }

    #[test]
    fn scores_equal_those_of_the_evaluator() {
        let cases: Vec<Case> = read("reranking");
        assert!(cases.len() > 15);
        for Case { name, relevant, scores, k, map, mrr, ndcg } in cases {
            let relevant: Vec<bool> = relevant.iter().map(|label| *label == 1).collect();
            let found = of_query(&relevant, &scores, k);
            for (found, expected) in [(found.map, map), (found.mrr, mrr), (found.ndcg, ndcg)] {
                assert_close(found, expected, 1e-12, &name);
            }
        }
    }

    #[test]
    fn lists_without_a_relevant_document_score_zero() {
        assert_eq!(of_query(&[false, false], &[1.0, 2.0], 10), RerankingScores::default());
        assert_eq!(of_query(&[], &[], 10), RerankingScores::default());
        assert_eq!(of_query(&[true], &[-3.0], 10), RerankingScores { map: 1.0, mrr: 1.0, ndcg: 1.0 });
        assert_eq!(mean(&[]), RerankingScores::default());
    }
}
