use super::Add;
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::random::Mask;

impl Add for Cuda {
    fn add(&self, x: &Tensor, residual: &Tensor, mask: Mask) -> Tensor {
        assert_eq!((x.shape(), x.dtype()), (residual.shape(), residual.dtype()), "add: residual");
        let mut y = self.empty(x.shape(), x.dtype());
        let mut args = args![x.device_ptr(), residual.device_ptr(), y.device_ptr_mut(), x.count(), mask];
        // SAFETY: x, the residual and y have the same shape and type.
        unsafe { self.launch_of("add_residual", x.dtype(), Grid::each_vector(x), &mut args) };
        y
    }
}
