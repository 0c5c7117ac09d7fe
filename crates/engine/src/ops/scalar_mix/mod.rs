//! A weighted sum of hidden states with learned weights: ELMo's (Peters et al. 2018, equation 1), for "weighted sum" in
//! table 7 of Devlin et al. 2019.
//!
//! s = softmax(w); y = γ Σ_k s_k x_k.
//!
//! Backward, with d_k = Σ dy ⊙ x_k over all elements: dx_k = γ s_k dy; dγ += Σ_k s_k d_k;
//! dw_k += γ s_k (d_k − Σ_j s_j d_j).

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The parameters of a weighted sum of K matrices.
#[derive(Clone, Copy, Debug)]
pub struct MixWeights {
    /// w, \[K\].
    pub weights: ParamId,
    /// γ, \[1\].
    pub scale: ParamId,
}

/// The kernels of both directions.
pub(crate) trait ScalarMix {
    /// K parts x_k [T, H] → y [T, H].
    fn scalar_mix(&self, parts: &[Tensor], params: &Parameters, mix: MixWeights) -> Tensor;
    /// dy [T, H] → dx_k [T, H] of the parts that need it. Adds to the gradients of the parameters.
    fn scalar_mix_backward(
        &self,
        dy: &Tensor,
        parts: &[(Tensor, bool)],
        params: &Parameters,
        mix: MixWeights,
        grads: &mut Gradients,
    ) -> Vec<Option<Tensor>>;
}

/// The weighted sum of all `parts`, [T, H] each: [T, H].
pub fn scalar_mix(pass: &mut Pass<'_>, parts: &[Var], mix: MixWeights) -> Var {
    let values: Vec<Tensor> = parts.iter().map(|part| part.value().clone()).collect();
    let value = pass.device().backend().scalar_mix(&values, pass.parameters(), mix);
    let slots: Vec<_> = parts.iter().map(Var::slot).collect();
    let parts: Vec<(Tensor, bool)> =
        values.into_iter().zip(&slots).map(|(value, slot)| (value, slot.is_some())).collect();
    let numbers: usize = parts.len() * value.shape().iter().product::<usize>();
    let bytes = (parts.len() + 1) * value.bytes();
    pass.costs(Cost::new(2 * numbers, bytes), Cost::new(4 * numbers, 2 * bytes));
    pass.uses(&[mix.weights, mix.scale]);
    pass.record("scalar_mix", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let backend = backward.device.backend();
            let dx = backend.scalar_mix_backward(&dy, &parts, backward.params, mix, backward.grads);
            for (slot, dx) in slots.into_iter().zip(dx) {
                if let Some(dx) = dx {
                    backward.add(slot, dx);
                }
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_op;

    #[test]
    fn scalar_mix_matches_its_oracle() {
        for (rows, width) in [(5, 33), (40, 264)] {
            check_op(
                "scalar_mix",
                &[&[rows, width], &[rows, width], &[rows, width]],
                &[("weights", &[3]), ("scale", &[1])],
                |pass, x, p| scalar_mix(pass, x, MixWeights { weights: p[0], scale: p[1] }),
                |x, p| {
                    let sum: f64 = p[0].iter().map(|w| w.exp()).sum();
                    let mixed = |at: usize| -> f64 { p[0].iter().zip(x).map(|(w, x)| w.exp() / sum * x[at]).sum() };
                    (0..rows * width).map(|at| p[1][0] * mixed(at)).collect()
                },
            );
        }
    }
}
