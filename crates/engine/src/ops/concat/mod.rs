//! Matrices side by side: y = [x₁ x₂ …]. The last layers of an encoder as features (Devlin et al. 2019, 5.3).
//!
//! Backward: each input's gradient is its columns of dy.

mod cpu;

use crate::profile::Cost;
use crate::{Pass, Tensor, Var};

/// Both directions.
pub trait Concat {
    /// parts [T, Hᵢ] → [T, Σ Hᵢ].
    fn concat(&self, parts: &[&Tensor]) -> Tensor;
    /// The columns of dy [T, Σ Hᵢ] that are the parts', each [T, Hᵢ].
    fn concat_backward(&self, dy: &Tensor, widths: &[usize]) -> Vec<Tensor>;
}

/// The columns of all `parts` [T, Hᵢ], in order, as [T, Σ Hᵢ].
pub fn concat(pass: &mut Pass<'_>, parts: &[Var]) -> Var {
    let values: Vec<&Tensor> = parts.iter().map(Var::value).collect();
    let value = pass.device().backend().concat(&values);
    let slots: Vec<_> = parts.iter().map(Var::slot).collect();
    let widths: Vec<usize> = values.iter().map(|part| part.shape()[1]).collect();
    let cost = Cost::new(0, 2 * value.bytes());
    pass.costs(cost, cost);
    pass.record("concat", value, |slot| {
        Box::new(move |back| {
            let Some(gradient) = back.finish(slot) else {
                return;
            };
            for (slot, part) in slots.into_iter().zip(back.device.backend().concat_backward(&gradient, &widths)) {
                back.add(slot, part);
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
        check_op(
            "concat",
            &[&[5, 33], &[5, 1], &[5, 16]],
            &[],
            |pass, x, _| concat(pass, x),
            |x, _| {
                let row =
                    |t: usize| [&x[0][t * 33..(t + 1) * 33], &x[1][t..t + 1], &x[2][t * 16..(t + 1) * 16]].concat();
                (0..5).flat_map(row).collect()
            },
        );
    }
}
