use super::MseLoss;
use crate::Tensor;
use crate::cuda::Cuda;
use crate::ops::LossSum;

impl MseLoss for Cuda {
    fn mse_loss(&self, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        assert_eq!(z.shape(), targets.shape(), "mse_loss: targets must have the shape of the predictions");
        self.elementwise_loss("mse_loss_all", z, targets, scale)
    }
}
