//! A linear layer and the activation after it: u = x Wᵀ + b, y = f(u).
//!
//! Backward: du = dy f′(u); dx = du W; dW += duᵀ x; db += Σ du. Neither u nor y is kept but f′(u), which costs little more
//! where f(u) has just been computed.

#[allow(unsafe_code)]
mod cpu;

use crate::profile::Cost;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// f.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// u
    None,
    /// u Φ(u), by erf: BERT's.
    Gelu,
    /// GELU's tanh form (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// max(u, 0)
    Relu,
    /// u/(1 + e⁻ᵘ)
    Silu,
    /// tanh u: the pooler's.
    Tanh,
}

/// Weight [out, in], bias \[out\], activation.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub(crate) weight: ParamId,
    pub(crate) bias: Option<ParamId>,
    pub(crate) activation: Activation,
}

/// Both directions.
pub trait Linear {
    /// x [T, in] → y [T, out], and f′(u) [T, out] where `keep_slope` and there is an activation.
    fn linear(&self, x: &Tensor, params: &Parameters, layer: Layer, keep_slope: bool) -> (Tensor, Option<Tensor>);
    /// dy [T, out] → dx [T, in], added to `prior` if given, unless the input wants none; the weight's and bias's gradients
    /// are added to.
    fn linear_backward(&self, args: LinearBackward<'_>, grads: &mut Gradients) -> Option<Tensor>;
}

/// What a linear layer's backward pass starts from.
#[doc(hidden)]
pub struct LinearBackward<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) slope: Option<&'a Tensor>,
    pub(crate) dy: Tensor,
    pub(crate) prior: Option<Tensor>,
    pub(crate) wants_dx: bool,
    pub(crate) params: &'a Parameters,
    pub(crate) layer: Layer,
}

/// f(x Wᵀ + b): [T, in] → [T, out].
pub fn linear(pass: &mut Pass<'_>, x: &Var, weight: ParamId, bias: Option<ParamId>, activation: Activation) -> Var {
    let layer = Layer { weight, bias, activation };
    let (value, slope) = pass.device().backend().linear(x.value(), pass.parameters(), layer, pass.is_recording());
    let (x_value, x_slot) = (x.value().clone(), x.slot());
    let (x_bytes, y_bytes) = (x_value.bytes(), value.bytes());
    let (weights, slopes) = (pass.parameters().size(weight), slope.as_ref().map_or(0, Tensor::bytes));
    let products = 2 * x_value.shape()[0] * weights;
    let inputs = usize::from(x_slot.is_some());
    pass.costs(
        Cost::new(products, x_bytes + y_bytes + slopes + 4 * weights),
        Cost::new((1 + inputs) * products, y_bytes + slopes + (1 + inputs) * (x_bytes + 4 * weights)),
    );
    match bias {
        Some(bias) => pass.uses(&[weight, bias]),
        None => pass.uses(&[weight]),
    }
    pass.record("linear", value, |slot| {
        Box::new(move |back| {
            let Some(dy) = back.finish(slot) else { return };
            let prior = back.take(x_slot);
            let args = LinearBackward {
                x: &x_value,
                slope: slope.as_ref(),
                dy,
                prior,
                wants_dx: x_slot.is_some(),
                params: back.params,
                layer,
            };
            if let Some(dx) = back.device.backend().linear_backward(args, back.grads) {
                back.add(x_slot, dx);
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, erf};

    fn apply(activation: Activation, u: f64) -> f64 {
        match activation {
            Activation::None => u,
            Activation::Gelu => u * 0.5 * (1.0 + erf(u / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * u * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (u + 0.044715 * u.powi(3))).tanh())
            }
            Activation::Relu => u.max(0.0),
            Activation::Silu => u / (1.0 + (-u).exp()),
            Activation::Tanh => u.tanh(),
        }
    }

    #[test]
    fn linear_matches_its_oracle() {
        use Activation::*;
        for (tokens, inner, outer, activation) in [
            (1, 1, 1, None),
            (33, 31, 65, None),
            (5, 127, 33, Gelu),
            (64, 16, 48, GeluTanh),
            (7, 9, 33, Silu),
            (7, 9, 33, Tanh),
            (9, 40, 12, Relu),
        ] {
            let params: [(&str, &[usize]); 2] = [("weight", &[outer, inner]), ("bias", &[outer])];
            check_op(
                &format!("linear {activation:?} {tokens}×{inner}×{outer}"),
                &[&[tokens, inner]],
                &params,
                |pass, x, p| linear(pass, &x[0], p[0], Some(p[1]), activation),
                |x, p| {
                    (0..tokens * outer)
                        .map(|i| {
                            let (t, o) = (i / outer, i % outer);
                            let dot: f64 = (0..inner).map(|k| x[0][t * inner + k] * p[0][o * inner + k]).sum();
                            apply(activation, dot + p[1][o])
                        })
                        .collect()
                },
            );
        }
    }

    #[test]
    fn linear_without_bias_adds_to_an_earlier_gradient() {
        check_op(
            "linear twice",
            &[&[6, 8]],
            &[("weight", &[8, 8])],
            |pass, x, p| {
                let once = linear(pass, &x[0], p[0], None, Activation::None);
                let both = linear(pass, &once, p[0], None, Activation::None);
                let _unused = linear(pass, &x[0], p[0], None, Activation::Relu);
                both
            },
            |x, p| {
                let product = |x: &[f64]| -> Vec<f64> {
                    (0..48).map(|i| (0..8).map(|k| x[i / 8 * 8 + k] * p[0][i % 8 * 8 + k]).sum()).collect()
                };
                product(&product(&x[0]))
            },
        );
    }
}
