//! Divides each row by its Euclidean norm: y = x / max(‖x‖, ε) with ε = 1e-12, as `torch.nn.functional.normalize` and the
//! Normalize module of sentence-transformers.
//!
//! Backward: dx = (dy − y (y·dy)) / ‖x‖; below ε, dx = dy / ε.

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Pass, Tensor, Var};

/// The lower bound of the divisor.
pub(crate) const EPSILON: f64 = 1e-12;

/// The kernels of both directions.
pub(crate) trait Normalize {
    /// x [R, H] of f32 → [R, H].
    fn normalize(&self, x: &Tensor) -> Tensor;
    /// x and dy [R, H] → dx [R, H].
    fn normalize_backward(&self, x: &Tensor, dy: &Tensor) -> Tensor;
}

/// The rows of `x` [R, H], f32, divided by their norms.
pub fn normalize(pass: &mut Pass<'_>, x: &Var) -> Var {
    let value = pass.device().backend().normalize(x.value());
    let (x_slot, x) = (x.slot(), x.value().clone());
    let cost = Cost::new(3 * x.count(), 2 * x.bytes());
    pass.costs(cost, cost);
    pass.record("normalize", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else { return };
            let dx = backward.device.backend().normalize_backward(&x, &gradient);
            backward.add(x_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, devices};
    use crate::ops::segment_pool::segment_sum;

    #[test]
    fn normalize_matches_its_oracle() {
        for (rows, columns) in [(1, 2), (5, 33), (7, 384)] {
            check_op(
                "normalize",
                &[&[rows, columns]],
                &[],
                |pass, x, _| {
                    // The op reads pooled rows, which are f32 for all types of activations.
                    let ends: Vec<i32> = (0..=rows as i32).collect();
                    let ends = pass.device().tensor_i32(&ends, &[rows + 1]);
                    let weights = pass.device().tensor_f32(&vec![1.0; rows], &[rows]);
                    let pooled = segment_sum(pass, &x[0], &ends, &weights);
                    normalize(pass, &pooled)
                },
                |x, _| {
                    let rows = x[0].chunks(columns).flat_map(|row| {
                        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                        row.iter().map(move |x| x / norm)
                    });
                    rows.collect()
                },
            );
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        for device in devices() {
            let zeros = device.tensor_f32(&[0.0; 6], &[2, 3]);
            assert_eq!(device.backend().normalize(&zeros).to_vec_f32(), [0.0; 6]);
            assert!(device.backend().normalize_backward(&zeros, &zeros).to_vec_f32().iter().all(|x| *x == 0.0));
        }
    }
}
