//! Scores of rankings: the documents found for a query, best first, compared with graded relevance judgements.
//!
//! Reference: trec_eval. Its nDCG (measures `ndcg` and `ndcg_cut`) has linear gain: a document of grade g at rank r is
//! worth g / log2(r + 1), as in Järvelin and Kekäläinen (2002) and scikit-learn's `ndcg_score`. The gain 2^g − 1, which
//! is common in web search, gives different values for grades above 1.
//!
//! A document without a judgement has grade 0; grades above 0 are relevant. A document that is ranked twice counts only
//! at its first rank. All scores of a query without a relevant document are none, because all its rankings are equally
//! good.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use serde::Serialize;

/// Normalised discounted cumulative gain of the first `k` documents, from 0 to 1, with linear gain. Use `usize::MAX`
/// for all documents.
///
/// It is normalized by the best possible ranking of all judged documents, whether they were found or not.
pub fn ndcg<D: Eq + Hash>(ranked: &[D], grades: &HashMap<D, u32>, k: usize) -> Option<f64> {
    let gain = |(rank, grade): (usize, u32)| f64::from(grade) / ((rank + 2) as f64).log2();
    let mut best: Vec<u32> = grades.values().copied().filter(|&g| g > 0).collect();
    if best.is_empty() {
        return None;
    }
    best.sort_unstable_by(|a, b| b.cmp(a));
    let ideal: f64 = best.into_iter().enumerate().take(k).map(gain).sum();
    let found: f64 = graded(ranked, grades).take(k).enumerate().map(gain).sum();
    Some(if ideal > 0.0 { found / ideal } else { 0.0 })
}

/// Average precision, from 0 to 1: the mean over all relevant documents of the precision at their rank, which is 0 for
/// documents that were not found. Its mean over queries is MAP.
pub fn average_precision<D: Eq + Hash>(ranked: &[D], grades: &HashMap<D, u32>) -> Option<f64> {
    let all = relevant(grades)?;
    let (mut found, mut sum) = (0u32, 0.0);
    for (rank, grade) in (1u32..).zip(graded(ranked, grades)) {
        if grade > 0 {
            found += 1;
            sum += f64::from(found) / f64::from(rank);
        }
    }
    Some(sum / all)
}

/// The reciprocal of the rank of the first relevant document; 0 if none was found. Its mean over queries is MRR.
pub fn reciprocal_rank<D: Eq + Hash>(ranked: &[D], grades: &HashMap<D, u32>) -> Option<f64> {
    relevant(grades)?;
    Some(graded(ranked, grades).position(|grade| grade > 0).map_or(0.0, |before| 1.0 / (before + 1) as f64))
}

/// The fraction of the relevant documents that are among the first `k`.
pub fn recall<D: Eq + Hash>(ranked: &[D], grades: &HashMap<D, u32>, k: usize) -> Option<f64> {
    let all = relevant(grades)?;
    Some(graded(ranked, grades).take(k).filter(|&grade| grade > 0).count() as f64 / all)
}

/// The number of relevant documents; none if there are none.
fn relevant<D>(grades: &HashMap<D, u32>) -> Option<f64> {
    let n = grades.values().filter(|&&grade| grade > 0).count();
    (n > 0).then_some(n as f64)
}

/// The grades of the ranked documents in order; 0 for documents without a judgement and for repetitions.
fn graded<D: Eq + Hash>(ranked: &[D], grades: &HashMap<D, u32>) -> impl Iterator<Item = u32> {
    let mut seen = HashSet::new();
    ranked.iter().map(move |d| if seen.insert(d) { grades.get(d).copied().unwrap_or(0) } else { 0 })
}

/// Scores of many queries: means over the queries that have a relevant document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetrievalScores {
    /// The number of queries with a relevant document, over which means are taken.
    pub queries: usize,
    /// The number of queries without a relevant document, which are ignored.
    pub without_relevant: usize,
    /// Mean average precision.
    pub map: f64,
    /// Mean reciprocal rank.
    pub mrr: f64,
    /// Scores at each cutoff, in the order of the `cutoffs` argument.
    pub at: Vec<CutoffScores>,
}

/// Scores at a cutoff: of the first `k` documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CutoffScores {
    /// The cutoff.
    pub k: usize,
    /// Mean nDCG with linear gain.
    pub ndcg: f64,
    /// Mean recall.
    pub recall: f64,
}

/// Scores the ranking of each query with its judgements. None if no query has a relevant document.
pub fn evaluate<'a, D: Eq + Hash + 'a>(
    queries: impl IntoIterator<Item = (&'a [D], &'a HashMap<D, u32>)>,
    cutoffs: &[usize],
) -> Option<RetrievalScores> {
    let at = cutoffs.iter().map(|&k| CutoffScores { k, ndcg: 0.0, recall: 0.0 }).collect();
    let mut sum = RetrievalScores { queries: 0, without_relevant: 0, map: 0.0, mrr: 0.0, at };
    for (ranked, grades) in queries {
        let (Some(precision), Some(reciprocal)) = (average_precision(ranked, grades), reciprocal_rank(ranked, grades))
        else {
            sum.without_relevant += 1;
            continue;
        };
        sum.queries += 1;
        sum.map += precision;
        sum.mrr += reciprocal;
        for at in &mut sum.at {
            at.ndcg += ndcg(ranked, grades, at.k).unwrap_or(0.0);
            at.recall += recall(ranked, grades, at.k).unwrap_or(0.0);
        }
    }
    if sum.queries == 0 {
        return None;
    }
    let n = sum.queries as f64;
    sum.map /= n;
    sum.mrr /= n;
    for at in &mut sum.at {
        at.ndcg /= n;
        at.recall /= n;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::fixtures::{assert_close, read};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        grades: HashMap<String, u32>,
        ranked: Vec<String>,
        map: f64,
        reciprocal: f64,
        ndcg: f64,
        cuts: Vec<(usize, f64, f64)>,
    }

    #[test]
    fn scores_equal_trec_eval() {
        let cases: Vec<Case> = read("retrieval");
        assert!(cases.len() > 15);
        for Case { name, grades, ranked, map, reciprocal, ndcg: full, cuts } in &cases {
            assert_close(average_precision(ranked, grades).unwrap(), *map, 1e-12, name);
            assert_close(reciprocal_rank(ranked, grades).unwrap(), *reciprocal, 1e-12, name);
            assert_close(ndcg(ranked, grades, usize::MAX).unwrap(), *full, 1e-12, name);
            for &(k, gain, share) in cuts {
                assert_close(ndcg(ranked, grades, k).unwrap(), gain, 1e-12, name);
                assert_close(recall(ranked, grades, k).unwrap(), share, 1e-12, name);
            }
        }
        // The means, with an additional query that is ignored.
        let nothing = HashMap::from([("d0".to_string(), 0)]);
        let queries = cases.iter().map(|c| (&c.ranked[..], &c.grades)).chain([(&cases[0].ranked[..], &nothing)]);
        let found = evaluate(queries, &[10, 1]).unwrap();
        let mean = |of: fn(&Case) -> f64| cases.iter().map(of).sum::<f64>() / cases.len() as f64;
        assert_eq!((found.queries, found.without_relevant), (cases.len(), 1));
        assert_close(found.map, mean(|c| c.map), 1e-12, "MAP");
        assert_close(found.mrr, mean(|c| c.reciprocal), 1e-12, "MRR");
        assert_eq!(found.at.iter().map(|a| a.k).collect::<Vec<_>>(), [10, 1]);
        assert_close(found.at[0].ndcg, mean(|c| c.cuts[2].1), 1e-12, "nDCG@10");
        assert_close(found.at[1].recall, mean(|c| c.cuts[0].2), 1e-12, "recall@1");
    }

    #[test]
    fn queries_without_relevant_documents_have_no_scores() {
        for grades in [HashMap::new(), HashMap::from([("a", 0)])] {
            assert_eq!(ndcg(&["a"], &grades, 10), None);
            assert_eq!(average_precision(&["a"], &grades), None);
            assert_eq!(reciprocal_rank(&["a"], &grades), None);
            assert_eq!(recall(&["a"], &grades, 10), None);
            assert_eq!(evaluate([(&["a"][..], &grades)], &[10]), None);
        }
    }

    #[test]
    fn empty_rankings_score_zero() {
        let grades = HashMap::from([(7, 2)]);
        assert_eq!(ndcg(&[], &grades, 10), Some(0.0));
        assert_eq!(average_precision(&[], &grades), Some(0.0));
        assert_eq!(reciprocal_rank(&[], &grades), Some(0.0));
        assert_eq!(recall(&[], &grades, 10), Some(0.0));
        assert_eq!((ndcg(&[7], &grades, 0), recall(&[7], &grades, 0)), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn a_repeated_document_counts_once() {
        let grades = HashMap::from([("a", 1), ("b", 1)]);
        let ranked = ["a", "a", "b"];
        assert_eq!(recall(&ranked, &grades, 2), Some(0.5));
        assert_eq!(average_precision(&ranked, &grades), Some((1.0 + 2.0 / 3.0) / 2.0));
        assert!(ndcg(&["a", "a"], &grades, 2).unwrap() < 1.0);
    }
}
