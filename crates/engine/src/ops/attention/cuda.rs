use super::{Attention, AttentionInputs};
use crate::cuda::Cuda;
use crate::{Gradients, Parameters, Tensor};

impl Attention for Cuda {
    fn attention(&self, inputs: &AttentionInputs, params: &Parameters) -> (Tensor, Tensor) {
        todo!()
    }

    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        log_sums: &Tensor,
        dy: &Tensor,
        params: &Parameters,
        grads: &mut Gradients,
    ) -> (Tensor, Option<Tensor>) {
        todo!()
    }
}
