use super::{MatMul};
use crate::cuda::Cuda;
use crate::{Tensor};

impl MatMul for Cuda {
    fn matmul(&self, a: &Tensor, b: &Tensor, transposed: [bool; 2]) -> Tensor {
        todo!()
    }
}
