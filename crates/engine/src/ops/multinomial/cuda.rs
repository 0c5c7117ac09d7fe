use super::Multinomial;
use crate::Tensor;
use crate::cuda::Cuda;

impl Multinomial for Cuda {
    fn multinomial(&self, logits: &Tensor, uniform: &[f64]) -> Vec<i32> {
        todo!()
    }
}
