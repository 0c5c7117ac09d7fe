//! The differentiable operations, a folder each: `mod.rs` holds the equations, the trait with both directions, the
//! public function and the check; `cpu.rs` the host's code. Of the optimizer's step, [`adamw`], there is one direction.
//!
//! Shapes are written with T tokens of a packed batch, S sequences, N heads, D head width, H hidden, F feed-forward,
//! V vocabulary, M predicted tokens, C classes.

pub mod adamw;
pub mod add_norm;
pub mod attention;
pub mod binary_cross_entropy;
pub mod class_loss;
pub mod concat;
pub mod dropout;
pub mod embed;
pub mod linear;
pub mod mean_rows;
pub mod position_loss;
pub mod square_loss;
pub mod sum;
pub mod take_rows;
pub mod vocab_loss;

pub use add_norm::{Norm, add_norm};
pub use attention::{attention, attention_of};
pub use binary_cross_entropy::binary_cross_entropy;
pub use class_loss::{ClassLabels, class_loss};
pub use concat::concat;
pub use dropout::dropout;
pub use embed::{EmbedTables, embed};
pub use linear::{Activation, linear};
pub use mean_rows::mean_rows;
pub use position_loss::position_loss;
pub use square_loss::square_loss;
pub use take_rows::take_rows;
pub use vocab_loss::vocab_loss;

/// A summed loss and how often the largest logit was the label.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LossSum {
    /// Σ of the predictions' losses, each times its weight: −log p(label) in nats, or a squared error.
    pub sum: f64,
    /// Σ of the predictions' weights: their number unless classes are weighted.
    pub weight: f64,
    /// Number of predictions.
    pub count: usize,
    /// Predictions whose largest logit is the label's; 0 for a regression.
    pub correct: usize,
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: LossSum) {
        self.sum += other.sum;
        self.weight += other.weight;
        self.count += other.count;
        self.correct += other.correct;
    }
}

impl LossSum {
    /// The (weighted) mean loss; 0 without predictions.
    pub fn mean(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }

    /// The share of correct predictions; 0 without predictions.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.count.max(1) as f64
    }
}

/// Segments of `rows` rows, none of them empty: their ends rise from 0 to `rows`. Anything else is a bug.
pub(crate) fn assert_segments(op: &str, ends: &[i32], rows: usize) {
    let covers = ends.first() == Some(&0) && ends.last() == Some(&(rows as i32));
    assert!(covers && ends.is_sorted_by(|a, b| a < b), "{op}: segments {ends:?} of {rows} rows");
}

#[cfg(test)]
pub(crate) mod check;
