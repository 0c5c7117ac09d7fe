use super::{Rope, RopeInputs};
use crate::cuda::Cuda;
use crate::{Tensor};

impl Rope for Cuda {
    fn rope(&self, x: &Tensor, inputs: &RopeInputs, inverse: bool) -> Tensor {
        todo!()
    }
}
