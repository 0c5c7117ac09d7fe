use super::SegmentMean;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::ops::assert_segments;

impl SegmentMean for Cpu {
    fn segment_mean(&self, x: &Tensor, ends: &Tensor) -> Tensor {
        let (rows, hidden) = x.matrix("segment_mean");
        let ends = ends.slice::<i32>();
        assert_segments("segment_mean", ends, rows);
        let mut y = Tensor::host(&[ends.len() - 1, hidden], x.dtype());
        with_real!(x.dtype(), E => {
            let x = x.slice::<E>();
            let mut sum = vec![0f32; hidden];
            for (y, segment) in y.slice_mut::<E>().chunks_exact_mut(hidden).zip(ends.windows(2)) {
                let rows = segment[0] as usize..segment[1] as usize;
                sum.fill(0.0);
                for row in x[rows.start * hidden..rows.end * hidden].chunks_exact(hidden) {
                    for (sum, x) in sum.iter_mut().zip(row) {
                        *sum += x.to_f32();
                    }
                }
                for (y, sum) in y.iter_mut().zip(&sum) {
                    *y = E::from_f32(sum / rows.len() as f32);
                }
            }
        });
        y
    }

    fn segment_mean_backward(&self, dy: &Tensor, ends: &Tensor, rows: usize) -> Tensor {
        let (_, hidden) = dy.matrix("segment_mean_backward");
        let mut dx = Tensor::host(&[rows, hidden], dy.dtype());
        with_real!(dy.dtype(), E => {
            let dx = dx.slice_mut::<E>();
            for (dy, segment) in dy.slice::<E>().chunks_exact(hidden).zip(ends.slice::<i32>().windows(2)) {
                let rows = segment[0] as usize..segment[1] as usize;
                let share = 1.0 / rows.len() as f32;
                for row in dx[rows.start * hidden..rows.end * hidden].chunks_exact_mut(hidden) {
                    for (dx, dy) in row.iter_mut().zip(dy) {
                        *dx = E::from_f32(dy.to_f32() * share);
                    }
                }
            }
        });
        dx
    }
}
