use super::{Multinomial};
use crate::cuda::Cuda;
use crate::{Tensor};

impl Multinomial for Cuda {
    fn multinomial(&self, logits: &Tensor, uniform: &[f64]) -> Vec<i32> {
        todo!()
    }
}
