use super::{Add};
use crate::cuda::Cuda;
use crate::{Tensor};
use crate::random::Mask;

impl Add for Cuda {
    fn add(&self, x: &Tensor, residual: &Tensor, mask: Mask) -> Tensor {
        todo!()
    }
}
