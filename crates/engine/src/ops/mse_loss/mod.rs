//! Squared error: ℓ = Σ (z − t)². For regression (`MSELoss`). A target of NaN is not known and contributes nothing.
//!
//! Backward: dz = 2 scale (z − t).

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Pass, Tensor, Var};

/// The loss and its gradient.
pub(crate) trait MseLoss {
    /// z [R, C], targets [R, C] (f32) → the sum over all elements, and scale · dz.
    fn mse_loss(&self, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor);
}

/// Summed squared error of `z` [R, C] and `targets` [R, C] (f32). The recorded gradient is multiplied by `scale`.
pub fn mse_loss(pass: &mut Pass<'_>, z: &Var, targets: &Tensor, scale: f32) -> LossSum {
    let (loss, gradient) = pass.device().backend().mse_loss(z.value(), targets, scale);
    let none = Cost::default();
    pass.lap(Label { op: "mse_loss", width: z.value().shape()[1], forward: none, backward: none });
    pass.seed_gradient(z, gradient);
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_loss;

    #[test]
    fn mse_loss_matches_its_oracle() {
        for (rows, columns) in [(1, 1), (33, 1), (5, 3), (700, 3)] {
            let targets: Vec<f32> = (0..rows * columns).map(|i| (i * 7 % 11) as f32 / 8.0).collect();
            check_loss(
                "mse_loss",
                &[&[rows, columns]],
                &[],
                |pass, z, _, scale| {
                    let targets = pass.device().tensor_f32(&targets, &[rows, columns]);
                    mse_loss(pass, &z[0], &targets, scale)
                },
                |z, _| z[0].iter().zip(&targets).map(|(z, t)| (z - f64::from(*t)).powi(2)).sum(),
            );
        }
    }

    /// As in binary_cross_entropy: unknown and known targets in one batch.
    #[test]
    fn unknown_targets_have_no_loss_and_no_gradient() {
        let targets = [f32::NAN, 0.5, 2.0, f32::NAN];
        check_loss(
            "mse_loss",
            &[&[4, 1]],
            &[],
            |pass, z, _, scale| {
                let targets = pass.device().tensor_f32(&targets, &[4, 1]);
                let loss = mse_loss(pass, &z[0], &targets, scale);
                assert_eq!((loss.count, loss.weight), (2, 2.0));
                loss
            },
            |z, _| (z[0][1] - 0.5).powi(2) + (z[0][2] - 2.0).powi(2),
        );
    }
}
