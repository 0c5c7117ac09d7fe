//! Vectors in memory.

use crate::embed::arithmetic::normalize;

/// A matrix of f32, whose rows are vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    width: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// Makes a matrix from row-major values. Panics unless their number is a multiple of `width`.
    pub fn new(width: usize, values: Vec<f32>) -> Vectors {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "expected a multiple of {width} numbers, found {}",
            values.len()
        );
        Vectors { width, values }
    }

    /// The number of dimensions of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// An iterator over the rows.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    /// All values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Appends rows. Panics if their number of dimensions is different.
    pub fn append(&mut self, other: Vectors) {
        assert_eq!(self.width, other.width, "expected rows with the same dimensions");
        self.values.extend(other.values);
    }

    /// The row with this number. Panics if there is no such row.
    pub fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..(number + 1) * self.width]
    }

    /// The rows with these numbers, in this order. Panics if there is no such row.
    pub fn select(&self, rows: &[usize]) -> Vectors {
        let row = |row: &usize| &self.values[row * self.width..(row + 1) * self.width];
        Vectors { width: self.width, values: rows.iter().flat_map(row).copied().collect() }
    }

    /// The first `width` dimensions of each row (Matryoshka embeddings, Kusupati et al. 2022); all, if there are not more.
    /// Panics for 0.
    pub fn truncated(&self, width: usize) -> Vectors {
        if width >= self.width {
            return self.clone();
        }
        Vectors::new(width, self.rows().flat_map(|row| &row[..width]).copied().collect())
    }

    /// Divides each row by its Euclidean norm; zero rows stay zero.
    pub fn normalized(mut self) -> Vectors {
        self.values.chunks_exact_mut(self.width).for_each(normalize);
        self
    }
}
