//! Search among vectors of bits.

use std::ops::Range;

use super::best::Best;
use super::{BLOCK_ROWS, Hit, sorted};
use crate::embed::vectors::{Element, SIGN, StoredMatrix, pack_bits};

use crate::{TaskError, parallel};

/// An index of vectors that are stored as bits ([`Precision::Binary`](crate::embed::vectors::Precision::Binary) or
/// `Ubinary`).
///
/// As in `semantic_search_faiss` and `semantic_search_usearch` of sentence-transformers, the candidates are the vectors with the fewest
/// bits that differ from those of the query (Hamming distance, equal distances in the order of rows), and their score is the dot product
/// of the query's numbers with their bits, 0 or 1.
pub struct BinaryIndex {
    matrix: StoredMatrix,
    dimensions: usize,
}

impl BinaryIndex {
    /// Makes an index of vectors with this number of dimensions.
    ///
    /// # Errors
    /// [`TaskError::File`] if the matrix does not have a bit for each dimension.
    pub fn new(matrix: StoredMatrix, dimensions: usize) -> Result<BinaryIndex, TaskError> {
        if matrix.element() == Element::F32 || matrix.columns() != dimensions.div_ceil(8) {
            let (columns, expected) = (matrix.columns(), dimensions.div_ceil(8));
            let problem =
                format!("expected {expected} bytes for {dimensions} bits in each row, found {columns} numbers");
            return Err(TaskError::file(matrix.path(), problem));
        }
        Ok(BinaryIndex { matrix, dimensions })
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.matrix.rows()
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `top` best of the `candidates` nearest vectors, in descending order of scores, equal scores in the order of
    /// rows. Rows for which `keep(row)` is false are excluded. Panics if the query has a different number of
    /// dimensions.
    pub fn nearest(
        &self,
        query: &[f32],
        top: usize,
        candidates: usize,
        threads: usize,
        keep: impl Fn(usize) -> bool,
    ) -> Vec<Hit> {
        assert_eq!(query.len(), self.dimensions, "expected a query with the dimensions of the index");
        let mut bits = Vec::new();
        pack_bits(query, &mut bits);
        if self.matrix.element() == Element::I8 {
            bits.iter_mut().for_each(|byte| *byte ^= SIGN);
        }
        let mut best = Best::new(candidates);
        for start in (0..self.len()).step_by(BLOCK_ROWS * threads.max(1)) {
            let end = self.len().min(start + BLOCK_ROWS * threads.max(1));
            let parts: Vec<Range<usize>> =
                (start..end).step_by(BLOCK_ROWS).map(|start| start..end.min(start + BLOCK_ROWS)).collect();
            let scores = parallel::map(&parts, threads, |rows| {
                let rows = self.matrix.bytes(rows.clone()).chunks_exact(bits.len());
                rows.map(|row| -(distance(row, &bits) as f32)).collect::<Vec<f32>>()
            });
            best.offer(&scores.concat(), start, &keep);
        }
        let hits = best.into_hits().into_iter().map(|Hit { row, .. }| Hit { row, score: self.score(query, row) });
        sorted(hits.collect(), top)
    }

    /// The sum of the query's numbers whose bits are 1 in this row.
    fn score(&self, query: &[f32], row: usize) -> f32 {
        let offset = if self.matrix.element() == Element::I8 { SIGN } else { 0 };
        let bytes = self.matrix.bytes(row..row + 1);
        let is_set = |place: usize| (bytes[place / 8] ^ offset) >> (7 - place % 8) & 1 == 1;
        query.iter().enumerate().filter(|(place, _)| is_set(*place)).map(|(_, x)| f64::from(*x)).sum::<f64>() as f32
    }
}

/// The number of different bits.
fn distance(a: &[u8], b: &[u8]) -> u32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let words = a.iter().zip(b).map(|(a, b)| (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)).count_ones());
    words.sum::<u32>() + a_rest.iter().zip(b_rest).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>()
}
