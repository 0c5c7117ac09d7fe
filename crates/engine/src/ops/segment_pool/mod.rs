//! Pools consecutive rows to one: for the rows r of segment s, the weighted sum y\[s\] = Σᵣ w\[r\] x\[r\], or the maximum of
//! each column. With weights of 1/n, 1/√n, r/Σr or a single 1, the sum is the mean and the other pooling modes of
//! sentence-transformers (Reimers and Gurevych 2019, section 3).
//!
//! Backward: dx\[r\] = w\[r\] dy\[s\]; of the maximum, dy\[s\] at the first row that has it.

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{DType, Pass, Tensor, Var};

/// The kernels of both directions. The pooled rows are f32 for all types of x.
pub(crate) trait SegmentPool {
    /// x [R, H], ends \[S+1\] (the first row of each segment, then R), weights \[R\] → [S, H]. Sums are f64.
    fn segment_sum(&self, x: &Tensor, ends: &Tensor, weights: &Tensor) -> Tensor;
    /// dy [S, H] → dx [R, H] of this type.
    fn segment_sum_backward(&self, dy: &Tensor, ends: &Tensor, weights: &Tensor, dtype: DType) -> Tensor;
    /// x [R, H], ends \[S+1\] → the maxima [S, H], and the row of each [S, H]. The first `skipped` rows of each segment are
    /// left out. NaN is larger than all numbers.
    fn segment_max(&self, x: &Tensor, ends: &Tensor, skipped: usize) -> (Tensor, Tensor);
    /// dy [S, H], rows [S, H] → dx [R, H] of this type.
    fn segment_max_backward(&self, dy: &Tensor, rows: &Tensor, shape: &[usize], dtype: DType) -> Tensor;
}

/// The weighted sum of the rows of each segment of `x` [R, H], as f32 [S, H]. `ends` \[S+1\] increases from 0 to R;
/// `weights` \[R\] are f32.
pub fn segment_sum(pass: &mut Pass<'_>, x: &Var, ends: &Tensor, weights: &Tensor) -> Var {
    let value = pass.device().backend().segment_sum(x.value(), ends, weights);
    let (x_slot, ends, weights, dtype) = (x.slot(), ends.clone(), weights.clone(), x.value().dtype());
    let cost = Cost::new(2 * x.value().count(), x.value().bytes() + value.bytes());
    pass.costs(cost, cost);
    pass.record("segment_sum", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else { return };
            let dx = backward.device.backend().segment_sum_backward(&gradient, &ends, &weights, dtype);
            backward.add(x_slot, dx);
        })
    })
}

/// The maximum of each column over the rows of each segment of `x` [R, H], as f32 [S, H]. The first `skipped` rows of
/// each segment are left out; one must remain.
pub fn segment_max(pass: &mut Pass<'_>, x: &Var, ends: &Tensor, skipped: usize) -> Var {
    let (value, rows) = pass.device().backend().segment_max(x.value(), ends, skipped);
    let (x_slot, shape, dtype) = (x.slot(), x.value().shape().to_vec(), x.value().dtype());
    let cost = Cost::new(x.value().count(), x.value().bytes() + 2 * value.bytes());
    pass.costs(cost, cost);
    pass.record("segment_max", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else { return };
            let dx = backward.device.backend().segment_max_backward(&gradient, &rows, &shape, dtype);
            backward.add(x_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, devices};

    const FEW: usize = 7;

    #[test]
    fn segment_sum_matches_its_oracle() {
        let narrow = [vec![0, 1], vec![0, 3, 4, 9], vec![0, 31]].map(|ends| (ends, 33));
        for (ends, width) in narrow.into_iter().chain([(vec![0, 7, 8, 40], 264)]) {
            let indices: Vec<i32> = ends.iter().map(|e| *e as i32).collect();
            let rows = ends[ends.len() - 1];
            let weights: Vec<f32> = (0..rows).map(|r| (r * 5 % 7) as f32 / 4.0 - 0.25).collect();
            check_op(
                "segment_sum",
                &[&[rows, width]],
                &[],
                |pass, x, _| {
                    let ends = pass.device().tensor_i32(&indices, &[indices.len()]);
                    let weights = pass.device().tensor_f32(&weights, &[rows]);
                    segment_sum(pass, &x[0], &ends, &weights)
                },
                |x, _| {
                    let sum = |s: usize, h: usize| {
                        (ends[s]..ends[s + 1]).map(|r| f64::from(weights[r]) * x[0][r * width + h]).sum()
                    };
                    (0..(ends.len() - 1) * width).map(|i| sum(i / width, i % width)).collect()
                },
            );
        }
    }

    /// Few columns: where two rows have the maximum, there is no derivative.
    #[test]
    fn segment_max_matches_its_oracle() {
        for (ends, skipped) in [(vec![0, 1], 0), (vec![0, 3, 5, 11], 1), (vec![0, 3, 5, 11], 0)] {
            let indices: Vec<i32> = ends.iter().map(|e| *e as i32).collect();
            let rows = ends[ends.len() - 1];
            check_op(
                "segment_max",
                &[&[rows, FEW]],
                &[],
                |pass, x, _| {
                    let ends = pass.device().tensor_i32(&indices, &[indices.len()]);
                    segment_max(pass, &x[0], &ends, skipped)
                },
                |x, _| {
                    let max = |s: usize, h: usize| {
                        let rows = ends[s] + skipped..ends[s + 1];
                        rows.map(|r| x[0][r * FEW + h]).fold(f64::NEG_INFINITY, f64::max)
                    };
                    (0..(ends.len() - 1) * FEW).map(|i| max(i / FEW, i % FEW)).collect()
                },
            );
        }
    }

    /// `f32::max` would hide damaged weights.
    #[test]
    fn nan_is_the_maximum() {
        for device in devices() {
            let x = device.tensor_f32(&[1.0, f32::NAN, 2.0, 3.0, 0.0, 9.0], &[3, 2]);
            let ends = device.tensor_i32(&[0, 3], &[2]);
            let (max, rows) = device.backend().segment_max(&x, &ends, 0);
            let max = max.to_vec_f32();
            assert!(max[0] == 2.0 && max[1].is_nan(), "{max:?}");
            assert_eq!(rows.to_vec_i32(), [1, 0]);
        }
    }

    /// Of equal numbers, the first counts; one number of −∞ among others too.
    #[test]
    fn the_first_of_several_maxima_gets_the_gradient() {
        const COLUMNS: usize = 40;
        let ends = [0, 1, 24, 90];
        let x: Vec<f32> = (0..90 * COLUMNS)
            .map(|i| match i % COLUMNS {
                0 => f32::NEG_INFINITY,
                1 => 5.0,
                2 if i / COLUMNS % 30 == 22 => f32::NAN,
                _ => ((i * i) % 13) as f32,
            })
            .collect();
        for device in devices() {
            let of_segments = device.tensor_i32(&ends, &[4]);
            let (max, rows) = device.backend().segment_max(&device.tensor_f32(&x, &[90, COLUMNS]), &of_segments, 0);
            for (i, (max, row)) in max.to_vec_f32().into_iter().zip(rows.to_vec_i32()).enumerate() {
                let (segment, column) = (i / COLUMNS, i % COLUMNS);
                let mut rows = ends[segment]..ends[segment + 1];
                let value = |row: i32| x[row as usize * COLUMNS + column];
                let first = rows.clone().find(|&row| value(row).is_nan()).unwrap_or_else(|| {
                    let largest = rows.clone().map(value).fold(f32::NEG_INFINITY, f32::max);
                    rows.find(|&row| value(row) == largest).expect("a row")
                });
                assert_eq!(row, first, "{device:?}: segment {segment}, column {column}");
                assert_eq!(max.to_bits(), value(first).to_bits(), "{device:?}: segment {segment}, column {column}");
            }
            let dy: Vec<f32> = (1..=3 * COLUMNS).map(|i| i as f32).collect();
            let dx = device.backend().segment_max_backward(
                &device.tensor_f32(&dy, &[3, COLUMNS]),
                &rows,
                &[90, COLUMNS],
                DType::F32,
            );
            let mut expected = vec![0.0; 90 * COLUMNS];
            for (i, row) in rows.to_vec_i32().into_iter().enumerate() {
                expected[row as usize * COLUMNS + i % COLUMNS] = dy[i];
            }
            assert_eq!(dx.to_vec_f32(), expected, "{device:?}");
        }
    }
}
