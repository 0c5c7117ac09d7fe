use super::MatMul;
use crate::Tensor;
use crate::cuda::Cuda;

impl MatMul for Cuda {
    fn matmul(&self, a: &Tensor, b: &Tensor, transposed: [bool; 2]) -> Tensor {
        todo!()
    }
}
