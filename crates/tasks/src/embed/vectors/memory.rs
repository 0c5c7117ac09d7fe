//! Vectors in memory.

use crate::embed::arithmetic::normalize;

/// Rows of equally many f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    width: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// Rows end to end; panics unless they fill whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Vectors {
        assert!(width > 0 && values.len().is_multiple_of(width), "{} numbers in rows of {width}", values.len());
        Vectors { width, values }
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each row in turn.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    /// All rows, end to end.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Appends rows; panics if they are of another width.
    pub fn append(&mut self, other: Vectors) {
        assert_eq!(self.width, other.width, "rows of one width");
        self.values.extend(other.values);
    }

    /// Each row divided by its length; rows of zeros stay.
    pub fn normalized(mut self) -> Vectors {
        self.values.chunks_exact_mut(self.width).for_each(normalize);
        self
    }
}
