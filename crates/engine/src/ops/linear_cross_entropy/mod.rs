//! The masked-language-model loss, fused with its linear layer: z = x Wᵀ + b over the vocabulary, ℓ = Σₘ log Σᵥ exp
//! z\[m,v\] − z\[m,label\].
//!
//! Backward, with p = softmax(z): dz = scale (p − onehot(label)); dx = dz W; dW += dzᵀ x; db += Σ dz.
//!
//! The exponentials e = exp(z − a maximum) of a chunk of rows are stored until the sum of each row is known. Then e is
//! converted to dz and multiplied, a block of words at a time, while it is in cache. So the gradients of the weights
//! are added in the *forward* call, in which their scale is already known.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

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

/// The loss and, if gradients are given, its complete backward pass.
pub(crate) trait LinearCrossEntropy {
    /// x [M, H], labels \[M\] → the summed loss and, with `train` (gradients to add to, and a scale), scale · dx.
    fn linear_cross_entropy(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        labels: &Tensor,
        train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>);
}

/// Summed cross-entropy of `labels` \[M\] with the logits `x` [M, H] · `weight`ᵀ [V, H] + `bias` \[V\]. The recorded
/// gradient is multiplied by `scale`. Panics on a label outside 0..V.
pub fn linear_cross_entropy(
    pass: &mut Pass<'_>,
    x: &Var,
    weight: ParamId,
    bias: ParamId,
    labels: &Tensor,
    scale: f32,
) -> LossSum {
    let (device, params, decoder) = (pass.device().clone(), pass.parameters(), Decoder { weight, bias });
    let (vocab, weights) = (params.shape(weight)[0], params.size(weight));
    // The logits and the sums of their exponentials; in training also one product for either gradient, and writing and
    // reading the exponentials.
    let (rows, element) = (x.value().shape()[0], x.value().dtype().size());
    let (products, exponential_bytes) = if pass.is_recording() { (3, 2 * rows * vocab * element) } else { (1, 0) };
    let cost =
        Cost::new(products * 2 * rows * weights, products * 4 * weights + 2 * x.value().bytes() + exponential_bytes);
    let train = pass.gradients().map(|grads| (grads, scale));
    let (loss, dx) = device.backend().linear_cross_entropy(x.value(), params, decoder, labels, train);
    pass.lap(Label { op: "linear_cross_entropy", width: vocab, forward: cost, backward: Cost::default() });
    if let Some(dx) = dx {
        pass.uses(&[weight, bias]);
        pass.seed_gradient(x, dx);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::ops::check::{Numbers, Run, check_loss, devices, run};
    use crate::random::mix;

    #[test]
    fn linear_cross_entropy_matches_its_oracle() {
        for (rows, hidden, vocab) in [(1, 1, 3), (33, 31, 99), (130, 16, 301), (40, 8, 520)] {
            let labels: Vec<i32> = (0..rows).map(|r| ((r * 31 + 7) % vocab) as i32).collect();
            check_loss(
                "linear_cross_entropy",
                &[&[rows, hidden]],
                &[("weight", &[vocab, hidden]), ("bias", &[vocab])],
                |pass, x, p, scale| {
                    let labels = pass.device().tensor_i32(&labels, &[rows]);
                    linear_cross_entropy(pass, &x[0], p[0], p[1], &labels, scale)
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

    /// More rows than a chunk and more words than a block: compares the gradients with plain sums in f64.
    #[test]
    fn chunks_of_rows_and_blocks_of_words_add_up() {
        check_chunks::<530, 70_001>(&crate::Device::all_for_tests(), [1e-5, 5e-3]);
    }

    /// On a GPU, tests have smaller chunks; and f32 sums are over all words, not over blocks.
    #[test]
    fn chunks_of_rows_add_up_on_gpus() {
        let is_gpu = |device: &crate::Device| device.backend().instruction_set() == "cuda";
        let gpus: Vec<_> = devices().into_iter().filter(is_gpu).collect();
        check_chunks::<75, 9_001>(&gpus, [5e-5, 5e-3]);
    }

    fn check_chunks<const ROWS: usize, const VOCAB: usize>(devices: &[crate::Device], bounds: [f64; 2]) {
        const HIDDEN: usize = 4;
        const SCALE: f32 = 0.5;
        // Exact in bf16.
        let values = |key: u64, count: usize| -> Vec<f64> {
            (0..count).map(|i| ((mix(key, i as u64) >> 40) % 255) as f64 / 64.0 - 2.0).collect()
        };
        let [x, weight, bias] = [(1, ROWS * HIDDEN), (2, VOCAB * HIDDEN), (3, VOCAB)].map(|(key, n)| values(key, n));
        let labels: Vec<i32> = (0..ROWS).map(|m| (m * 7919 % VOCAB) as i32).collect();
        let mut loss = 0.0;
        let mut expected = [vec![0.0; ROWS * HIDDEN], vec![0.0; VOCAB * HIDDEN], vec![0.0; VOCAB]];
        for (m, (x, label)) in x.chunks(HIDDEN).zip(&labels).enumerate() {
            let word = |v: usize| weight[v * HIDDEN..(v + 1) * HIDDEN].iter().zip(x);
            let z: Vec<f64> = (0..VOCAB).map(|v| word(v).map(|(w, x)| w * x).sum::<f64>() + bias[v]).collect();
            let sum = z.iter().map(|z| z.exp()).sum::<f64>();
            loss += sum.ln() - z[*label as usize];
            for (v, z) in z.iter().enumerate() {
                let dz = f64::from(SCALE) * (z.exp() / sum - f64::from(u8::from(v == *label as usize)));
                for (h, (w, x)) in word(v).enumerate() {
                    expected[0][m * HIDDEN + h] += dz * w;
                    expected[1][v * HIDDEN + h] += dz * x;
                }
                expected[2][v] += dz;
            }
        }
        let numbers = Numbers { inputs: vec![x], params: vec![weight, bias] };
        let op: Run<'_> = &|pass, x, p| {
            let labels = pass.device().tensor_i32(&labels, &[ROWS]);
            (None, Some(linear_cross_entropy(pass, &x[0], p[0], p[1], &labels, SCALE)))
        };
        let names: [(&str, &[usize]); 2] = [("weight", &[VOCAB, HIDDEN]), ("bias", &[VOCAB])];
        for device in devices {
            for (dtype, bound) in [DType::F32, DType::BF16].into_iter().zip(bounds) {
                let (found, gradients) = run(device, dtype, &[&[ROWS, HIDDEN]], &names, &numbers, &[], op);
                let context = format!("{}, {}", device.describe(), dtype.name());
                assert!((found[0] - loss).abs() < 1e-5 * loss, "{context}: loss {}, expected {loss}", found[0]);
                for (which, (found, expected)) in gradients.iter().zip(&expected).enumerate() {
                    let max = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
                    let error = found.iter().zip(expected).map(|(f, w)| (f - w).abs()).fold(0.0, f64::max);
                    assert_eq!(found.len(), expected.len(), "{context}: gradient {which}");
                    assert!(error < bound * max, "{context}: gradient {which} is off by {error}, maximum {max}");
                }
            }
        }
    }

    /// A label with the largest logit is correct, also if another word has the same.
    #[test]
    fn accuracy_counts_the_largest_logits() {
        for device in devices() {
            let mut builder = Parameters::builder();
            let weight = builder.declare("weight", &[3, 1], crate::Init::Zeros, true);
            let bias = builder.declare("bias", &[3], crate::Init::Zeros, true);
            let mut params = builder.build(&device, 0);
            params.write(weight, &[1.0, 2.0, 2.0]);
            params.write(bias, &[0.5, -0.5, -0.5]);
            for dtype in [DType::F32, DType::BF16] {
                let mut pass = Pass::inference(&device, &params, dtype);
                let x = device.backend().cast(&device.tensor_f32(&[1.0, 2.0, -1.0, 2.0], &[4, 1]), dtype);
                let x = pass.input(x);
                let labels = device.tensor_i32(&[2, 0, 0, 1], &[4]);
                let loss = linear_cross_entropy(&mut pass, &x, weight, bias, &labels, 1.0);
                let context = format!("{}, {}", device.describe(), dtype.name());
                assert_eq!((loss.count, loss.weight, loss.correct), (4, 4.0, 3), "{context}");
                let nll = |z: [f64; 3], label: usize| z.map(f64::exp).iter().sum::<f64>().ln() - z[label];
                let expected = nll([1.5, 1.5, 1.5], 2)
                    + nll([2.5, 3.5, 3.5], 0)
                    + nll([-0.5, -2.5, -2.5], 0)
                    + nll([2.5, 3.5, 3.5], 1);
                assert!((loss.sum - expected).abs() < 1e-5, "{context}: {}, expected {expected}", loss.sum);
            }
        }
    }
}
