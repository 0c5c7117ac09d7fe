//! The vectors nearest to a query.

use std::fmt;

use super::arithmetic::{dot, sum_of_pairs};
use super::vectors::Vectors;
use crate::parallel;

/// How two vectors are compared; the larger, the nearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Similarity {
    /// The cosine of the angle between them, −1 to 1; 0 if one of both is all zeros.
    #[default]
    Cosine,
    /// The sum of the products.
    Dot,
    /// The distance, negative.
    Euclidean,
    /// The sum of the absolute differences, negative.
    Manhattan,
}

impl Similarity {
    /// All of them, with the name in sentence-transformers and what it means.
    pub const ALL: [(Similarity, &'static str, &'static str); 4] = [
        (Similarity::Cosine, "cosine", "The cosine of the angle between them"),
        (Similarity::Dot, "dot", "The sum of the products"),
        (Similarity::Euclidean, "euclidean", "The distance, negative"),
        (Similarity::Manhattan, "manhattan", "The sum of the absolute differences, negative"),
    ];

    /// Its name in sentence-transformers.
    pub fn name(self) -> &'static str {
        Similarity::ALL.iter().find(|(similarity, ..)| *similarity == self).map_or("", |(_, name, _)| name)
    }

    /// The similarity of this name.
    pub fn named(name: &str) -> Option<Similarity> {
        Similarity::ALL.iter().find(|(_, known, _)| *known == name).map(|(similarity, ..)| *similarity)
    }

    /// The score of two vectors, which are of length 1 where it is the cosine that counts.
    fn score(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Similarity::Cosine | Similarity::Dot => dot(a, b),
            // From zero, so that equal vectors have a score without a sign.
            Similarity::Euclidean => 0.0 - sum_of_pairs(a, b, |a, b| (a - b) * (a - b)).sqrt(),
            Similarity::Manhattan => 0.0 - sum_of_pairs(a, b, |a, b| (a - b).abs()),
        }
    }
}

impl fmt::Display for Similarity {
    /// As the object of "compared by".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot product",
            Similarity::Euclidean => "negative Euclidean distance",
            Similarity::Manhattan => "negative Manhattan distance",
        })
    }
}

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// Its row, from 0.
    pub row: usize,
    /// Its [`Similarity`] to the query.
    pub score: f32,
}

/// Vectors to search among: all are compared, exactly.
pub struct Index {
    /// Of length 1 where it is the cosine that counts.
    vectors: Vectors,
    similarity: Similarity,
}

impl Index {
    /// Takes vectors of any length.
    pub fn new(vectors: Vectors, similarity: Similarity) -> Index {
        Index { vectors: prepared(vectors, similarity), similarity }
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// For each query its `top` nearest, nearest first, the lower row first among equals; `keep(query, row)` may leave some out.
    /// On `threads` threads; what is found does not depend on how many. Panics if the queries are of another width.
    pub fn nearest(
        &self,
        queries: Vectors,
        top: usize,
        threads: usize,
        keep: impl Fn(usize, usize) -> bool + Sync,
    ) -> Vec<Vec<Hit>> {
        assert_eq!(queries.width(), self.vectors.width(), "queries as wide as what is searched");
        let queries = prepared(queries, self.similarity);
        let rows: Vec<(usize, &[f32])> = queries.rows().enumerate().collect();
        parallel::map(&rows, threads, |&(number, query)| self.nearest_one(query, top, |row| keep(number, row)))
    }

    fn nearest_one(&self, query: &[f32], top: usize, keep: impl Fn(usize) -> bool) -> Vec<Hit> {
        let scored = self.vectors.rows().enumerate().filter(|&(row, _)| keep(row));
        let score = |vector: &[f32]| self.similarity.score(query, vector);
        let mut hits: Vec<Hit> = scored.map(|(row, vector)| Hit { row, score: score(vector) }).collect();
        let nearer = |a: &Hit, b: &Hit| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row));
        if top < hits.len() {
            if top > 0 {
                hits.select_nth_unstable_by(top - 1, nearer);
            }
            hits.truncate(top);
        }
        hits.sort_unstable_by(nearer);
        hits
    }
}

/// Vectors in the form whose [`Similarity::score`] is computed.
fn prepared(vectors: Vectors, similarity: Similarity) -> Vectors {
    if similarity == Similarity::Cosine { vectors.normalized() } else { vectors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_whatever_their_length() {
        let vectors = Vectors::new(2, vec![0.0, 3.0, 5.0, 5.0, -1.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 1.0]);
        let index = Index::new(vectors, Similarity::Cosine);
        let query = || Vectors::new(2, vec![0.0, 2.0, 7.0, 0.0]);
        let found = index.nearest(query(), 10, 2, |_, _| true);
        let rows: Vec<Vec<usize>> = found.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect();
        // Row 3 is all zeros, row 0 and row 5 point the same way.
        assert_eq!(rows, [[0, 5, 1, 2, 3, 4], [4, 1, 0, 3, 5, 2]]);
        let half = 0.5f32.sqrt();
        for (hit, expected) in found[0].iter().zip([1.0, 1.0, half, 0.0, 0.0, 0.0]) {
            assert!((hit.score - expected).abs() < 1e-6, "{hit:?}");
        }
        assert_eq!(
            index.nearest(query(), 2, 1, |_, _| true),
            found.iter().map(|f| f[..2].to_vec()).collect::<Vec<_>>()
        );
        assert_eq!(index.nearest(query(), 0, 1, |_, _| true), [[], []]);
        let kept = index.nearest(query(), 1, 3, |query, row| query != 0 || row != 0);
        assert_eq!([kept[0][0].row, kept[1][0].row], [5, 4]);
    }

    #[test]
    fn each_similarity_ranks_in_its_own_way() {
        let order = |similarity: Similarity| -> Vec<usize> {
            let vectors = Vectors::new(2, vec![1.0, 1.0, 4.0, 0.5, 0.0, 2.0]);
            let hits = Index::new(vectors, similarity).nearest(Vectors::new(2, vec![1.0, 0.9]), 3, 1, |_, _| true);
            hits[0].iter().map(|hit| hit.row).collect()
        };
        assert_eq!(order(Similarity::Cosine), [0, 1, 2]);
        assert_eq!(order(Similarity::Dot), [1, 0, 2]);
        assert_eq!(order(Similarity::Euclidean), [0, 2, 1]);
        let same = Index::new(Vectors::new(1, vec![3.0]), Similarity::Manhattan);
        let hit = same.nearest(Vectors::new(1, vec![3.0]), 1, 1, |_, _| true)[0][0];
        assert!(hit.score == 0.0 && hit.score.is_sign_positive(), "{hit:?}");
    }
}
