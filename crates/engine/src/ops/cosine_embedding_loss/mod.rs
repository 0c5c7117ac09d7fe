//! Cosine distance from fixed vectors: ℓ = Σᵣ (1 − cos(x\[r\], t\[r\])), with cos(x, t) = x·t / √((x·x + ε)(t·t + ε)) and
//! ε = 1e-12, as PyTorch's `CosineEmbeddingLoss` with targets of 1. For the hidden states of a teacher (Sanh et al. 2019,
//! "DistilBERT", section 3).
//!
//! Backward: dx = scale (cos · x / (x·x + ε) − t / √((x·x + ε)(t·t + ε))).

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Pass, Tensor, Var};

/// The loss and its gradient.
pub(crate) trait CosineEmbeddingLoss {
    /// x [R, H], targets [R, H] of the same type → the sum over all rows, and scale · dx.
    fn cosine_embedding_loss(&self, x: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor);
}

/// Summed cosine distance of the rows of `x` [R, H] from those of `targets` [R, H], which has the same type. The recorded
/// gradient is multiplied by `scale`.
pub fn cosine_embedding_loss(pass: &mut Pass<'_>, x: &Var, targets: &Tensor, scale: f32) -> LossSum {
    let (loss, gradient) = pass.device().backend().cosine_embedding_loss(x.value(), targets, scale);
    let cost = Cost::new(10 * x.value().count(), 3 * x.value().bytes());
    let width = x.value().shape()[1];
    pass.lap(Label { op: "cosine_embedding_loss", width, forward: cost, backward: Cost::default() });
    pass.seed_gradient(x, gradient);
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::ops::check::check_loss;

    #[test]
    fn cosine_embedding_loss_matches_its_oracle() {
        for (rows, columns) in [(1, 3), (5, 16), (70, 37), (3, 320)] {
            // Exact in bf16.
            let targets: Vec<f32> = (0..rows * columns).map(|i| (i * 7 % 11) as f32 / 8.0 - 0.5).collect();
            check_loss(
                "cosine_embedding_loss",
                &[&[rows, columns]],
                &[],
                |pass, x, _, scale| {
                    let targets = pass.device().tensor_f32(&targets, &[rows, columns]);
                    let targets = match x[0].value().dtype() {
                        DType::BF16 => pass.device().backend().cast(&targets, DType::BF16),
                        _ => targets,
                    };
                    cosine_embedding_loss(pass, &x[0], &targets, scale)
                },
                |x, _| {
                    let rows = x[0].chunks(columns).zip(targets.chunks(columns));
                    let distance = |(x, t): (&[f64], &[f32])| {
                        let dot: f64 = x.iter().zip(t).map(|(x, t)| x * f64::from(*t)).sum();
                        let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>() + 1e-12;
                        let (x, t) = (squares(&mut x.iter().copied()), squares(&mut t.iter().map(|t| f64::from(*t))));
                        1.0 - dot / (x * t).sqrt()
                    };
                    rows.map(distance).sum()
                },
            );
        }
    }
}
