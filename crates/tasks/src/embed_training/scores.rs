//! Scores of the vectors of dev rows.
//!
//! Pairs with scores: Spearman's and Pearson's correlation of the similarity with the score (STS). Other rows: each anchor is
//! a query that searches all other texts of the dev rows, of which its positives are relevant.

use std::collections::{BTreeMap, HashMap};

use cloze_engine::Device;

use super::encoded::EncodedTexts;
use crate::embed::search::{Index, Similarity};
use crate::embed::vectors::Vectors;
use crate::embed_evaluation::similarity::pairwise;
use crate::metrics::correlation::{pearson, spearman};
use crate::metrics::retrieval::{ndcg, reciprocal_rank};
use crate::task::Scores;

/// Ranks that are scored.
const DEPTH: usize = 10;

/// The scores of dev rows, whose texts have these vectors. Without pairs that could be scored, there are none, and the loss
/// decides.
pub(super) fn scores(device: &Device, rows: &EncodedTexts, vectors: &Vectors, similarity: Similarity) -> Scores {
    let mut scores = Scores { rows: rows.len(), ..Scores::default() };
    if let Some(pairs) = rows.scored_pairs() {
        let [first, second] = [0, 1].map(|side| {
            let number = |&(a, b, _): &(usize, usize, f64)| [a, b][side];
            vectors.select(&pairs.iter().map(number).collect::<Vec<_>>())
        });
        let found: Vec<f64> = pairwise(&first, &second, similarity).into_iter().map(f64::from).collect();
        let gold: Vec<f64> = pairs.iter().map(|(.., score)| *score).collect();
        let value = |of: Option<f64>| of.unwrap_or(f64::NAN);
        scores.values.push(("spearman".to_owned(), value(spearman(&found, &gold))));
        scores.values.push(("pearson".to_owned(), value(pearson(&found, &gold))));
        return scores;
    }
    // The relevant texts of each anchor, over all rows that have it.
    let mut relevant: BTreeMap<usize, HashMap<usize, u32>> = BTreeMap::new();
    let mut documents: Vec<usize> = Vec::new();
    for (anchor, positives, negatives) in rows.relations() {
        let of_anchor = relevant.entry(anchor).or_default();
        of_anchor.extend(
            positives.iter().filter(|positive| !rows.are_equal(**positive, anchor)).map(|positive| (*positive, 1)),
        );
        documents.extend(positives.iter().chain(negatives));
    }
    documents.sort_unstable();
    documents.dedup();
    relevant.retain(|_, of_anchor| !of_anchor.is_empty());
    if relevant.is_empty() {
        return scores;
    }
    let queries: Vec<usize> = relevant.keys().copied().collect();
    let index = Index::new(vectors.select(&documents), similarity);
    let is_other = |query: usize, row: usize| !rows.are_equal(documents[row], queries[query]);
    let hits = index.nearest(device, vectors.select(&queries), DEPTH, is_other);
    let mut sums = [0.0; 3];
    for (hits, grades) in hits.iter().zip(relevant.values()) {
        let ranked: Vec<usize> = hits.iter().map(|hit| documents[hit.row]).collect();
        let first = ranked.first().is_some_and(|first| grades.contains_key(first));
        sums[0] += ndcg(&ranked, grades, DEPTH).unwrap_or(0.0);
        sums[1] += f64::from(u8::from(first));
        sums[2] += reciprocal_rank(&ranked, grades).unwrap_or(0.0);
    }
    let (names, count) = (["ndcg_at_10", "accuracy_at_1", "mrr_at_10"], queries.len() as f64);
    scores.values = names.iter().zip(sums).map(|(name, sum)| ((*name).to_owned(), sum / count)).collect();
    scores.details.insert("queries".to_owned(), queries.len().into());
    scores.details.insert("documents".to_owned(), documents.len().into());
    scores
}
