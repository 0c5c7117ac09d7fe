//! Residual connection, dropout and layer normalisation in one op (Ba et al. 2016; post-norm as in Vaswani et al. 2017,
//! §3.1):
//!
//! s = r + dropout(x),  μ = mean(s),  σ² = mean((s − μ)²),  x̂ = (s − μ)/√(σ² + ε),  y = γ x̂ + β.
//!
//! Backward, with g = γ dy: ds = (g − mean(g) − x̂ mean(g x̂))/√(σ² + ε); dr = ds; dx = mask ds; dγ += Σ dy x̂; dβ += Σ
//! dy. The tape keeps x and r (which other ops keep anyway), μ and 1/√(σ² + ε); s is cheap to recompute. Statistics are
//! always f32: ε = 1e-12 vanishes in bf16.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// Gain γ and offset β, \[H\] each, and ε. Without an offset, β = 0.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// γ
    pub gamma: ParamId,
    /// β
    pub beta: Option<ParamId>,
    /// ε, which is added to the variance.
    pub eps: f32,
}

/// The inputs of both directions.
pub(crate) struct Operands<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) residual: Option<&'a Tensor>,
    pub(crate) mask: Mask,
    pub(crate) params: &'a Parameters,
    pub(crate) norm: Norm,
}

/// The kernels of both directions.
pub(crate) trait AddNorm {
    /// Returns y [T, H] and the statistics [T, 2] (μ, 1/√(σ² + ε)).
    fn add_norm(&self, operands: &Operands<'_>) -> (Tensor, Tensor);
    /// Returns (dx, dr), where dr is `None` without a residual. Adds to the gradients of γ and β.
    fn add_norm_backward(
        &self,
        operands: &Operands<'_>,
        stats: &Tensor,
        dy: &Tensor,
        grads: &mut Gradients,
    ) -> (Tensor, Option<Tensor>);
}

/// LayerNorm(residual + dropout(x)); x, residual and the result are [T, H]. `dropout` is the drop probability of x.
pub fn add_norm(pass: &mut Pass<'_>, x: &Var, residual: Option<&Var>, norm: Norm, dropout: f32) -> Var {
    let mask = pass.dropout_site(dropout);
    let (x_value, residual_value) = (x.value().clone(), residual.map(|r| r.value().clone()));
    let operands = Operands { x: &x_value, residual: residual_value.as_ref(), mask, params: pass.parameters(), norm };
    let (value, stats) = pass.device().backend().add_norm(&operands);
    let (x_slot, residual_slot) = (x.slot(), residual.and_then(Var::slot));
    let inputs = 1 + usize::from(residual.is_some());
    let bytes = value.bytes();
    pass.costs(Cost::new(0, (inputs + 1) * bytes), Cost::new(0, (2 * inputs + 1) * bytes));
    match norm.beta {
        Some(beta) => pass.uses(&[norm.gamma, beta]),
        None => pass.uses(&[norm.gamma]),
    }
    pass.record("add_norm", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let operands =
                Operands { x: &x_value, residual: residual_value.as_ref(), mask, params: backward.params, norm };
            let (dx, dr) = backward.device.backend().add_norm_backward(&operands, &stats, &dy, backward.grads);
            if let Some(dr) = dr {
                backward.add(residual_slot, dr);
            }
            backward.add(x_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, dropout_mask};

    fn oracle(s: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> Vec<f64> {
        let hidden = gamma.len();
        s.chunks(hidden)
            .flat_map(|s| {
                let mean = s.iter().sum::<f64>() / hidden as f64;
                let variance = s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hidden as f64;
                (0..hidden)
                    .map(move |i| (s[i] - mean) / (variance + eps).sqrt() * gamma[i] + beta[i])
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn add_norm_matches_its_oracle() {
        for (tokens, hidden) in [(1, 31), (33, 48), (130, 300)] {
            let norm = |p: &[ParamId]| Norm { gamma: p[0], beta: Some(p[1]), eps: 1e-12 };
            let params: [(&str, &[usize]); 2] = [("gamma", &[hidden]), ("beta", &[hidden])];
            check_op(
                "norm",
                &[&[tokens, hidden]],
                &params,
                |pass, x, p| add_norm(pass, &x[0], None, norm(p), 0.0),
                |x, p| oracle(&x[0], &p[0], &p[1], 1e-12),
            );
            check_op(
                "norm without offset",
                &[&[tokens, hidden]],
                &params[..1],
                |pass, x, p| add_norm(pass, &x[0], None, Norm { gamma: p[0], beta: None, eps: 1e-5 }, 0.0),
                |x, p| oracle(&x[0], &p[0], &vec![0.0; hidden], 1e-5),
            );
            check_op(
                "add_norm with dropout",
                &[&[tokens, hidden], &[tokens, hidden]],
                &params,
                |pass, x, p| add_norm(pass, &x[0], Some(&x[1]), norm(p), 0.2),
                |x, p| {
                    let mask = dropout_mask(1, 0.2);
                    let s: Vec<f64> =
                        (0..tokens * hidden).map(|i| x[1][i] + x[0][i] * f64::from(mask.factor(i))).collect();
                    oracle(&s, &p[0], &p[1], 1e-12)
                },
            );
        }
    }
}
