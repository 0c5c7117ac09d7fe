//! Exact search for the vectors nearest to queries.
//!
//! The vectors of an index pass in blocks of 8,192, once for all queries, from memory or from a mapped file. A block of
//! vectors is compared with blocks of 1,024 queries: cosines and dot products of many queries are matrix
//! products, everything else is a loop. Of the scores only the best of each query are kept, so that one million queries in one
//! million vectors need the memory of 1,024 · 8,192 scores.

mod best;
mod binary;

use std::fmt;
use std::ops::Range;

use cloze_engine::{Device, ops};

use super::arithmetic::{dot, inverse_norm, normalize, sum_of_pairs};
use super::vectors::{Element, StoredMatrix, Vectors};
use crate::{TaskError, parallel};
use best::Best;
pub use binary::BinaryIndex;

/// Vectors that are compared at a time.
const BLOCK_ROWS: usize = 8192;
/// Queries that are compared at a time.
const BLOCK_QUERIES: usize = 1024;
/// Fewer queries are compared in a loop: packing the vectors for a matrix product would take longer.
const FEW_QUERIES: usize = 8;

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

    /// Whether scores are dot products.
    fn is_product(self) -> bool {
        matches!(self, Similarity::Cosine | Similarity::Dot)
    }

    /// The similarity of two vectors, which must have norm 1 for the cosine.
    fn score(self, a: &[f32], b: &[f32]) -> f32 {
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
    rows: Rows,
    similarity: Similarity,
    /// For the cosine, one over the norm of each vector; else empty.
    scales: Vec<f32>,
}

/// Where the vectors are, with any norms.
enum Rows {
    Memory(Vectors),
    Stored(StoredMatrix),
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Rows::Memory(vectors) => vectors.len(),
            Rows::Stored(matrix) => matrix.rows(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Rows::Memory(vectors) => vectors.width(),
            Rows::Stored(matrix) => matrix.columns(),
        }
    }

    /// Some rows, borrowed or in `buffer`.
    fn values<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Rows::Memory(vectors) => &vectors.values()[rows.start * vectors.width()..rows.end * vectors.width()],
            Rows::Stored(matrix) => matrix.values(rows, buffer),
        }
    }

    /// One over the norm of each vector; NaN for vectors that are not finite.
    fn scales(&self, threads: usize) -> Vec<f32> {
        let of_block = |rows: &Range<usize>| -> Vec<f32> {
            self.values(rows.clone(), &mut Vec::new()).chunks_exact(self.width()).map(inverse_norm).collect()
        };
        parallel::map(&blocks(self.len(), BLOCK_ROWS), threads, of_block).concat()
    }
}

/// Consecutive ranges of up to `most` numbers from 0 to `count`.
fn blocks(count: usize, most: usize) -> Vec<Range<usize>> {
    (0..count).step_by(most).map(|start| start..count.min(start + most)).collect()
}

impl Index {
    /// Makes an index of vectors with any norms.
    pub fn new(vectors: Vectors, similarity: Similarity) -> Index {
        let rows = Rows::Memory(vectors);
        let scales = if similarity == Similarity::Cosine { rows.scales(1) } else { Vec::new() };
        Index { rows, similarity, scales }
    }

    /// Makes an index of the vectors in a file, which is read in blocks at each search. Quantized vectors are compared as
    /// the numbers that their bytes stand for. All vectors are read once, to check them.
    ///
    /// # Errors
    /// [`TaskError::File`] for vectors that are not finite, and for bytes without ranges.
    pub fn of_stored(matrix: StoredMatrix, similarity: Similarity, threads: usize) -> Result<Index, TaskError> {
        if matrix.element() != Element::F32 && matrix.ranges().is_none() {
            let problem = format!(
                "expected the ranges of its dimensions as tensor \"ranges\", for a .npy file in {}; `cloze embed` writes them",
                crate::embed::vectors::ranges_path(matrix.path()).display()
            );
            return Err(TaskError::file(matrix.path(), problem));
        }
        let rows = Rows::Stored(matrix);
        let mut scales = rows.scales(threads);
        if let (Some(row), Rows::Stored(matrix)) = (scales.iter().position(|scale| scale.is_nan()), &rows) {
            let problem = format!(
                "contains NaN or infinite values, the first in row {}; compute the vectors again with `cloze embed`",
                row + 1
            );
            return Err(TaskError::file(matrix.path(), problem));
        }
        if similarity != Similarity::Cosine {
            scales = Vec::new();
        }
        Ok(Index { rows, similarity, scales })
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of dimensions.
    pub fn width(&self) -> usize {
        self.rows.width()
    }

    /// The similarity function.
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// For each query, its `top` nearest vectors in descending order of similarity, ties in the order of rows. Vectors
    /// for which `keep(query, row)` is false are excluded. The result does not depend on the number of threads. Panics
    /// if the queries have a different number of dimensions.
    pub fn nearest(
        &self,
        device: &Device,
        queries: Vectors,
        top: usize,
        keep: impl Fn(usize, usize) -> bool + Sync,
    ) -> Vec<Vec<Hit>> {
        self.nearest_reporting(device, queries, top, keep, &mut |_| ())
    }

    /// As [`nearest`](Self::nearest). `progress` receives the completed fraction.
    pub fn nearest_reporting(
        &self,
        device: &Device,
        queries: Vectors,
        top: usize,
        keep: impl Fn(usize, usize) -> bool + Sync,
        progress: &mut dyn FnMut(f64),
    ) -> Vec<Vec<Hit>> {
        assert_eq!(queries.width(), self.width(), "expected queries with the dimensions of the index");
        assert!(u32::try_from(self.len()).is_ok(), "an index has less than 2³² vectors");
        let queries = if self.similarity == Similarity::Cosine { queries.normalized() } else { queries };
        let threads = device.threads();
        let mut best: Vec<Best> = (0..queries.len()).map(|_| Best::new(top)).collect();
        let (row_blocks, query_blocks) = (blocks(self.len(), BLOCK_ROWS), blocks(queries.len(), BLOCK_QUERIES));
        let (steps, mut done) = (row_blocks.len() * query_blocks.len(), 0);
        let mut buffer = Vec::new();
        for rows in row_blocks {
            let first = rows.start;
            let scales = self.scales.get(rows.clone()).unwrap_or_default();
            let values = self.rows.values(rows.clone(), &mut buffer);
            let block = Block { first, values, scales, similarity: self.similarity };
            let as_matrix = self.similarity.is_product() && queries.len() >= FEW_QUERIES;
            let matrix =
                as_matrix.then(|| device.tensor_f32(&block.unit_vectors(self.width()), &[rows.len(), self.width()]));
            for part in &query_blocks {
                let asked = &queries.values()[part.start * self.width()..part.end * self.width()];
                let (best, keep) = (&mut best[part.clone()], |query: usize, row| keep(part.start + query, row));
                match &matrix {
                    Some(matrix) => {
                        let asked = device.tensor_f32(asked, &[part.len(), self.width()]);
                        let scores = ops::matmul(device, &asked, matrix, [false, true]);
                        let scores = scores.values_f32();
                        parallel::for_each_mut(best, threads, |query, best| {
                            let scores = &scores[query * rows.len()..(query + 1) * rows.len()];
                            best.offer(scores, first, |row| keep(query, row));
                        });
                    }
                    None => block.offer_each(asked, best, threads, keep),
                }
                done += 1;
                progress(done as f64 / steps as f64);
            }
        }
        best.into_iter().map(Best::into_hits).collect()
    }

    /// The similarities of each query to the vectors in these rows. Panics if there is no such row, and unless there is one list
    /// of rows for each query.
    pub fn scores(&self, queries: &Vectors, rows: &[Vec<usize>], threads: usize) -> Vec<Vec<f32>> {
        assert_eq!(
            (queries.len(), queries.width()),
            (rows.len(), self.width()),
            "expected one list of rows for each query, and queries with the dimensions of the index"
        );
        let pairs: Vec<(&[f32], &[usize])> = queries.rows().zip(rows.iter().map(Vec::as_slice)).collect();
        parallel::map(&pairs, threads, |(query, rows)| {
            let mut query = query.to_vec();
            if self.similarity == Similarity::Cosine {
                normalize(&mut query);
            }
            let mut buffer = Vec::new();
            let mut score = |row: usize| {
                let score = self.similarity.score(&query, self.rows.values(row..row + 1, &mut buffer));
                score * self.scales.get(row).unwrap_or(&1.0)
            };
            rows.iter().map(|&row| score(row)).collect()
        })
    }

    /// The `top` best of the hits that another index found for a query, with the scores of this index. Panics if it does not
    /// have their rows, or has a different number of dimensions.
    pub fn rescored(&self, query: &[f32], hits: &[Hit], top: usize) -> Vec<Hit> {
        let rows: Vec<usize> = hits.iter().map(|hit| hit.row).collect();
        let scores = self.scores(&Vectors::new(query.len(), query.to_vec()), std::slice::from_ref(&rows), 1);
        let hits = rows.into_iter().zip(scores.into_iter().flatten()).map(|(row, score)| Hit { row, score });
        sorted(hits.collect(), top)
    }
}

/// The `top` best in descending order of scores, ties in the order of rows.
fn sorted(mut hits: Vec<Hit>, top: usize) -> Vec<Hit> {
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    hits.truncate(top);
    hits
}

/// Some consecutive vectors of an index.
struct Block<'a> {
    /// The row of the first.
    first: usize,
    values: &'a [f32],
    /// One over the norm of each, or empty.
    scales: &'a [f32],
    similarity: Similarity,
}

impl Block<'_> {
    /// The vectors, with norm 1 for the cosine.
    fn unit_vectors(&self, width: usize) -> std::borrow::Cow<'_, [f32]> {
        if self.scales.is_empty() {
            return self.values.into();
        }
        let rows = self.values.chunks_exact(width).zip(self.scales);
        let mut scaled = Vec::with_capacity(self.values.len());
        rows.for_each(|(row, scale)| scaled.extend(row.iter().map(|x| x * scale)));
        scaled.into()
    }

    /// The scores of these vectors for a query. `part` are indices in the block.
    fn scores(&self, query: &[f32], part: Range<usize>) -> Vec<f32> {
        let vectors = self.values[part.start * query.len()..part.end * query.len()].chunks_exact(query.len());
        let mut scores: Vec<f32> = vectors.map(|vector| self.similarity.score(query, vector)).collect();
        if !self.scales.is_empty() {
            scores.iter_mut().zip(&self.scales[part]).for_each(|(score, scale)| *score *= scale);
        }
        scores
    }

    /// Offers the scores of all vectors for each query: in parallel over queries or, if they are few, over vectors.
    fn offer_each(
        &self,
        queries: &[f32],
        best: &mut [Best],
        threads: usize,
        keep: impl Fn(usize, usize) -> bool + Sync,
    ) {
        let width = queries.len() / best.len();
        let count = self.values.len() / width;
        let query = |number: usize| &queries[number * width..(number + 1) * width];
        if best.len() >= threads.max(FEW_QUERIES) {
            return parallel::for_each_mut(best, threads, |number, best| {
                best.offer(&self.scores(query(number), 0..count), self.first, |row| keep(number, row));
            });
        }
        for (number, best) in best.iter_mut().enumerate() {
            let parts = blocks(count, count.div_ceil(threads.max(1)).max(1));
            let scores = parallel::map(&parts, threads, |part| self.scores(query(number), part.clone())).concat();
            best.offer(&scores, self.first, |row| keep(number, row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_for_any_norms() {
        let vectors = Vectors::new(2, vec![0.0, 3.0, 5.0, 5.0, -1.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 1.0]);
        let index = Index::new(vectors, Similarity::Cosine);
        let query = || Vectors::new(2, vec![0.0, 2.0, 7.0, 0.0]);
        let [one, two, three] = [1, 2, 3].map(|threads| Device::cpu(Some(threads)).unwrap());
        let found = index.nearest(&two, query(), 10, |_, _| true);
        let rows: Vec<Vec<usize>> = found.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect();
        // Row 3 is zero; rows 0 and 5 have the same direction.
        assert_eq!(rows, [[0, 5, 1, 2, 3, 4], [4, 1, 0, 3, 5, 2]]);
        let half = 0.5f32.sqrt();
        for (hit, expected) in found[0].iter().zip([1.0, 1.0, half, 0.0, 0.0, 0.0]) {
            assert!((hit.score - expected).abs() < 1e-6, "{hit:?}");
        }
        assert_eq!(
            index.nearest(&one, query(), 2, |_, _| true),
            found.iter().map(|f| f[..2].to_vec()).collect::<Vec<_>>()
        );
        assert_eq!(index.nearest(&one, query(), 0, |_, _| true), [[], []]);
        let kept = index.nearest(&three, query(), 1, |query, row| query != 0 || row != 0);
        assert_eq!([kept[0][0].row, kept[1][0].row], [5, 4]);
    }

    #[test]
    fn similarities_give_different_rankings() {
        let device = Device::cpu(Some(1)).unwrap();
        let order = |similarity: Similarity| -> Vec<usize> {
            let vectors = Vectors::new(2, vec![1.0, 1.0, 4.0, 0.5, 0.0, 2.0]);
            let query = Vectors::new(2, vec![1.0, 0.9]);
            let hits = Index::new(vectors, similarity).nearest(&device, query, 3, |_, _| true);
            hits[0].iter().map(|hit| hit.row).collect()
        };
        assert_eq!(order(Similarity::Cosine), [0, 1, 2]);
        assert_eq!(order(Similarity::Dot), [1, 0, 2]);
        assert_eq!(order(Similarity::Euclidean), [0, 2, 1]);
        let same = Index::new(Vectors::new(1, vec![3.0]), Similarity::Manhattan);
        let hit = same.nearest(&device, Vectors::new(1, vec![3.0]), 1, |_, _| true)[0][0];
        assert!(hit.score == 0.0 && hit.score.is_sign_positive(), "{hit:?}");
    }

    /// Vectors of small whole numbers, many of which have equal scores.
    fn made(count: usize, width: usize, seed: u64) -> Vectors {
        let number = |i: u64| ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 7) as f32 - 3.0;
        Vectors::new(width, (0..(count * width) as u64).map(|i| number(i + seed * 1_000_003)).collect())
    }

    /// The scores of all pairs in f64, sorted.
    fn plain(vectors: &Vectors, query: &[f32], similarity: Similarity) -> Vec<(f64, usize)> {
        let mut scores: Vec<(f64, usize)> = vectors
            .rows()
            .map(|vector| {
                let pairs = || vector.iter().zip(query).map(|(a, b)| (f64::from(*a), f64::from(*b)));
                let product = pairs().map(|(a, b)| a * b).sum::<f64>();
                let norms =
                    pairs().map(|(a, _)| a * a).sum::<f64>().sqrt() * pairs().map(|(_, b)| b * b).sum::<f64>().sqrt();
                match similarity {
                    Similarity::Cosine => product / norms.max(1e-12),
                    Similarity::Dot => product,
                    Similarity::Euclidean => -pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
                    Similarity::Manhattan => -pairs().map(|(a, b)| (a - b).abs()).sum::<f64>(),
                }
            })
            .zip(0..)
            .collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scores
    }

    /// Several blocks of vectors and of queries, products and loops, memory and file.
    #[test]
    fn blocks_give_the_scores_of_a_plain_loop() {
        let (count, width) = (BLOCK_ROWS + 300, 5);
        let vectors = made(count, width, 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let mut writer = crate::embed::vectors::Writer::create(&path, width).unwrap();
        writer.push(&vec![""; count], &vectors).unwrap();
        writer.finish().unwrap();
        let devices = [1, 3].map(|threads| Device::cpu(Some(threads)).unwrap());
        for (similarity, ..) in Similarity::ALL {
            let in_memory = Index::new(vectors.clone(), similarity);
            let stored = Index::of_stored(StoredMatrix::open(&path).unwrap(), similarity, 2).unwrap();
            for asked in [1, FEW_QUERIES - 1, FEW_QUERIES, BLOCK_QUERIES + 20] {
                if asked > FEW_QUERIES && !similarity.is_product() {
                    continue;
                }
                let queries = made(asked, width, 2);
                let keep = |query: usize, row: usize| row % 11 != query % 11;
                let found = in_memory.nearest(&devices[0], queries.clone(), 12, keep);
                for device in &devices {
                    assert_eq!(in_memory.nearest(device, queries.clone(), 12, keep), found, "{similarity}");
                    assert_eq!(stored.nearest(device, queries.clone(), 12, keep), found, "{similarity}, stored");
                }
                let rows: Vec<Vec<usize>> = found.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect();
                let again = stored.scores(&queries, &rows, 2);
                for (number, (query, hits)) in queries.rows().zip(&found).enumerate().step_by(97) {
                    let mut expected = plain(&vectors, query, similarity);
                    expected.retain(|(_, row)| keep(number, *row));
                    assert_eq!(hits.len(), 12);
                    for (place, (hit, expected)) in hits.iter().zip(&expected).enumerate() {
                        let what =
                            format!("{similarity}, query {number} of {asked}, place {place}: {hit:?} {expected:?}");
                        assert!((f64::from(hit.score) - expected.0).abs() < 1e-5, "{what}");
                        assert!((hit.score - again[number][place]).abs() < 1e-5, "{what}");
                        // Whole numbers are exact, so that equal scores are in the order of rows.
                        assert!(similarity != Similarity::Dot || hit.row == expected.1, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_vectors_are_in_the_order_of_rows_in_every_block() {
        let count = 2 * BLOCK_ROWS + 5;
        let vectors = Vectors::new(3, [0.3, -0.7, 0.11].repeat(count));
        let device = Device::cpu(Some(2)).unwrap();
        for asked in [1, FEW_QUERIES] {
            let queries = Vectors::new(3, [0.9, 0.2, -0.4].repeat(asked));
            for hits in Index::new(vectors.clone(), Similarity::Cosine).nearest(&device, queries, 40, |_, row| row != 1)
            {
                let rows: Vec<usize> = hits.iter().map(|hit| hit.row).collect();
                assert_eq!(rows, (0..41).filter(|row| *row != 1).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn progress_ends_at_1() {
        let (mut last, device) = (0.0, Device::cpu(Some(1)).unwrap());
        let index = Index::new(made(BLOCK_ROWS + 1, 2, 1), Similarity::Dot);
        index.nearest_reporting(&device, made(BLOCK_QUERIES + 1, 2, 2), 1, |_, _| true, &mut |share| {
            assert!(share > last && share <= 1.0);
            last = share;
        });
        assert_eq!(last, 1.0);
    }

    #[test]
    fn stored_vectors_that_are_not_finite_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let mut writer = crate::embed::vectors::Writer::create(&path, 2).unwrap();
        writer.push(&["", ""], &Vectors::new(2, vec![1.0, 2.0, f32::NAN, 0.0])).unwrap();
        writer.finish().unwrap();
        for (similarity, ..) in Similarity::ALL {
            let line = Index::of_stored(StoredMatrix::open(&path).unwrap(), similarity, 1).err().unwrap().to_string();
            assert!(line.contains("x.npy: contains NaN or infinite values, the first in row 2"), "{line}");
        }
    }
}
