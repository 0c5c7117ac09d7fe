use super::{Embed, EmbedIndices, EmbedTables};
use crate::cuda::Cuda;
use crate::{DType, Gradients, Parameters, Tensor};

impl Embed for Cuda {
    fn embed(&self, indices: &EmbedIndices, params: &Parameters, tables: EmbedTables, dtype: DType) -> Tensor {
        todo!()
    }

    fn embed_backward(
        &self,
        indices: &EmbedIndices,
        dy: &Tensor,
        params: &Parameters,
        tables: EmbedTables,
        grads: &mut Gradients,
    ) {
        todo!()
    }
}
