//! Soft targets (Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2), fused with the linear layer
//! of the student: z = x Wᵀ + b over the vocabulary; with the teacher's logits u, p = softmax(z/T) and q = softmax(u/T),
//! ℓ = T² Σₘ KL(q\[m\] ‖ p\[m\]) = T² Σₘᵥ q (log q − log p).
//!
//! Backward: dz = scale T (p − q); dx = dz W; dW += dzᵀ x; db += Σ dz.
//!
//! Logits exist only for a chunk of rows at a time, the teacher's as well as the student's. As in `linear_cross_entropy`,
//! the gradients of the weights are added in the *forward* call.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use std::ops::Range;

use super::LossSum;
use super::linear_cross_entropy::Decoder;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// Computes the teacher's logits of a range of rows, [rows, V].
pub type TargetLogits<'a> = &'a mut dyn FnMut(Range<usize>) -> Tensor;

/// The loss and, if gradients are given, its complete backward pass.
pub(crate) trait LinearKl {
    /// x [M, H] → the summed loss and, with `train` (gradients to add to, and a scale), scale · dx. Calls `targets` for
    /// consecutive ranges of all rows.
    fn linear_kl(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        targets: TargetLogits<'_>,
        temperature: f32,
        train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>);
}

/// Summed KL divergence of the teacher's distribution and the student's at a temperature, times its square. The student's
/// logits are `x` [M, H] · `weight`ᵀ [V, H] + `bias` \[V\]. The recorded gradient is multiplied by `scale`. A row is
/// correct if both have the same largest logit.
pub fn linear_kl(
    pass: &mut Pass<'_>,
    x: &Var,
    [weight, bias]: [ParamId; 2],
    targets: TargetLogits<'_>,
    temperature: f32,
    scale: f32,
) -> LossSum {
    let (device, params, decoder) = (pass.device().clone(), pass.parameters(), Decoder { weight, bias });
    let (vocab, weights) = (params.shape(weight)[0], params.size(weight));
    // One product for the logits and, in training, one for either gradient.
    let rows = x.value().shape()[0];
    let products = if pass.is_recording() { 3 } else { 1 };
    let cost = Cost::new(products * 2 * rows * weights, products * 4 * (weights + rows * vocab));
    let train = pass.gradients().map(|grads| (grads, scale));
    let (loss, dx) = device.backend().linear_kl(x.value(), params, decoder, targets, temperature, train);
    pass.lap(Label { op: "linear_kl", width: vocab, forward: cost, backward: Cost::default() });
    if let Some(dx) = dx {
        pass.uses(&[weight, bias]);
        pass.seed_gradient(x, dx);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_loss, devices};
    use crate::{DType, Init};

    /// The last case has several chunks of rows.
    #[test]
    fn linear_kl_matches_its_oracle() {
        for (rows, hidden, vocab, temperature) in
            [(1, 1, 3, 1.0), (33, 31, 99, 2.0), (70, 16, 301, 0.5), (3, 8, 4104, 2.0)]
        {
            // Exact in bf16.
            let target = |m: usize, v: usize| ((m * 31 + v * 7) % 29) as f32 / 8.0;
            check_loss(
                "linear_kl",
                &[&[rows, hidden]],
                &[("weight", &[vocab, hidden]), ("bias", &[vocab])],
                |pass, x, p, scale| {
                    let device = pass.device().clone();
                    let mut targets = |range: Range<usize>| {
                        let logits: Vec<f32> =
                            range.clone().flat_map(|m| (0..vocab).map(move |v| target(m, v))).collect();
                        device.tensor_f32(&logits, &[range.len(), vocab])
                    };
                    linear_kl(pass, &x[0], [p[0], p[1]], &mut targets, temperature, scale)
                },
                |x, p| {
                    let t = f64::from(temperature);
                    let row = |m: usize| -> f64 {
                        let log_softmax = |logits: Vec<f64>| {
                            let sum = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
                            logits.into_iter().map(move |z| z - sum)
                        };
                        let z = |v: usize| {
                            (0..hidden).map(|h| x[0][m * hidden + h] * p[0][v * hidden + h]).sum::<f64>() + p[1][v]
                        };
                        let log_p = log_softmax((0..vocab).map(|v| z(v) / t).collect());
                        let log_q = log_softmax((0..vocab).map(|v| f64::from(target(m, v)) / t).collect());
                        log_q.zip(log_p).map(|(q, p)| q.exp() * (q - p)).sum()
                    };
                    t * t * (0..rows).map(row).sum::<f64>()
                },
            );
        }
    }

    /// A row is correct if the student's logit is largest where the teacher's is: at the first such word.
    #[test]
    fn accuracy_compares_the_largest_logits() {
        for device in devices() {
            let mut builder = Parameters::builder();
            let weight = builder.declare("weight", &[8, 1], Init::Zeros, true);
            let bias = builder.declare("bias", &[8], Init::Zeros, true);
            let mut params = builder.build(&device, 0);
            params.write(weight, &[0.0, 1.0, 2.0, 3.0, 3.0, 0.0, 0.0, 0.0]);
            for (dtype, target_dtype) in [
                (DType::F32, DType::F32),
                (DType::BF16, DType::F32),
                (DType::F32, DType::BF16),
                (DType::BF16, DType::BF16),
            ] {
                let mut pass = Pass::inference(&device, &params, dtype);
                let x = device.backend().cast(&device.tensor_f32(&[1.0; 4], &[4, 1]), dtype);
                let x = pass.input(x);
                let mut teacher = vec![0.0; 4 * 8];
                // The largest is word 4; words 2 and 3, of which the first counts; word 3; word 0.
                for (row, word) in [(0, 4), (1, 2), (1, 3), (2, 3), (3, 0)] {
                    teacher[row * 8 + word] = 2.0;
                }
                let teacher = device.backend().cast(&device.tensor_f32(&teacher, &[4, 8]), target_dtype);
                let mut next = 0;
                let mut targets = |range: Range<usize>| {
                    assert_eq!(range.start, std::mem::replace(&mut next, range.end), "consecutive ranges");
                    assert_eq!(range, 0..4);
                    teacher.clone()
                };
                let loss = linear_kl(&mut pass, &x, [weight, bias], &mut targets, 1.0, 1.0);
                let context = format!("{}, {}, {}", device.describe(), dtype.name(), target_dtype.name());
                assert_eq!((loss.count, loss.weight, loss.correct), (4, 4.0, 2), "{context}");
            }
        }
    }
}
