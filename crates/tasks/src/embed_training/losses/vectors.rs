//! Rows of embeddings, similarities of pairs of them, and their derivatives.

use super::{Compare, Distance};

/// The lower bound of a norm, as in PyTorch's `normalize`.
const MIN_NORM: f64 = 1e-12;
/// What PyTorch's `pairwise_distance` adds to each difference.
const DISTANCE_EPSILON: f64 = 1e-6;

/// A matrix of embeddings, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// D.
    pub width: usize,
    /// [N, D].
    pub values: &'a [f32],
}

impl<'a> Rows<'a> {
    /// Rows of this width. Panics if the values do not fill them.
    pub fn new(width: usize, values: &'a [f32]) -> Rows<'a> {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows of {width} numbers in {}", values.len());
        Rows { width, values }
    }

    /// The number of rows.
    pub fn count(&self) -> usize {
        self.values.len() / self.width
    }

    pub(super) fn row(&self, number: usize) -> &'a [f32] {
        &self.values[number * self.width..(number + 1) * self.width]
    }

    /// The first `kept` numbers of each row.
    pub(super) fn truncated(&self, kept: usize) -> Vec<f32> {
        assert!(kept <= self.width, "{kept} dimensions of {}", self.width);
        self.values.chunks_exact(self.width).flat_map(|row| &row[..kept]).copied().collect()
    }

    /// The rows divided by their norms, and the norms.
    pub(super) fn normalized(&self) -> (Vec<f32>, Vec<f64>) {
        let norms: Vec<f64> = self.values.chunks_exact(self.width).map(norm).collect();
        let rows = self.values.chunks_exact(self.width).zip(&norms);
        (rows.flat_map(|(row, norm)| row.iter().map(move |x| (f64::from(*x) / norm) as f32)).collect(), norms)
    }
}

/// Converts derivatives by normalised rows u = x/‖x‖ to those by x, in place: dx = (du − (du·u) u)/‖x‖.
pub(super) fn through_normalization(du: &mut [f32], u: &[f32], norms: &[f64], width: usize) {
    for ((du, u), norm) in du.chunks_exact_mut(width).zip(u.chunks_exact(width)).zip(norms) {
        let along = dot(du, u);
        du.iter_mut().zip(u).for_each(|(du, u)| *du = ((f64::from(*du) - along * f64::from(*u)) / norm) as f32);
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt().max(MIN_NORM)
}

impl Compare {
    /// The similarity of two embeddings.
    pub(super) fn similarity(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Compare::Dot => dot(a, b),
            Compare::Cosine => dot(a, b) / (norm(a) * norm(b)),
        }
    }

    /// Adds `factor` times the derivatives of the similarity by both embeddings.
    pub(super) fn add_derivative(self, [a, b]: [&[f32]; 2], factor: f64, da: &mut [f32], db: &mut [f32]) {
        let (scale, along_a, along_b) = match self {
            Compare::Dot => (factor, 0.0, 0.0),
            Compare::Cosine => {
                let (of_a, of_b) = (norm(a), norm(b));
                let cosine = dot(a, b) / (of_a * of_b);
                (factor / (of_a * of_b), factor * cosine / (of_a * of_a), factor * cosine / (of_b * of_b))
            }
        };
        for (((a, b), da), db) in a.iter().zip(b).zip(da).zip(db) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            *da += (scale * b - along_a * a) as f32;
            *db += (scale * a - along_b * b) as f32;
        }
    }
}

impl Distance {
    pub(super) fn of(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Distance::Cosine => 1.0 - Compare::Cosine.similarity(a, b),
            Distance::Euclidean => a.iter().zip(b).map(|(a, b)| difference(*a, *b).powi(2)).sum::<f64>().sqrt(),
        }
    }

    /// Adds `factor` times the derivatives of the distance by both embeddings.
    pub(super) fn add_derivative(self, [a, b]: [&[f32]; 2], factor: f64, da: &mut [f32], db: &mut [f32]) {
        match self {
            Distance::Cosine => Compare::Cosine.add_derivative([a, b], -factor, da, db),
            Distance::Euclidean => {
                let factor = factor / self.of(a, b);
                for (((a, b), da), db) in a.iter().zip(b).zip(da).zip(db) {
                    let d = (factor * difference(*a, *b)) as f32;
                    *da += d;
                    *db -= d;
                }
            }
        }
    }
}

fn difference(a: f32, b: f32) -> f64 {
    f64::from(a) - f64::from(b) + DISTANCE_EPSILON
}

/// A row of a matrix of derivatives.
pub(super) fn row_of(matrix: &mut [f32], width: usize, number: usize) -> &mut [f32] {
    &mut matrix[number * width..(number + 1) * width]
}
