//! Selects rows of a matrix by index: y\[i\] = x[rows\[i\]]. For predicted tokens, or the \[CLS\] token of each
//! sequence.
//!
//! Backward: dx[rows\[i\]] += dy\[i\]; other rows get zero.

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Pass, Tensor, Var};

/// The kernels of both directions.
pub(crate) trait IndexSelect {
    /// x [T, H], rows \[R\] → [R, H].
    fn index_select(&self, x: &Tensor, rows: &Tensor) -> Tensor;
    /// dy [R, H] → dx [T, H], added to the gradient `prior` if given.
    fn index_select_backward(&self, dy: &Tensor, rows: &Tensor, tokens: usize, prior: Option<Tensor>) -> Tensor;
}

/// The rows of `x` [T, H] at the indices `rows` \[R\], as [R, H]. Panics on an index outside of `x`.
pub fn index_select(pass: &mut Pass<'_>, x: &Var, rows: &Tensor) -> Var {
    let value = pass.device().backend().index_select(x.value(), rows);
    let (x_slot, rows, tokens) = (x.slot(), rows.clone(), x.value().shape()[0]);
    let cost = Cost::new(0, 2 * value.bytes());
    pass.costs(cost, cost);
    pass.record("index_select", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else {
                return;
            };
            let prior = backward.take(x_slot);
            let sum = backward.device.backend().index_select_backward(&gradient, &rows, tokens, prior);
            backward.add(x_slot, sum);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_op;
    use crate::ops::concat;

    #[test]
    fn index_select_matches_its_oracle() {
        let few = [vec![0], vec![3, 1, 3], vec![], vec![4, 0, 1, 2, 3, 2]].map(|rows| (rows, 5, 33));
        let many = ((0..50).map(|i| i * i % 37).collect::<Vec<usize>>(), 40, 264);
        for (rows, tokens, width) in few.into_iter().chain([many]) {
            let indices: Vec<i32> = rows.iter().map(|r| *r as i32).collect();
            check_op(
                "index_select",
                &[&[tokens, width]],
                &[],
                |pass, x, _| {
                    let rows = pass.device().tensor_i32(&indices, &[indices.len()]);
                    index_select(pass, &x[0], &rows)
                },
                |x, _| rows.iter().flat_map(|r| x[0][r * width..(r + 1) * width].to_vec()).collect(),
            );
        }
    }

    /// The gradients of two selections of the same rows add up.
    #[test]
    fn an_earlier_gradient_is_added_to() {
        for width in [5, 16] {
            check_op(
                "index_select",
                &[&[7, width]],
                &[],
                |pass, x, _| {
                    let [first, second] = [[3, 1, 3], [6, 3, 0]].map(|rows| {
                        let rows = pass.device().tensor_i32(&rows, &[3]);
                        index_select(pass, &x[0], &rows)
                    });
                    concat(pass, &[first, second])
                },
                |x, _| {
                    let row = |r: usize| x[0][r * width..(r + 1) * width].to_vec();
                    [[3, 6], [1, 3], [3, 0]].into_iter().flat_map(|[a, b]| [row(a), row(b)].concat()).collect()
                },
            );
        }
    }
}
