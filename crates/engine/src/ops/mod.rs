//! The differentiable operations, one folder each: `mod.rs` contains the equations, the trait with both directions, the
//! public function and the check; `cpu.rs` contains the CPU implementation. The optimizer's step, `optimizer`,
//! sampling, `multinomial`, and the plain product, `matmul`, have only one direction.
//!
//! Dimensions in shapes: T tokens of a packed batch, S sequences, N heads, D head width, H hidden size, F feed-forward
//! size, V vocabulary size, M predicted tokens, C classes.

pub(crate) mod add;
pub(crate) mod add_norm;
pub(crate) mod attention;
pub(crate) mod binary_cross_entropy;
pub(crate) mod cast;
pub(crate) mod concat;
pub(crate) mod cosine_embedding_loss;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod embed;
pub(crate) mod glu;
pub(crate) mod index_select;
pub(crate) mod linear;
pub(crate) mod linear_cross_entropy;
pub(crate) mod linear_kl;
pub(crate) mod lstm;
pub(crate) mod matmul;
pub(crate) mod mse_loss;
pub(crate) mod multinomial;
pub(crate) mod normalize;
pub(crate) mod optimizer;
pub(crate) mod relation_kl;
pub(crate) mod rope;
pub(crate) mod scalar_mix;
pub(crate) mod segment_cross_entropy;
pub(crate) mod segment_mean;
pub(crate) mod segment_pool;
pub(crate) mod sum;

pub use add::add;
pub use add_norm::{Norm, add_norm};
pub use attention::{DistanceBias, Visible, attention, attention_queries};
pub use binary_cross_entropy::binary_cross_entropy;
pub use cast::cast;
pub use concat::concat;
pub use cosine_embedding_loss::cosine_embedding_loss;
pub use cross_entropy::{ClassLabels, cross_entropy};
pub use dropout::dropout;
pub use embed::{EmbedTables, embed};
pub use glu::glu;
pub use index_select::index_select;
pub use linear::{Activation, linear};
pub use linear_cross_entropy::linear_cross_entropy;
pub use linear_kl::{TargetLogits, linear_kl};
pub use lstm::{BiLstm, bilstm};
pub use matmul::matmul;
pub use mse_loss::mse_loss;
pub use multinomial::multinomial;
pub use normalize::normalize;
pub use relation_kl::relation_kl;
pub use rope::{Rotation, rope};
pub use scalar_mix::{MixWeights, scalar_mix};
pub use segment_cross_entropy::segment_cross_entropy;
pub use segment_mean::segment_mean;
pub use segment_pool::{segment_max, segment_sum};

/// A summed loss, and how often the prediction was correct.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LossSum {
    /// Σ of the losses of the predictions, each times its weight: −log p(label) in nats, or a squared error.
    pub sum: f64,
    /// Σ of the weights of the predictions: their number, unless classes are weighted.
    pub weight: f64,
    /// Number of predictions.
    pub count: usize,
    /// Number of predictions whose largest logit is that of the label, or that of the teacher; 0 for regression and distances.
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
    /// The weighted mean loss; 0 without predictions.
    pub fn mean(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }

    /// The fraction of correct predictions; 0 without predictions.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.count.max(1) as f64
    }
}

/// Asserts that `ends` increases strictly from 0 to `rows`, so that it describes non-empty segments of all rows.
pub(crate) fn assert_segments(op: &str, ends: &[i32], rows: usize) {
    let covers = ends.first() == Some(&0) && ends.last() == Some(&(rows as i32));
    assert!(covers && ends.is_sorted_by(|a, b| a < b), "{op}: segments {ends:?} of {rows} rows");
}

#[cfg(test)]
pub(crate) mod check;
