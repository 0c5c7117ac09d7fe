use super::{BiLstm, BiLstmBackward, Lstm, States};
use crate::cuda::Cuda;
use crate::{Gradients, Parameters, Tensor};

impl Lstm for Cuda {
    fn bilstm(&self, x: &Tensor, cu_seqlens: &Tensor, params: &Parameters, layer: BiLstm) -> (Tensor, States) {
        todo!()
    }

    fn bilstm_backward(&self, args: BiLstmBackward<'_>, grads: &mut Gradients) -> Option<Tensor> {
        todo!()
    }
}
