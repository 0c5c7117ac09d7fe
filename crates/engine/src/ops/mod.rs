//! The differentiable operations, a folder each: `mod.rs` holds the equations, the trait with both directions, the
//! public function and the check; `cpu.rs` the host's code.
//!
//! Shapes are written with T tokens of a packed batch, S sequences, N heads, D head width, H hidden, F feed-forward,
//! V vocabulary, M predicted tokens, C classes.

pub mod add_norm;
pub mod attention;
pub mod class_loss;
pub mod dropout;
pub mod embed;
pub mod linear;
pub mod sum;
pub mod take_rows;
pub mod vocab_loss;

pub use add_norm::{Norm, add_norm};
pub use attention::attention;
pub use class_loss::class_loss;
pub use dropout::dropout;
pub use embed::{EmbedTables, embed};
pub use linear::{Activation, linear};
pub use take_rows::take_rows;
pub use vocab_loss::vocab_loss;

/// A summed cross-entropy and how often the largest logit was the label.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LossSum {
    /// Σ −log p(label), in nats.
    pub sum: f64,
    /// Number of predictions.
    pub count: usize,
    /// Predictions whose largest logit is the label's.
    pub correct: usize,
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: LossSum) {
        self.sum += other.sum;
        self.count += other.count;
        self.correct += other.correct;
    }
}

impl LossSum {
    /// The mean loss in nats; 0 without predictions.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The share of correct predictions; 0 without predictions.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.count.max(1) as f64
    }
}

#[cfg(test)]
pub(crate) mod check;
