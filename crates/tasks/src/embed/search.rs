//! The vectors nearest to a query, by cosine.

use super::vectors::Vectors;
use crate::parallel;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its row, from 0.
    pub row: usize,
    /// Cosine of the angle to the query, −1 to 1; 0 if one of both is all zeros.
    pub score: f32,
}

/// Vectors to search among: all are compared, exactly.
pub struct Index {
    /// Of length 1.
    vectors: Vectors,
}

impl Index {
    /// Takes vectors of any length.
    pub fn new(vectors: Vectors) -> Index {
        Index { vectors: vectors.normalized() }
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
        let queries = queries.normalized();
        let rows: Vec<(usize, &[f32])> = queries.rows().enumerate().collect();
        parallel::map(&rows, threads, |&(number, query)| self.nearest_one(query, top, |row| keep(number, row)))
    }

    fn nearest_one(&self, query: &[f32], top: usize, keep: impl Fn(usize) -> bool) -> Vec<Hit> {
        let scored = self.vectors.rows().enumerate().filter(|&(row, _)| keep(row));
        let mut hits: Vec<Hit> = scored.map(|(row, vector)| Hit { row, score: dot(query, vector) }).collect();
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

/// The products' sum, in sixteen partial sums, which a vector register can hold.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_whatever_their_length() {
        let index = Index::new(Vectors::new(2, vec![0.0, 3.0, 5.0, 5.0, -1.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 1.0]));
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
    fn sums_of_any_width_are_right() {
        for width in [1, 15, 16, 17, 384, 385] {
            let a: Vec<f32> = (0..width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let b: Vec<f32> = (0..width).map(|i| ((i * 53 % 97) as f32 - 48.0) / 48.0).collect();
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - expected).abs() < 1e-4, "{width}");
        }
    }
}
