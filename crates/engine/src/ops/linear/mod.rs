//! A linear layer and its activation: u = x Wᵀ + b, y = f(u).
//!
//! Backward: du = dy f′(u); dx = du W; dW += duᵀ x; db += Σ du. Instead of u or y, the tape keeps f′(u), which costs
//! little more when f(u) has just been computed.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;
#[cfg(test)]
mod int8;

pub(crate) use cpu::Activate;
pub(crate) use cuda::activation_code;

use crate::profile::Cost;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The activation function f.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// u
    None,
    /// u Φ(u), computed with erf: BERT's GELU.
    Gelu,
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// max(u, 0)
    Relu,
    /// u/(1 + e⁻ᵘ)
    Silu,
    /// tanh u, as in the pooler.
    Tanh,
}

/// A layer: weight [out, in], bias \[out\], activation.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub(crate) weight: ParamId,
    pub(crate) bias: Option<ParamId>,
    pub(crate) activation: Activation,
}

/// The kernels of both directions.
pub(crate) trait Linear {
    /// x [T, in] → y [T, out], and f′(u) [T, out] if `keep_derivative` is set and there is an activation.
    fn linear(&self, x: &Tensor, params: &Parameters, layer: Layer, keep_derivative: bool) -> (Tensor, Option<Tensor>);
    /// dy [T, out] → dx [T, in], added to the gradient `prior` if given; `None` if dx is not needed. Adds to the
    /// gradients of weight and bias.
    fn linear_backward(&self, args: LinearBackward<'_>, grads: &mut Gradients) -> Option<Tensor>;
}

/// The inputs of a linear layer's backward pass.
pub(crate) struct LinearBackward<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) derivative: Option<&'a Tensor>,
    pub(crate) dy: Tensor,
    pub(crate) prior: Option<Tensor>,
    pub(crate) needs_dx: bool,
    pub(crate) params: &'a Parameters,
    pub(crate) layer: Layer,
}

/// f(x Wᵀ + b): [T, in] → [T, out]. In a pass that does not record, weights of
/// [`Parameters::quantize_weights`](crate::Parameters::quantize_weights) are multiplied in int8.
pub fn linear(pass: &mut Pass<'_>, x: &Var, weight: ParamId, bias: Option<ParamId>, activation: Activation) -> Var {
    let layer = Layer { weight, bias, activation };
    let (value, derivative) = pass.device().backend().linear(x.value(), pass.parameters(), layer, pass.is_recording());
    let (x_value, x_slot) = (x.value().clone(), x.slot());
    let (x_bytes, y_bytes) = (x_value.bytes(), value.bytes());
    let (weights, derivative_bytes) = (pass.parameters().size(weight), derivative.as_ref().map_or(0, Tensor::bytes));
    let products = 2 * x_value.shape()[0] * weights;
    let inputs = usize::from(x_slot.is_some());
    pass.costs(
        Cost::new(products, x_bytes + y_bytes + derivative_bytes + 4 * weights),
        Cost::new((1 + inputs) * products, y_bytes + derivative_bytes + (1 + inputs) * (x_bytes + 4 * weights)),
    );
    match bias {
        Some(bias) => pass.uses(&[weight, bias]),
        None => pass.uses(&[weight]),
    }
    pass.record("linear", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let prior = backward.take(x_slot);
            let args = LinearBackward {
                x: &x_value,
                derivative: derivative.as_ref(),
                dy,
                prior,
                needs_dx: x_slot.is_some(),
                params: backward.params,
                layer,
            };
            if let Some(dx) = backward.device.backend().linear_backward(args, backward.grads) {
                backward.add(x_slot, dx);
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
