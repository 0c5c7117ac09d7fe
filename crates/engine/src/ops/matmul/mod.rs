//! The product of two matrices in f32, C = A B, where either operand may be transposed. It is not recorded: for losses that
//! compute their own gradients, such as those that compare all embeddings of a batch, and for search.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::{Device, Tensor};

/// A product of matrices.
pub(crate) trait MatMul {
    /// a [M, K] (transposed: [K, M]), b [K, N] (transposed: [N, K]) → [M, N].
    fn matmul(&self, a: &Tensor, b: &Tensor, transposed: [bool; 2]) -> Tensor;
}

/// A B, f32 [M, N]. `transposed` tells which operand is stored transposed: with `[false, true]`, the rows of `a` [M, K] are
/// multiplied by the rows of `b` [N, K]. The sums do not depend on the number of threads.
///
/// Panics if the inner dimensions differ.
pub fn matmul(device: &Device, a: &Tensor, b: &Tensor, transposed: [bool; 2]) -> Tensor {
    device.backend().matmul(a, b, transposed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::devices;

    #[test]
    fn products_match_their_oracle() {
        for device in devices() {
            for (m, n, k) in [(1, 1, 1), (3, 5, 33), (70, 130, 17), (64, 16, 384)] {
                let number = |i: usize| ((i * 7919) % 251) as f32 / 125.0 - 1.0;
                let a: Vec<f32> = (0..m * k).map(number).collect();
                let b: Vec<f32> = (0..k * n).map(|i| number(i + 13)).collect();
                for transposed in [[false, false], [false, true], [true, false], [true, true]] {
                    let (a_shape, b_shape) =
                        (if transposed[0] { [k, m] } else { [m, k] }, if transposed[1] { [n, k] } else { [k, n] });
                    let of_a = |i: usize, l: usize| f64::from(a[if transposed[0] { l * m + i } else { i * k + l }]);
                    let of_b = |l: usize, j: usize| f64::from(b[if transposed[1] { j * k + l } else { l * n + j }]);
                    let found =
                        matmul(&device, &device.tensor_f32(&a, &a_shape), &device.tensor_f32(&b, &b_shape), transposed);
                    assert_eq!(found.shape(), [m, n]);
                    for (at, found) in found.to_vec_f32().iter().enumerate() {
                        let (i, j) = (at / n, at % n);
                        let expected: f64 = (0..k).map(|l| of_a(i, l) * of_b(l, j)).sum();
                        let error = (f64::from(*found) - expected).abs();
                        assert!(
                            error < 1e-5 * (k as f64).sqrt(),
                            "{transposed:?} [{i}, {j}]: {found}, expected {expected}"
                        );
                    }
                }
            }
        }
    }
}
