//! Exact search for the vectors nearest to a query.

use std::fmt;

use super::arithmetic::{dot, sum_of_pairs};
use super::vectors::Vectors;
use crate::parallel;

/// A similarity function of two vectors; larger values are more similar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Similarity {
    /// The cosine similarity, −1 to 1; 0 if either vector is zero.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// The negative Euclidean distance.
    Euclidean,
    /// The negative Manhattan distance.
    Manhattan,
}

impl Similarity {
    /// All similarity functions, with names (those of sentence-transformers) and descriptions.
    pub const ALL: [(Similarity, &'static str, &'static str); 4] = [
        (Similarity::Cosine, "cosine", "The cosine similarity"),
        (Similarity::Dot, "dot", "The dot product"),
        (Similarity::Euclidean, "euclidean", "The negative Euclidean distance"),
        (Similarity::Manhattan, "manhattan", "The negative Manhattan distance"),
    ];

    /// The name, as in sentence-transformers.
    pub fn name(self) -> &'static str {
        Similarity::ALL.iter().find(|(similarity, ..)| *similarity == self).map_or("", |(_, name, _)| name)
    }

    /// The similarity function with this name.
    pub fn named(name: &str) -> Option<Similarity> {
        Similarity::ALL.iter().find(|(_, known, _)| *known == name).map(|(similarity, ..)| *similarity)
    }

    /// The similarity of two vectors, which must have norm 1 for the cosine.
    pub(crate) fn score(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Similarity::Cosine | Similarity::Dot => dot(a, b),
            // Subtracted from 0, so that the score of equal vectors is 0 and not −0.
            Similarity::Euclidean => 0.0 - sum_of_pairs(a, b, |a, b| (a - b) * (a - b)).sqrt(),
            Similarity::Manhattan => 0.0 - sum_of_pairs(a, b, |a, b| (a - b).abs()),
        }
    }
}

impl fmt::Display for Similarity {
    /// A noun phrase, for "compared by …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot product",
            Similarity::Euclidean => "negative Euclidean distance",
            Similarity::Manhattan => "negative Manhattan distance",
        })
    }
}

/// A search result.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The row of the vector, from 0.
    pub row: usize,
    /// The [`Similarity`] to the query.
    pub score: f32,
}

/// An index of vectors for exact search: all vectors are compared.
pub struct Index {
    /// The vectors, with norm 1 for the cosine.
    vectors: Vectors,
    similarity: Similarity,
}

impl Index {
    /// Makes an index of vectors with any norms.
    pub fn new(vectors: Vectors, similarity: Similarity) -> Index {
        Index { vectors: prepared(vectors, similarity), similarity }
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// For each query, its `top` nearest vectors in descending order of similarity, ties in the order of rows. Vectors
    /// for which `keep(query, row)` is false are excluded. The result does not depend on the number of threads. Panics
    /// if the queries have a different number of dimensions.
    pub fn nearest(
        &self,
        queries: Vectors,
        top: usize,
        threads: usize,
        keep: impl Fn(usize, usize) -> bool + Sync,
    ) -> Vec<Vec<Hit>> {
        assert_eq!(queries.width(), self.vectors.width(), "expected queries with the dimensions of the index");
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

/// Vectors in the form that [`Similarity::score`] requires.
fn prepared(vectors: Vectors, similarity: Similarity) -> Vectors {
    if similarity == Similarity::Cosine { vectors.normalized() } else { vectors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_for_any_norms() {
        let vectors = Vectors::new(2, vec![0.0, 3.0, 5.0, 5.0, -1.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 1.0]);
        let index = Index::new(vectors, Similarity::Cosine);
        let query = || Vectors::new(2, vec![0.0, 2.0, 7.0, 0.0]);
        let found = index.nearest(query(), 10, 2, |_, _| true);
        let rows: Vec<Vec<usize>> = found.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect();
        // Row 3 is zero; rows 0 and 5 have the same direction.
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
    fn similarities_give_different_rankings() {
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
