use super::Dropout;
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::random::Mask;

impl Dropout for Cuda {
    fn dropout(&self, x: Tensor, mask: Mask) -> Tensor {
        let mut y = self.empty(x.shape(), x.dtype());
        let mut args = args![x.device_ptr(), y.device_ptr_mut(), x.count(), mask];
        // SAFETY: x and y have the same shape and type.
        unsafe { self.launch_of("dropout_all", x.dtype(), Grid::each_vector(&x), &mut args) };
        y
    }
}
