use super::{Activation, Glu};
use crate::Tensor;
use crate::cuda::Cuda;

impl Glu for Cuda {
    fn glu(&self, x: &Tensor, activation: Activation) -> Tensor {
        todo!()
    }

    fn glu_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Tensor {
        todo!()
    }
}
