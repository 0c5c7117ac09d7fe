use super::CosineEmbeddingLoss;
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::ops::LossSum;

impl CosineEmbeddingLoss for Cuda {
    fn cosine_embedding_loss(&self, x: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        let (rows, columns) = x.matrix("cosine_embedding_loss");
        let expected = (x.shape(), x.dtype());
        assert_eq!((targets.shape(), targets.dtype()), expected, "cosine_embedding_loss: targets");
        let mut gradient = self.empty(x.shape(), x.dtype());
        let mut parts = self.loss_parts(rows);
        let (dx, parts_at) = (gradient.device_ptr_mut(), parts.device_ptr_mut());
        let mut args = args![x.device_ptr(), targets.device_ptr(), dx, parts_at, rows as i32, columns as i32, scale];
        // SAFETY: x, the targets and dx are [rows, columns], and there is a part for each row.
        unsafe { self.launch_of("cosine_embedding_loss_rows", x.dtype(), Grid::warp_for_each(rows), &mut args) };
        (self.loss_total(parts), gradient)
    }
}
