use super::{Decoder, LinearKl, TargetLogits};
use crate::cuda::Cuda;
use crate::ops::LossSum;
use crate::{Gradients, Parameters, Tensor};

impl LinearKl for Cuda {
    fn linear_kl(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        targets: TargetLogits<'_>,
        temperature: f32,
        train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        todo!()
    }
}
