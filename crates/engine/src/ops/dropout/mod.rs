//! Dropout (Srivastava et al. 2014), inverted: y = x · m / (1 − p), m ~ Bernoulli(1 − p).
//!
//! Backward: dx = dy · m / (1 − p), with m recomputed from its counter.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Pass, Tensor, Var};

/// The kernel of both directions: they multiply by the mask.
pub(crate) trait Dropout {
    /// x times the mask.
    fn dropout(&self, x: Tensor, mask: Mask) -> Tensor;
}

/// Drops elements of `x` with probability `p` and scales the others; the identity in a pass without dropout.
pub fn dropout(pass: &mut Pass<'_>, x: &Var, p: f32) -> Var {
    let mask = pass.dropout_site(p);
    let value = x.value().clone();
    let value = if mask.is_active() { pass.device().backend().dropout(value, mask) } else { value };
    let x_slot = x.slot();
    let cost = Cost::new(0, if mask.is_active() { 2 * value.bytes() } else { 0 });
    pass.costs(cost, cost);
    pass.record("dropout", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else {
                return;
            };
            let gradient = if mask.is_active() { backward.device.backend().dropout(gradient, mask) } else { gradient };
            backward.add(x_slot, gradient);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, dropout_mask};

    #[test]
    fn dropout_matches_its_oracle() {
        check_op("dropout", &[&[33, 5]], &[], |pass, x, _| dropout(pass, &x[0], 0.0), |x, _| x[0].clone());
        for shape in [[33, 67], [64, 256]] {
            check_op(
                "dropout p=.3",
                &[&shape],
                &[],
                |pass, x, _| dropout(pass, &x[0], 0.3),
                |x, _| x[0].iter().enumerate().map(|(i, v)| v * dropout_mask(1, 0.3).factor(i) as f64).collect(),
            );
        }
    }
}
