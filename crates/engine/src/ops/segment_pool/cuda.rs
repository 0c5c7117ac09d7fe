use super::SegmentPool;
use crate::cuda::Cuda;
use crate::{DType, Tensor};

impl SegmentPool for Cuda {
    fn segment_sum(&self, x: &Tensor, ends: &Tensor, weights: &Tensor) -> Tensor {
        todo!()
    }

    fn segment_sum_backward(&self, dy: &Tensor, ends: &Tensor, weights: &Tensor, dtype: DType) -> Tensor {
        todo!()
    }

    fn segment_max(&self, x: &Tensor, ends: &Tensor, skipped: usize) -> (Tensor, Tensor) {
        todo!()
    }

    fn segment_max_backward(&self, dy: &Tensor, rows: &Tensor, shape: &[usize], dtype: DType) -> Tensor {
        todo!()
    }
}
