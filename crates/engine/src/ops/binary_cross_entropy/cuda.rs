use super::BinaryCrossEntropy;
use crate::Tensor;
use crate::cuda::Cuda;
use crate::ops::LossSum;

impl BinaryCrossEntropy for Cuda {
    fn binary_cross_entropy(&self, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        assert_eq!(z.shape(), targets.shape(), "binary_cross_entropy: targets must have the shape of the logits");
        self.elementwise_loss("binary_cross_entropy_all", z, targets, scale)
    }
}
