use super::{Sum};
use crate::cuda::Cuda;
use crate::{Tensor};
use std::ops::Range;

impl Sum for Cuda {
    fn sum(&self, a: Tensor, b: &Tensor) -> Tensor {
        todo!()
    }

    fn sum_ranges(&self, addends: &[&Tensor], ranges: &[Range<usize>], to: &mut [f32]) {
        todo!()
    }
}
