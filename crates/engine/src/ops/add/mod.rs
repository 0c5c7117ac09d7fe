//! A residual connection with dropout, without a norm after it (pre-norm; Xiong et al. 2020): y = r + dropout(x).
//!
//! Backward: dr = dy, dx = mask dy.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Pass, Tensor, Var};

/// The kernel of the forward pass. The backward pass is that of dropout.
pub(crate) trait Add {
    /// residual + x times the mask.
    fn add(&self, x: &Tensor, residual: &Tensor, mask: Mask) -> Tensor;
}

/// residual + dropout(x), of the same shape. `dropout` is the drop probability of x.
pub fn add(pass: &mut Pass<'_>, x: &Var, residual: &Var, dropout: f32) -> Var {
    let mask = pass.dropout_site(dropout);
    let value = pass.device().backend().add(x.value(), residual.value(), mask);
    pass.costs(Cost::new(0, 3 * value.bytes()), Cost::new(0, if mask.is_active() { 2 * value.bytes() } else { 0 }));
    let (x_slot, residual_slot) = (x.slot(), residual.slot());
    pass.record("add", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let dx = if mask.is_active() { backward.device.backend().dropout(dy.clone(), mask) } else { dy.clone() };
            backward.add(x_slot, dx);
            backward.add(residual_slot, dy);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, dropout_mask};

    #[test]
    fn add_matches_its_oracle() {
        for (rows, columns, p) in [(1, 1, 0.0), (5, 33, 0.0), (41, 67, 0.3), (64, 256, 0.3)] {
            check_op(
                "add",
                &[&[rows, columns], &[rows, columns]],
                &[],
                |pass, x, _| add(pass, &x[0], &x[1], p),
                |x, _| {
                    let mask = dropout_mask(1, p);
                    let factor = |i: usize| if mask.is_active() { f64::from(mask.factor(i)) } else { 1.0 };
                    (0..rows * columns).map(|i| x[1][i] + x[0][i] * factor(i)).collect()
                },
            );
        }
    }
}
