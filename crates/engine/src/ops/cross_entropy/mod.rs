//! Cross-entropy over a few classes: ℓ = Σₛ w\[label\] (log Σ_c exp z\[s,c\] − z\[s,label\]), with w = 1 unless classes
//! are weighted. For next-sentence prediction and classification.
//!
//! Backward: dz = scale w\[label\] (softmax(z) − onehot(label)).

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Pass, Tensor, Var};

/// Rows with this label do not count (PyTorch's `ignore_index`).
pub(crate) const IGNORED: i32 = -100;

/// The label of each row, and optional class weights.
#[derive(Clone, Copy, Debug)]
pub struct ClassLabels<'a> {
    /// \[S\] class indices; rows with −100 do not count.
    pub labels: &'a Tensor,
    /// The weight of each class; `None` for equal weights.
    pub weights: Option<&'a [f32]>,
}

impl<'a> From<&'a Tensor> for ClassLabels<'a> {
    fn from(labels: &'a Tensor) -> Self {
        ClassLabels { labels, weights: None }
    }
}

/// The loss and its gradient.
pub(crate) trait CrossEntropy {
    /// logits [S, C], labels \[S\] → the summed loss and scale · dz.
    fn cross_entropy(&self, logits: &Tensor, labels: ClassLabels<'_>, scale: f32) -> (LossSum, Tensor);
}

/// Summed cross-entropy of `logits` [S, C] with `labels` \[S\] over the rows whose label is not −100, each multiplied
/// by its class weight if given. The recorded gradient is multiplied by `scale`. Panics on a label outside 0..C.
pub fn cross_entropy<'a>(pass: &mut Pass<'_>, logits: &Var, labels: impl Into<ClassLabels<'a>>, scale: f32) -> LossSum {
    let (loss, gradient) = pass.device().backend().cross_entropy(logits.value(), labels.into(), scale);
    let none = Cost::default();
    pass.lap(Label { op: "cross_entropy", width: logits.value().shape()[1], forward: none, backward: none });
    pass.seed_gradient(logits, gradient);
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_loss, check_op, devices};
    use crate::ops::index_select;

    #[test]
    fn cross_entropy_matches_its_oracle() {
        for (rows, classes) in [(1, 2), (33, 5), (4, 1), (5, 70)] {
            let labels: Vec<i32> = (0..rows).map(|r| if r == 2 { -100 } else { (r * 7 % classes) as i32 }).collect();
            check_loss(
                "cross_entropy",
                &[&[rows, classes]],
                &[],
                |pass, z, _, scale| {
                    let labels = pass.device().tensor_i32(&labels, &[rows]);
                    cross_entropy(pass, &z[0], &labels, scale)
                },
                |z, _| {
                    z[0].chunks(classes)
                        .zip(&labels)
                        .filter(|(_, l)| **l >= 0)
                        .map(|(z, label)| z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[*label as usize])
                        .sum()
                },
            );
        }
    }

    #[test]
    fn weighted_cross_entropy_matches_its_oracle() {
        let (labels, weights) = ([0, 2, 1, -100, 2], [0.5, 2.0, 3.0]);
        check_loss(
            "cross_entropy, weighted",
            &[&[5, 3]],
            &[],
            |pass, z, _, scale| {
                let labels = &pass.device().tensor_i32(&labels, &[5]);
                let loss = cross_entropy(pass, &z[0], ClassLabels { labels, weights: Some(&weights) }, scale);
                assert_eq!((loss.count, loss.weight), (4, 8.5));
                loss
            },
            |z, _| {
                let row = |(z, label): (&[f64], &i32)| {
                    let label = *label as usize;
                    f64::from(weights[label]) * (z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[label])
                };
                z[0].chunks(3).zip(&labels).filter(|(_, l)| **l >= 0).map(row).sum()
            },
        );
    }

    #[test]
    fn accuracy_counts_the_largest_logits() {
        for device in devices() {
            let params = crate::Parameters::builder().build(&device, 0);
            let mut pass = Pass::inference(&device, &params, crate::DType::F32);
            let logits = pass.input(device.tensor_f32(&[1., 2., 3., 0., 5., 4., 6., 6., 6., 6.], &[5, 2]));
            // Of equal logits, the first is the prediction.
            let loss = cross_entropy(&mut pass, &logits, &device.tensor_i32(&[1, 1, -100, 0, 0], &[5]), 1.0);
            assert_eq!((loss.count, loss.correct), (4, 3), "{}", device.describe());
            // More classes than lanes of a warp, and logits whose exponentials are too large for f64.
            let labels = [40, 70, 5, 5];
            let mut logits = vec![0.0; 4 * 100];
            for (row, class) in [(0, 40), (1, 70), (2, 40), (2, 5), (3, 70)] {
                logits[row * 100 + class] = 1000.0;
            }
            let logits = pass.input(device.tensor_f32(&logits, &[4, 100]));
            let loss = cross_entropy(&mut pass, &logits, &device.tensor_i32(&labels, &[4]), 1.0);
            assert_eq!((loss.count, loss.correct), (4, 3), "{}", device.describe());
            assert!((loss.sum - 1000.0 - 2f64.ln()).abs() < 1e-9, "{}: {}", device.describe(), loss.sum);
        }
    }

    /// A loss over only some rows, after another op.
    #[test]
    fn index_select_passes_gradients_of_a_loss() {
        check_op(
            "index_select before a loss",
            &[&[4, 3]],
            &[],
            |pass, x, _| {
                let rows = pass.device().tensor_i32(&[2, 0], &[2]);
                index_select(pass, &x[0], &rows)
            },
            |x, _| [&x[0][6..9], &x[0][0..3]].concat(),
        );
    }
}
