//! Means of consecutive rows: y\[s\] = Σᵣ x\[r\] / n\[s\] over the n\[s\] rows of segment s. For mean pooling of
//! tokens, or one result for the windows of a long document.
//!
//! Backward: dx\[r\] = dy\[s\] / n\[s\].

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Pass, Tensor, Var};

/// The kernels of both directions.
pub(crate) trait SegmentMean {
    /// x [R, H], ends \[S+1\] (the first row of each segment, then R) → [S, H].
    fn segment_mean(&self, x: &Tensor, ends: &Tensor) -> Tensor;
    /// dy [S, H] → dx [R, H].
    fn segment_mean_backward(&self, dy: &Tensor, ends: &Tensor, rows: usize) -> Tensor;
}

/// The means of the rows of each segment of `x` [R, H], as [S, H]. `ends` \[S+1\] increases from 0 to R; segments must
/// not be empty.
pub fn segment_mean(pass: &mut Pass<'_>, x: &Var, ends: &Tensor) -> Var {
    let value = pass.device().backend().segment_mean(x.value(), ends);
    let (x_slot, ends, rows) = (x.slot(), ends.clone(), x.value().shape()[0]);
    let cost = Cost::new(x.value().count(), x.value().bytes() + value.bytes());
    pass.costs(cost, cost);
    pass.record("segment_mean", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else {
                return;
            };
            let dx = backward.device.backend().segment_mean_backward(&gradient, &ends, rows);
            backward.add(x_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_op;

    #[test]
    fn segment_mean_matches_its_oracle() {
        let narrow = [vec![0, 1], vec![0, 3, 4, 9], vec![0, 31]].map(|ends| (ends, 33));
        for (ends, width) in narrow.into_iter().chain([(vec![0, 7, 8, 40], 264)]) {
            let indices: Vec<i32> = ends.iter().map(|e| *e as i32).collect();
            let rows = ends[ends.len() - 1];
            check_op(
                "segment_mean",
                &[&[rows, width]],
                &[],
                |pass, x, _| {
                    let ends = pass.device().tensor_i32(&indices, &[indices.len()]);
                    segment_mean(pass, &x[0], &ends)
                },
                |x, _| {
                    let mean = |s: usize, h: usize| {
                        let rows = ends[s]..ends[s + 1];
                        rows.clone().map(|r| x[0][r * width + h]).sum::<f64>() / rows.len() as f64
                    };
                    (0..(ends.len() - 1) * width).map(|i| mean(i / width, i % width)).collect()
                },
            );
        }
    }
}
