use super::Add;
use crate::Tensor;
use crate::cuda::Cuda;
use crate::random::Mask;

impl Add for Cuda {
    fn add(&self, x: &Tensor, residual: &Tensor, mask: Mask) -> Tensor {
        todo!()
    }
}
