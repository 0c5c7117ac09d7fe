//! Paraphrase mining: the most similar pairs of a set of texts, compared with the known duplicates.

use std::collections::{HashMap, HashSet};

use cloze_engine::Device;
use serde::Serialize;

use crate::embed::search::{Index, Similarity};
use crate::embed::vectors::Vectors;

/// The number of texts whose neighbours are searched at once.
const CHUNK: usize = 1024;

/// A pair of texts, as rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinedPair {
    /// The cosine of their vectors.
    pub score: f32,
    /// The first text.
    pub first: usize,
    /// The second text, a later row.
    pub second: usize,
}

/// Which pairs of texts are duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicates {
    groups: Groups,
    count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Groups {
    /// These pairs, each with the smaller row first.
    Pairs(HashSet<(usize, usize)>),
    /// All pairs of texts with the same group.
    Closed(HashMap<usize, usize>),
}

impl Duplicates {
    /// Exactly these pairs, in any order. Pairs that occur twice count once.
    pub fn of_pairs(pairs: &[(usize, usize)]) -> Duplicates {
        let pairs: HashSet<(usize, usize)> = pairs.iter().map(|&(a, b)| (a.min(b), a.max(b))).collect();
        Duplicates { count: pairs.len(), groups: Groups::Pairs(pairs) }
    }

    /// These pairs and those that follow from them: if a and b are duplicates, and b and c, then a and c are.
    pub fn transitive(pairs: &[(usize, usize)]) -> Duplicates {
        let mut group_of: HashMap<usize, usize> = HashMap::new();
        let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
        for &(a, b) in pairs {
            let [into, from] = [a, b].map(|row| {
                *group_of.entry(row).or_insert_with(|| {
                    members.insert(row, vec![row]);
                    row
                })
            });
            if into == from {
                continue;
            }
            let size = |group: usize| members.get(&group).map_or(0, Vec::len);
            let (into, from) = if size(into) < size(from) { (from, into) } else { (into, from) };
            let moved = members.remove(&from).unwrap_or_default();
            for row in &moved {
                group_of.insert(*row, into);
            }
            members.entry(into).or_default().extend(moved);
        }
        let count = members.values().map(|rows| rows.len() * (rows.len() - 1) / 2).sum();
        Duplicates { groups: Groups::Closed(group_of), count }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no duplicates.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether two texts are duplicates.
    pub fn contains(&self, a: usize, b: usize) -> bool {
        match &self.groups {
            Groups::Pairs(pairs) => pairs.contains(&(a.min(b), a.max(b))),
            Groups::Closed(group_of) => group_of.get(&a).is_some_and(|group| group_of.get(&b) == Some(group)),
        }
    }
}

/// How pairs are mined.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MiningOptions {
    /// Number of nearest texts that are considered for each text.
    pub top_k: usize,
    /// Maximum number of pairs.
    pub max_pairs: usize,
}

impl Default for MiningOptions {
    /// The defaults of sentence-transformers.
    fn default() -> MiningOptions {
        MiningOptions { top_k: 100, max_pairs: 500_000 }
    }
}

/// The most similar pairs of vectors by cosine, best first; each pair is among the nearest of one of its texts.
/// `progress` receives the number of texts whose neighbours are known.
pub fn mine(
    device: &Device,
    vectors: Vectors,
    options: &MiningOptions,
    progress: &mut dyn FnMut(usize),
) -> Vec<MinedPair> {
    let width = vectors.width();
    let (count, index) = (vectors.len(), Index::new(vectors.clone(), Similarity::Cosine));
    let mut pairs: Vec<MinedPair> = Vec::new();
    for start in (0..count).step_by(CHUNK) {
        let end = count.min(start + CHUNK);
        let queries = Vectors::new(width, vectors.values()[start * width..end * width].to_vec());
        let hits = index.nearest(device, queries, options.top_k, |query, row| row != start + query);
        for (query, hits) in (start..).zip(hits) {
            pairs.extend(hits.into_iter().map(|hit| MinedPair {
                score: hit.score,
                first: query.min(hit.row),
                second: query.max(hit.row),
            }));
        }
        // Each pair may be there twice.
        if pairs.len() > options.max_pairs.saturating_mul(4) {
            keep_best(&mut pairs, options.max_pairs);
        }
        progress(end);
    }
    keep_best(&mut pairs, options.max_pairs);
    pairs
}

/// Sorts pairs, best first, and keeps the first `most` distinct ones. The two scores of a pair may differ by a rounding.
fn keep_best(pairs: &mut Vec<MinedPair>, most: usize) {
    let place = |pair: &MinedPair| (pair.first, pair.second);
    pairs.sort_unstable_by(|a, b| place(a).cmp(&place(b)).then(b.score.total_cmp(&a.score)));
    pairs.dedup_by_key(|pair| place(pair));
    pairs.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| place(a).cmp(&place(b))));
    pairs.truncate(most);
}

/// The scores of mined pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MiningScores {
    /// Average precision over all duplicates; those that were not found count as 0.
    pub average_precision: f64,
    /// The best F1 of a threshold.
    pub f1: f64,
    /// The fraction of the pairs at this threshold that are duplicates.
    pub precision: f64,
    /// The fraction of the duplicates that are found at this threshold.
    pub recall: f64,
    /// The threshold: halfway between the lowest score found and the next one.
    pub threshold: f32,
}

/// The scores of pairs, best first. All are 0 if there are no duplicates or none is found.
pub fn scores(pairs: &[MinedPair], duplicates: &Duplicates) -> MiningScores {
    let (mut best, mut correct, mut before) = (MiningScores::default(), 0, 0);
    let total = duplicates.len().max(1) as f64;
    for (number, pair) in pairs.iter().enumerate() {
        correct += usize::from(duplicates.contains(pair.first, pair.second));
        let next = pairs.get(number + 1).unwrap_or(pair);
        if number + 1 < pairs.len() && next.score == pair.score {
            continue;
        }
        if correct > before {
            let (precision, recall) = (correct as f64 / (number + 1) as f64, correct as f64 / total);
            let f1 = 2.0 * precision * recall / (precision + recall);
            best.average_precision += precision * (correct - before) as f64 / total;
            if f1 > best.f1 {
                let threshold = (pair.score + next.score) / 2.0;
                best = MiningScores { f1, precision, recall, threshold, ..best };
            }
        }
        before = correct;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_of_duplicates_are_duplicates_in_the_closure() {
        let pairs = [(3, 1), (1, 3), (5, 6), (1, 8), (6, 9), (8, 3)];
        let exact = Duplicates::of_pairs(&pairs);
        assert_eq!((exact.len(), exact.contains(3, 1), exact.contains(5, 9)), (5, true, false));
        let closed = Duplicates::transitive(&pairs);
        // {1, 3, 8} and {5, 6, 9}.
        assert_eq!((closed.len(), closed.contains(5, 9), closed.contains(8, 3)), (6, true, true));
        assert!(!closed.contains(1, 5) && !closed.contains(0, 2) && !closed.is_empty());
        assert_eq!(Duplicates::transitive(&[(0, 1), (2, 3), (1, 2)]).len(), 6);
    }

    #[test]
    fn pairs_are_distinct_and_sorted_whatever_the_chunks() {
        let vectors = Vectors::new(2, vec![1.0, 0.0, 1.0, 0.1, 0.0, 1.0, 0.1, 1.0, -1.0, 0.0]);
        let options = MiningOptions { top_k: 2, ..MiningOptions::default() };
        let device = Device::cpu(Some(2)).unwrap();
        let found = mine(&device, vectors.clone(), &options, &mut |_| ());
        let rows: Vec<(usize, usize)> = found.iter().map(|pair| (pair.first, pair.second)).collect();
        assert_eq!(rows, [(0, 1), (2, 3), (1, 3), (0, 3), (1, 2), (2, 4), (3, 4)]);
        assert!(found.is_sorted_by(|a, b| a.score >= b.score));
        let options = MiningOptions { max_pairs: 1, ..options };
        assert_eq!(mine(&device, vectors, &options, &mut |_| ()), found[..1]);
    }
}
