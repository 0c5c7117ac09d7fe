use super::{MixWeights, ScalarMix};
use crate::cpu::Cpu;
use crate::cpu::arena::{gradient_sums, weights};
use crate::dtype::{Real, with_real};
use crate::{Gradients, Parameters, Tensor};

impl ScalarMix for Cpu {
    fn scalar_mix(&self, parts: &[Tensor], params: &Parameters, mix: MixWeights) -> Tensor {
        let (tokens, hidden) = parts[0].matrix("scalar_mix");
        let (shares, scale) = shares_and_scale(params, mix, parts.len());
        let mut y = Tensor::host(&[tokens, hidden], parts[0].dtype());
        with_real!(y.dtype(), E => {
            let mut sum = vec![0f32; hidden];
            for (token, y) in y.slice_mut::<E>().chunks_exact_mut(hidden).enumerate() {
                sum.fill(0.0);
                for (part, share) in parts.iter().zip(&shares) {
                    let x = &part.slice::<E>()[token * hidden..][..hidden];
                    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += share * x.to_f32());
                }
                y.iter_mut().zip(&sum).for_each(|(y, sum)| *y = E::from_f32(scale * sum));
            }
        });
        y
    }

    fn scalar_mix_backward(
        &self,
        dy: &Tensor,
        parts: &[(Tensor, bool)],
        params: &Parameters,
        mix: MixWeights,
        grads: &mut Gradients,
    ) -> Vec<Option<Tensor>> {
        let (tokens, hidden) = dy.matrix("scalar_mix_backward");
        let (shares, scale) = shares_and_scale(params, mix, parts.len());
        let products: Vec<f64> = with_real!(dy.dtype(), E => {
            let of_row = |(dy, x): (&[E], &[E])| dy.iter().zip(x).map(|(dy, x)| dy.to_f32() * x.to_f32()).sum::<f32>();
            let rows = |x: &'_ Tensor| -> f64 {
                let rows = dy.slice::<E>().chunks_exact(hidden).zip(x.slice::<E>().chunks_exact(hidden));
                rows.map(|row| f64::from(of_row(row))).sum()
            };
            parts.iter().map(|(x, _)| rows(x)).collect()
        });
        let mean: f64 = shares.iter().zip(&products).map(|(share, product)| f64::from(*share) * product).sum();
        gradient_sums(grads, params.range(mix.scale))[0] += mean as f32;
        let sums = gradient_sums(grads, params.range(mix.weights));
        for ((sum, share), product) in sums.iter_mut().zip(&shares).zip(&products) {
            *sum += scale * share * (product - mean) as f32;
        }
        let dx = |((_, is_needed), share): (&(Tensor, bool), &f32)| {
            is_needed.then(|| {
                let mut dx = Tensor::host(&[tokens, hidden], dy.dtype());
                with_real!(dy.dtype(), E => {
                    for (dx, dy) in dx.slice_mut::<E>().iter_mut().zip(dy.slice::<E>()) {
                        *dx = E::from_f32(scale * share * dy.to_f32());
                    }
                });
                dx
            })
        };
        parts.iter().zip(&shares).map(dx).collect()
    }
}

/// softmax(w) and γ.
fn shares_and_scale(params: &Parameters, mix: MixWeights, parts: usize) -> (Vec<f32>, f32) {
    let w = weights(params, mix.weights);
    assert_eq!(w.len(), parts, "scalar_mix: a weight for each part");
    let most = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = w.iter().map(|w| (w - most).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    (exponentials.into_iter().map(|e| e / sum).collect(), weights(params, mix.scale)[0])
}
