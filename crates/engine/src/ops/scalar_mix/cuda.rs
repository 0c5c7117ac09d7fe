use super::{MixWeights, ScalarMix};
use crate::cuda::Cuda;
use crate::{Gradients, Parameters, Tensor};

impl ScalarMix for Cuda {
    fn scalar_mix(&self, parts: &[Tensor], params: &Parameters, mix: MixWeights) -> Tensor {
        todo!()
    }

    fn scalar_mix_backward(
        &self,
        dy: &Tensor,
        parts: &[(Tensor, bool)],
        params: &Parameters,
        mix: MixWeights,
        grads: &mut Gradients,
    ) -> Vec<Option<Tensor>> {
        todo!()
    }
}
