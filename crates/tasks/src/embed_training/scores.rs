//! Scores of the vectors of dev rows.
//!
//! Pairs with scores: Spearman's and Pearson's correlation of the similarity with the score (STS). Other rows: each anchor is
//! a query that searches all other texts of the dev rows, of which its positives are relevant.

use std::collections::{BTreeMap, HashMap};

use cloze_engine::Device;
use cloze_engine::ops::matmul;

use super::encoded::EncodedTexts;
use super::losses::Rows;
use crate::embed::search::Similarity;
use crate::metrics::correlation::{pearson, spearman};
use crate::metrics::retrieval::{ndcg, reciprocal_rank};
use crate::task::Scores;

/// Ranks that are scored.
const DEPTH: usize = 10;
/// Similarities in a block.
const BLOCK: usize = 16 << 20;

/// The scores of dev rows, whose texts have these vectors. Without pairs that could be scored, there are none, and the loss
/// decides.
pub(super) fn scores(device: &Device, rows: &EncodedTexts, vectors: Rows<'_>, similarity: Similarity) -> Scores {
    let mut scores = Scores { rows: rows.len(), ..Scores::default() };
    if let Some(pairs) = rows.scored_pairs() {
        let row = |number: usize| &vectors.values[number * vectors.width..(number + 1) * vectors.width];
        let found: Vec<f64> = pairs.iter().map(|&(a, b, _)| f64::from(similarity.of(row(a), row(b)))).collect();
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
        of_anchor.extend(positives.iter().filter(|positive| **positive != anchor).map(|positive| (*positive, 1)));
        documents.extend(positives.iter().chain(negatives));
    }
    documents.sort_unstable();
    documents.dedup();
    relevant.retain(|_, of_anchor| !of_anchor.is_empty());
    if relevant.is_empty() {
        return scores;
    }
    let queries: Vec<usize> = relevant.keys().copied().collect();
    let (mut sums, count) = ([0.0; 3], queries.len() as f64);
    let index = similarity.gather(vectors, &documents);
    let per_block = (BLOCK / documents.len()).max(1);
    for block in queries.chunks(per_block) {
        let found = similarity.all(device, &similarity.gather(vectors, block), &index, vectors.width);
        for (query, row) in block.iter().zip(found.chunks_exact(documents.len())) {
            let ranked = nearest(row, &documents, *query);
            let grades = &relevant[query];
            let first = ranked.first().is_some_and(|first| grades.contains_key(first));
            sums[0] += ndcg(&ranked, grades, DEPTH).unwrap_or(0.0);
            sums[1] += f64::from(u8::from(first));
            sums[2] += reciprocal_rank(&ranked, grades).unwrap_or(0.0);
        }
    }
    let names = ["ndcg_at_10", "accuracy_at_1", "mrr_at_10"];
    scores.values = names.iter().zip(sums).map(|(name, sum)| ((*name).to_owned(), sum / count)).collect();
    scores.details.insert("queries".to_owned(), queries.len().into());
    scores.details.insert("documents".to_owned(), documents.len().into());
    scores
}

/// The nearest documents, best first, ties in their order, without the query's own text.
fn nearest(similarities: &[f32], documents: &[usize], query: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..documents.len()).filter(|&place| documents[place] != query).collect();
    let nearer = |a: &usize, b: &usize| similarities[*b].total_cmp(&similarities[*a]).then(a.cmp(b));
    if order.len() > DEPTH {
        order.select_nth_unstable_by(DEPTH - 1, nearer);
        order.truncate(DEPTH);
    }
    order.sort_unstable_by(nearer);
    order.into_iter().map(|place| documents[place]).collect()
}

impl Similarity {
    /// The similarity of two vectors with any norms.
    fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let both = [a, b].map(|vector| Rows::new(vector.len(), vector));
        let [a, b] = both.map(|rows| self.gather(rows, &[0]));
        self.score(&a, &b)
    }

    /// Some rows, normalised if the cosine requires it.
    fn gather(self, vectors: Rows<'_>, chosen: &[usize]) -> Vec<f32> {
        let row = |&number: &usize| &vectors.values[number * vectors.width..(number + 1) * vectors.width];
        let mut rows: Vec<f32> = chosen.iter().flat_map(row).copied().collect();
        if self == Similarity::Cosine {
            rows.chunks_exact_mut(vectors.width).for_each(crate::embed::normalize);
        }
        rows
    }

    /// The similarities of all rows of `a` with all rows of `b`, which are gathered.
    fn all(self, device: &Device, a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
        match self {
            Similarity::Cosine | Similarity::Dot => {
                let [a, b] = [a, b].map(|rows| device.tensor_f32(rows, &[rows.len() / width, width]));
                matmul(device, &a, &b, [false, true]).to_vec_f32()
            }
            _ => {
                let rows = a.chunks_exact(width);
                rows.flat_map(|a| b.chunks_exact(width).map(move |b| self.score(a, b))).collect()
            }
        }
    }
}
