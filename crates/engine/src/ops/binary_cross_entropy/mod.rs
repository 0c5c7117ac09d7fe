//! Binary cross-entropy of independent logits: ℓ = Σ max(z, 0) − z t + log(1 + exp(−|z|)), over the targets that are
//! not NaN. For labels of which several may apply (PyTorch's `BCEWithLogitsLoss`, `reduction="sum"`).
//!
//! Backward: dz = scale (1 / (1 + exp(−z)) − t); 0 where the target is NaN.

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Pass, Tensor, Var};

/// The loss and its gradient.
pub(crate) trait BinaryCrossEntropy {
    /// z [R, C], targets [R, C] (f32, 0 to 1, or NaN) → the sum over the elements whose target is not NaN, and scale ·
    /// dz.
    fn binary_cross_entropy(&self, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor);
}

/// Summed binary cross-entropy of `z` [R, C] with `targets` [R, C] (f32, 0 to 1; elements with NaN do not count). The
/// recorded gradient is multiplied by `scale`. A prediction is correct if z > 0 and the target is at least 0.5, or z ≤
/// 0 and it is below.
pub fn binary_cross_entropy(pass: &mut Pass<'_>, z: &Var, targets: &Tensor, scale: f32) -> LossSum {
    let (loss, gradient) = pass.device().backend().binary_cross_entropy(z.value(), targets, scale);
    let none = Cost::default();
    pass.lap(Label { op: "binary_cross_entropy", width: z.value().shape()[1], forward: none, backward: none });
    pass.seed_gradient(z, gradient);
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_loss, devices};

    #[test]
    fn binary_cross_entropy_matches_its_oracle() {
        for (rows, columns) in [(1, 1), (33, 3), (5, 7), (700, 3)] {
            let target = |i: usize| match i * 7 % 5 {
                0 => f32::NAN,
                1 => 0.25,
                other => (other % 2) as f32,
            };
            let targets: Vec<f32> = (1..=rows * columns).map(target).collect();
            check_loss(
                "binary_cross_entropy",
                &[&[rows, columns]],
                &[],
                |pass, z, _, scale| {
                    let targets = pass.device().tensor_f32(&targets, &[rows, columns]);
                    binary_cross_entropy(pass, &z[0], &targets, scale)
                },
                |z, _| {
                    let known = z[0].iter().zip(&targets).filter(|(_, t)| !t.is_nan());
                    known
                        .map(|(z, t)| {
                            let (p, t) = (1.0 / (1.0 + (-z).exp()), f64::from(*t));
                            -t * p.ln() - (1.0 - t) * (1.0 - p).ln()
                        })
                        .sum()
                },
            );
        }
    }

    #[test]
    fn large_logits_are_finite_and_nan_targets_do_not_count() {
        for device in devices() {
            let params = crate::Parameters::builder().build(&device, 0);
            let mut pass = Pass::inference(&device, &params, crate::DType::F32);
            let logits = pass.input(device.tensor_f32(&[1000., -1000., 1000., 0.5, -2., 9.], &[2, 3]));
            let targets = device.tensor_f32(&[1., 0., 0., 1., 0., f32::NAN], &[2, 3]);
            let loss = binary_cross_entropy(&mut pass, &logits, &targets, 1.0);
            // 0 + 0 + 1000 + ln(1 + e^−0.5) + ln(1 + e^−2).
            let expected = 1000.0 + (-0.5f64).exp().ln_1p() + (-2f64).exp().ln_1p();
            let context = device.describe();
            assert!((loss.sum - expected).abs() < 1e-9, "{context}: {}", loss.sum);
            assert_eq!((loss.count, loss.weight, loss.correct), (5, 5.0, 4), "{context}");
        }
    }
}
