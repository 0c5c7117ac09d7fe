use super::IndexSelect;
use crate::Tensor;
use crate::cuda::Cuda;

impl IndexSelect for Cuda {
    fn index_select(&self, x: &Tensor, rows: &Tensor) -> Tensor {
        todo!()
    }

    fn index_select_backward(&self, dy: &Tensor, rows: &Tensor, tokens: usize, prior: Option<Tensor>) -> Tensor {
        todo!()
    }
}
