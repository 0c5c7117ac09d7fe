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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::embed::search::{Index, Similarity};
    use crate::embed::vectors::{Precision, QuantizedWriter, Vectors};

    fn vectors(value: &Value) -> Vectors {
        let rows = value.as_array().unwrap();
        let numbers = rows.iter().flat_map(|row| row.as_array().unwrap());
        Vectors::new(rows[0].as_array().unwrap().len(), numbers.map(|x| x.as_f64().unwrap() as f32).collect())
    }

    /// Writes vectors with this precision, and maps them.
    fn stored(dir: &Path, vectors: &Vectors, precision: Precision) -> StoredMatrix {
        let path = dir.join(format!("{}.safetensors", precision.name()));
        let mut writer = QuantizedWriter::create(&path, vectors.width(), precision, None).unwrap();
        writer.push(vectors).unwrap();
        writer.finish().unwrap();
        StoredMatrix::open(&path).unwrap()
    }

    /// Results of sentence-transformers' semantic_search_faiss: see fixtures/embed/make_search.py.
    #[test]
    fn quantized_vectors_are_found_as_by_sentence_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/embed/quantized.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (all, queries) = (vectors(&file["vectors"]), vectors(&file["queries"]));
        let dir = tempfile::tempdir().unwrap();
        let matrix = |precision| stored(dir.path(), &all, precision);
        let bits = [Precision::Binary, Precision::Ubinary]
            .map(|precision| BinaryIndex::new(matrix(precision), all.width()).unwrap());
        let bytes = [Precision::Int8, Precision::Uint8]
            .map(|precision| Index::of_stored(matrix(precision), Similarity::Dot, 2).unwrap());
        let device = cloze_engine::Device::cpu(Some(2)).unwrap();
        let mut seen = 0;
        for search in file["searches"].as_array().unwrap() {
            let row = search["query"].as_u64().unwrap() as usize;
            let expected = search["hits"].as_array().unwrap();
            let (query, top) = (queries.row(row), expected.len());
            let found: Vec<Vec<Hit>> = if search["precision"] == "ubinary" {
                let candidates = top * search["multiplier"].as_u64().unwrap() as usize;
                bits.iter()
                    .flat_map(|index| [1, 3].map(|threads| index.nearest(query, top, candidates, threads, |_| true)))
                    .collect()
            } else {
                let query = || Vectors::new(query.len(), query.to_vec());
                bytes.iter().map(|index| index.nearest(&device, query(), top, |_, _| true).remove(0)).collect()
            };
            for hits in found {
                assert_eq!(hits.len(), top);
                for (hit, expected) in hits.iter().zip(expected) {
                    let (id, score) = (expected[0].as_u64().unwrap() as usize, expected[1].as_f64().unwrap());
                    assert!((f64::from(hit.score) - score).abs() < 1e-5, "{search}: {hits:?}");
                    // Rows 8 and 9 are equal.
                    assert!(hit.row == id || [hit.row, id] == [8, 9] || [hit.row, id] == [9, 8], "{search}: {hits:?}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn candidates_are_those_with_the_fewest_different_bits() {
        let dir = tempfile::tempdir().unwrap();
        // 70 dimensions: a word and a part of another.
        let number = |i: usize| ((i * 7919 + i / 70 * 31) % 13) as f32 - 6.0;
        let all = Vectors::new(70, (0..70 * 500).map(number).collect());
        let query: Vec<f32> = (0..70).map(|i| number(i * i + 5)).collect();
        let different = |row: &[f32]| row.iter().zip(&query).filter(|(a, b)| (**a > 0.0) != (**b > 0.0)).count();
        let mut expected: Vec<(usize, usize)> =
            all.rows().map(different).zip(0..).filter(|(_, row): &(usize, usize)| !row.is_multiple_of(7)).collect();
        expected.sort_unstable();
        let index = BinaryIndex::new(stored(dir.path(), &all, Precision::Binary), 70).unwrap();
        let mut found: Vec<usize> =
            index.nearest(&query, 40, 40, 2, |row| !row.is_multiple_of(7)).iter().map(|hit| hit.row).collect();
        let mut expected: Vec<usize> = expected[..40].iter().map(|(_, row)| *row).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        // The candidates with the scores of the vectors themselves.
        let exact = Index::new(all.clone(), Similarity::Dot);
        let rescored = exact.rescored(&query, &index.nearest(&query, 40, 40, 1, |_| true), 5);
        assert!(rescored.len() == 5 && rescored.is_sorted_by(|a, b| a.score >= b.score));
        for hit in rescored {
            let product: f32 = all.row(hit.row).iter().zip(&query).map(|(a, b)| a * b).sum();
            assert_eq!(hit.score, product);
        }
    }

    #[test]
    fn matrices_without_the_needed_bits_or_ranges_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let all = Vectors::new(9, (0..18).map(|i| i as f32 - 9.0).collect());
        let matrix = |precision| stored(dir.path(), &all, precision);
        let line = BinaryIndex::new(matrix(Precision::Ubinary), 17).err().unwrap().to_string();
        assert!(line.contains("expected 3 bytes for 17 bits in each row, found 2 numbers"), "{line}");
        let line = Index::of_stored(matrix(Precision::Binary), Similarity::Dot, 1).err().unwrap().to_string();
        assert!(line.contains("binary.safetensors: expected the ranges of its dimensions"), "{line}");
    }
}
