//! Concatenates matrices side by side: y = [x₁ x₂ …]. For the last layers of an encoder as features (Devlin et al.
//! 2019, 5.3).
//!
//! Backward: each input's gradient is its columns of dy.

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Pass, Tensor, Var};

/// The kernels of both directions.
pub(crate) trait Concat {
    /// parts [T, Hᵢ] → [T, Σ Hᵢ].
    fn concat(&self, parts: &[&Tensor]) -> Tensor;
    /// Splits dy [T, Σ Hᵢ] into the gradients of the parts, [T, Hᵢ] each.
    fn concat_backward(&self, dy: &Tensor, widths: &[usize]) -> Vec<Tensor>;
}

/// Concatenates the columns of all `parts` [T, Hᵢ] to [T, Σ Hᵢ].
pub fn concat(pass: &mut Pass<'_>, parts: &[Var]) -> Var {
    let values: Vec<&Tensor> = parts.iter().map(Var::value).collect();
    let value = pass.device().backend().concat(&values);
    let slots: Vec<_> = parts.iter().map(Var::slot).collect();
    let widths: Vec<usize> = values.iter().map(|part| part.shape()[1]).collect();
    let cost = Cost::new(0, 2 * value.bytes());
    pass.costs(cost, cost);
    pass.record("concat", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else {
                return;
            };
            for (slot, part) in slots.into_iter().zip(backward.device.backend().concat_backward(&gradient, &widths)) {
                backward.add(slot, part);
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_op;

    #[test]
    fn concat_matches_its_oracle() {
        for (rows, [a, b, c]) in [(5, [33, 1, 16]), (9, [8, 264, 16])] {
            check_op(
                "concat",
                &[&[rows, a], &[rows, b], &[rows, c]],
                &[],
                |pass, x, _| concat(pass, x),
                |x, _| {
                    let part = |x: &[f64], t: usize, width: usize| x[t * width..(t + 1) * width].to_vec();
                    let row = |t: usize| [part(&x[0], t, a), part(&x[1], t, b), part(&x[2], t, c)].concat();
                    (0..rows).flat_map(row).collect()
                },
            );
        }
    }
}
