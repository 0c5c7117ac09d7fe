use super::SegmentPool;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::ops::assert_segments;
use crate::{DType, Tensor};

/// A block for each segment and some columns of rows of this type.
fn grid(segments: usize, hidden: usize, dtype: DType) -> Grid {
    Grid::of([segments, Grid::column_blocks(hidden, dtype), 1], 256)
}

impl SegmentPool for Cuda {
    fn segment_sum(&self, x: &Tensor, ends: &Tensor, weights: &Tensor) -> Tensor {
        let (rows, hidden) = x.matrix("segment_sum");
        assert_segments("segment_sum", ends.slice(), rows);
        assert_eq!((weights.count(), weights.dtype()), (rows, DType::F32), "segment_sum: weights");
        let segments = ends.count() - 1;
        let mut y = self.empty(&[segments, hidden], DType::F32);
        let y_at = y.device_ptr_mut();
        let mut args = args![x.device_ptr(), ends.device_ptr(), weights.device_ptr(), y_at, hidden as i32];
        // SAFETY: x is [R, H] and has R weights, the segments are rows of it, and y is [S, H].
        unsafe { self.launch_of("segment_sum", x.dtype(), grid(segments, hidden, x.dtype()), &mut args) };
        y
    }

    fn segment_sum_backward(&self, dy: &Tensor, ends: &Tensor, weights: &Tensor, dtype: DType) -> Tensor {
        let (segments, hidden) = dy.matrix("segment_sum_backward");
        let mut dx = self.empty(&[weights.count(), hidden], dtype);
        let dx_at = dx.device_ptr_mut();
        let mut args = args![dy.device_ptr(), ends.device_ptr(), weights.device_ptr(), dx_at, hidden as i32];
        // SAFETY: dy is [S, H], dx is [R, H], and the segments, which the forward pass has checked, are all of its rows.
        unsafe { self.launch_of("segment_sum_backward", dtype, grid(segments, hidden, dtype), &mut args) };
        dx
    }

    fn segment_max(&self, x: &Tensor, ends: &Tensor, skipped: usize) -> (Tensor, Tensor) {
        let (rows, hidden) = x.matrix("segment_max");
        let of_segments = ends.slice::<i32>();
        assert_segments("segment_max", of_segments, rows);
        if let Some(segment) = of_segments.windows(2).find(|segment| (segment[1] - segment[0]) as usize <= skipped) {
            panic!("segment_max: no row is left of {segment:?} without the first {skipped}");
        }
        let segments = ends.count() - 1;
        let (mut y, mut of) =
            (self.empty(&[segments, hidden], DType::F32), self.empty(&[segments, hidden], DType::I32));
        let (y_at, of_at) = (y.device_ptr_mut(), of.device_ptr_mut());
        let mut args = args![x.device_ptr(), ends.device_ptr(), y_at, of_at, hidden as i32, skipped as i32];
        // SAFETY: x is [R, H], the segments are rows of it, and y and the rows of the maxima are [S, H].
        unsafe { self.launch_of("segment_max", x.dtype(), grid(segments, hidden, x.dtype()), &mut args) };
        (y, of)
    }

    fn segment_max_backward(&self, dy: &Tensor, rows: &Tensor, shape: &[usize], dtype: DType) -> Tensor {
        let (_, hidden) = dy.matrix("segment_max_backward");
        let mut dx = self.zeros(shape, dtype);
        let (count, dx_at) = (dy.count(), dx.device_ptr_mut());
        let mut args = args![dy.device_ptr(), rows.device_ptr(), dx_at, count, hidden as i32];
        // SAFETY: dy and the rows, which are rows of dx, are [S, H].
        unsafe { self.launch_of("segment_max_backward", dtype, Grid::each(count), &mut args) };
        dx
    }
}
