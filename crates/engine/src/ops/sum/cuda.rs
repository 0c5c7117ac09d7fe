use super::Sum;
use crate::Tensor;
use crate::cuda::Cuda;
use std::ops::Range;

impl Sum for Cuda {
    fn sum(&self, a: Tensor, b: &Tensor) -> Tensor {
        todo!()
    }

    fn sum_ranges(&self, addends: &[&Tensor], ranges: &[Range<usize>], to: &mut [f32]) {
        todo!()
    }
}
