use super::SegmentPool;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::ops::assert_segments;
use crate::{DType, Tensor};

impl SegmentPool for Cpu {
    fn segment_sum(&self, x: &Tensor, ends: &Tensor, weights: &Tensor) -> Tensor {
        let (rows, hidden) = x.matrix("segment_sum");
        let (ends, weights) = (ends.slice::<i32>(), weights.slice::<f32>());
        assert_segments("segment_sum", ends, rows);
        assert_eq!(weights.len(), rows, "segment_sum: weights");
        let mut y = Tensor::host(&[ends.len() - 1, hidden], DType::F32);
        with_real!(x.dtype(), E => {
            let x = x.slice::<E>();
            let mut sum = vec![0f64; hidden];
            for (y, segment) in y.slice_mut::<f32>().chunks_exact_mut(hidden).zip(ends.windows(2)) {
                let rows = segment[0] as usize..segment[1] as usize;
                sum.fill(0.0);
                let values = x[rows.start * hidden..rows.end * hidden].chunks_exact(hidden);
                // A weight of 0 leaves a row out, even if it is not finite.
                for (row, &weight) in values.zip(&weights[rows]).filter(|(_, weight)| **weight != 0.0) {
                    for (sum, x) in sum.iter_mut().zip(row) {
                        *sum += f64::from(weight) * f64::from(x.to_f32());
                    }
                }
                for (y, sum) in y.iter_mut().zip(&sum) {
                    *y = *sum as f32;
                }
            }
        });
        y
    }

    fn segment_sum_backward(&self, dy: &Tensor, ends: &Tensor, weights: &Tensor, dtype: DType) -> Tensor {
        let (_, hidden) = dy.matrix("segment_sum_backward");
        let weights = weights.slice::<f32>();
        let mut dx = Tensor::host(&[weights.len(), hidden], dtype);
        with_real!(dtype, E => {
            let dx = dx.slice_mut::<E>();
            for (dy, segment) in dy.slice::<f32>().chunks_exact(hidden).zip(ends.slice::<i32>().windows(2)) {
                let rows = segment[0] as usize..segment[1] as usize;
                let of_rows = dx[rows.start * hidden..rows.end * hidden].chunks_exact_mut(hidden);
                for (row, &weight) in of_rows.zip(&weights[rows]) {
                    for (dx, dy) in row.iter_mut().zip(dy) {
                        *dx = E::from_f32(weight * dy);
                    }
                }
            }
        });
        dx
    }

    fn segment_max(&self, x: &Tensor, ends: &Tensor, skipped: usize) -> (Tensor, Tensor) {
        let (rows, hidden) = x.matrix("segment_max");
        let ends = ends.slice::<i32>();
        assert_segments("segment_max", ends, rows);
        let shape = [ends.len() - 1, hidden];
        let (mut y, mut of) = (Tensor::host(&shape, DType::F32), Tensor::host(&shape, DType::I32));
        with_real!(x.dtype(), E => {
            let x = x.slice::<E>();
            let outputs = y.slice_mut::<f32>().chunks_exact_mut(hidden);
            let outputs = outputs.zip(of.slice_mut::<i32>().chunks_exact_mut(hidden));
            for ((y, of), segment) in outputs.zip(ends.windows(2)) {
                let rows = segment[0] as usize + skipped..segment[1] as usize;
                assert!(!rows.is_empty(), "segment_max: no row is left of {segment:?} without the first {skipped}");
                y.fill(f32::NEG_INFINITY);
                of.fill(rows.start as i32);
                for (number, row) in rows.clone().zip(x[rows.start * hidden..].chunks_exact(hidden)) {
                    for ((y, of), x) in y.iter_mut().zip(of.iter_mut()).zip(row) {
                        let x = x.to_f32();
                        if x > *y || (x.is_nan() && !y.is_nan()) {
                            (*y, *of) = (x, number as i32);
                        }
                    }
                }
            }
        });
        (y, of)
    }

    fn segment_max_backward(&self, dy: &Tensor, rows: &Tensor, shape: &[usize], dtype: DType) -> Tensor {
        let (_, hidden) = dy.matrix("segment_max_backward");
        let mut dx = Tensor::host(shape, dtype);
        with_real!(dtype, E => {
            let dx = dx.slice_mut::<E>();
            dx.fill(E::from_f32(0.0));
            for (i, (dy, row)) in dy.slice::<f32>().iter().zip(rows.slice::<i32>()).enumerate() {
                dx[*row as usize * hidden + i % hidden] = E::from_f32(*dy);
            }
        });
        dx
    }
}
