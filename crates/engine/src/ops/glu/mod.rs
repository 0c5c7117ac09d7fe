//! Gated linear units (Dauphin et al. 2017; with GELU: Shazeer 2020, "GLU Variants Improve Transformer"): of x = [u g],
//! y = f(u) ∘ g.
//!
//! Backward: du = dy ∘ g ∘ f′(u), dg = dy ∘ f(u).

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::linear::Activation;
use crate::profile::Cost;
use crate::{Pass, Tensor, Var};

/// The kernels of both directions.
pub(crate) trait Glu {
    /// x [T, 2F] → y [T, F].
    fn glu(&self, x: &Tensor, activation: Activation) -> Tensor;
    /// dy [T, F] → dx [T, 2F].
    fn glu_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Tensor;
}

/// f(u) ∘ g, where the first half of the columns of `x` [T, 2F] is u and the second is g. Returns [T, F].
pub fn glu(pass: &mut Pass<'_>, x: &Var, activation: Activation) -> Var {
    let value = pass.device().backend().glu(x.value(), activation);
    pass.costs(Cost::new(0, 3 * value.bytes()), Cost::new(0, 5 * value.bytes()));
    let (x_value, x_slot) = (x.value().clone(), x.slot());
    pass.record("glu", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let dx = backward.device.backend().glu_backward(&x_value, activation, &dy);
            backward.add(x_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, erf};

    #[test]
    fn glu_matches_its_oracle() {
        for (tokens, width) in [(1, 1), (5, 33), (40, 128), (9, 520)] {
            for activation in [Activation::Gelu, Activation::Silu, Activation::None] {
                check_op(
                    "glu",
                    &[&[tokens, 2 * width]],
                    &[],
                    |pass, x, _| glu(pass, &x[0], activation),
                    |x, _| {
                        let f = |u: f64| match activation {
                            Activation::Gelu => u * 0.5 * (1.0 + erf(u / 2f64.sqrt())),
                            Activation::Silu => u / (1.0 + (-u).exp()),
                            _ => u,
                        };
                        let row = |row: &[f64]| (0..width).map(|i| f(row[i]) * row[width + i]).collect::<Vec<_>>();
                        x[0].chunks(2 * width).flat_map(row).collect()
                    },
                );
            }
        }
    }
}
