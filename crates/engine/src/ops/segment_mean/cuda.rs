use super::SegmentMean;
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::ops::assert_segments;

impl SegmentMean for Cuda {
    fn segment_mean(&self, x: &Tensor, ends: &Tensor) -> Tensor {
        let (rows, hidden) = x.matrix("segment_mean");
        assert_segments("segment_mean", ends.slice(), rows);
        let segments = ends.count() - 1;
        let mut y = self.empty(&[segments, hidden], x.dtype());
        let mut args = args![x.device_ptr(), ends.device_ptr(), y.device_ptr_mut(), hidden as i32];
        let grid = Grid::of([segments, Grid::column_blocks(hidden, x.dtype()), 1], 256);
        // SAFETY: x is [R, H], the segments are rows of it, and y is [S, H].
        unsafe { self.launch_of("segment_mean", x.dtype(), grid, &mut args) };
        y
    }

    fn segment_mean_backward(&self, dy: &Tensor, ends: &Tensor, rows: usize) -> Tensor {
        let (segments, hidden) = dy.matrix("segment_mean_backward");
        let mut dx = self.empty(&[rows, hidden], dy.dtype());
        let mut args = args![dy.device_ptr(), ends.device_ptr(), dx.device_ptr_mut(), hidden as i32];
        let grid = Grid::of([segments, Grid::column_blocks(hidden, dy.dtype()), 1], 256);
        // SAFETY: dy is [S, H], dx is [R, H], and the segments, which the forward pass has checked, are all of its rows.
        unsafe { self.launch_of("segment_mean_backward", dy.dtype(), grid, &mut args) };
        dx
    }
}
