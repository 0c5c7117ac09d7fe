//! The masked-language-model loss: z = x Wᵀ + b over the vocabulary, ℓ = Σₘ log Σᵥ exp z\[m,v\] − z\[m,label\].
//!
//! Backward, with p = softmax(z): dz = scale (p − onehot(label)); dx = dz W; dW += dzᵀ x; db += Σ dz.
//!
//! The logits are never held: a block of words' logits is turned into gradients, and those into products, while it is in
//! cache. So the weights' gradients are added in the *forward* call: their scale is known by then.

mod cpu;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The decoder: the tied word embeddings [V, H] and the bias \[V\].
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    pub(crate) weight: ParamId,
    pub(crate) bias: ParamId,
}

/// The loss and, where gradients are given, all of its backward pass.
pub trait VocabLoss {
    /// x [M, H], labels \[M\] → the sum and scale · dx.
    fn vocab_loss(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        labels: &Tensor,
        train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>);
}

/// Cross-entropy of `labels` \[M\] under `x` [M, H] decoded by `weight` [V, H] and `bias` \[V\], summed; `scale` times its
/// gradient goes back. Panics on a label outside 0..V.
pub fn vocab_loss(
    pass: &mut Pass<'_>,
    x: &Var,
    weight: ParamId,
    bias: ParamId,
    labels: &Tensor,
    scale: f32,
) -> LossSum {
    let (device, params, decoder) = (pass.device().clone(), pass.parameters(), Decoder { weight, bias });
    let (vocab, weights) = (params.shape(weight)[0], params.values(weight).len());
    // The logits, and their exponentials' sum; to train, the logits once more and a product for either gradient.
    let products = if pass.is_recording() { 4 } else { 1 };
    let cost = Cost::new(products * 2 * x.value().shape()[0] * weights, products * 4 * weights + 2 * x.value().bytes());
    let train = pass.gradients().map(|grads| (grads, scale));
    let (loss, dx) = device.backend().vocab_loss(x.value(), params, decoder, labels, train);
    pass.lap(Label { op: "vocab_loss", width: vocab, forward: cost, backward: Cost::default() });
    if let Some(dx) = dx {
        pass.seed_gradient(x, dx);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_loss;

    #[test]
    fn vocab_loss_matches_its_oracle() {
        for (rows, hidden, vocab) in [(1, 1, 3), (33, 31, 99), (130, 16, 301)] {
            let labels: Vec<i32> = (0..rows).map(|r| ((r * 31 + 7) % vocab) as i32).collect();
            check_loss(
                "vocab_loss",
                &[&[rows, hidden]],
                &[("weight", &[vocab, hidden]), ("bias", &[vocab])],
                |pass, x, p, scale| {
                    let labels = pass.device().tensor_i32(&labels, &[rows]);
                    vocab_loss(pass, &x[0], p[0], p[1], &labels, scale)
                },
                |x, p| {
                    let row = |m: usize| -> f64 {
                        let z: Vec<f64> = (0..vocab)
                            .map(|v| {
                                (0..hidden).map(|h| x[0][m * hidden + h] * p[0][v * hidden + h]).sum::<f64>() + p[1][v]
                            })
                            .collect();
                        z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[labels[m] as usize]
                    };
                    (0..rows).map(row).sum()
                },
            );
        }
    }
}
