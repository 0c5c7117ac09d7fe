use super::{RelationInputs, RelationKl};
use crate::Tensor;
use crate::cuda::Cuda;
use crate::ops::LossSum;

impl RelationKl for Cuda {
    fn relation_kl(&self, inputs: RelationInputs<'_>, scale: Option<f32>) -> (LossSum, Option<Tensor>) {
        todo!()
    }
}
