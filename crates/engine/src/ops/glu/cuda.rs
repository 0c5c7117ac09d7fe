use super::{Activation, Glu};
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::ops::linear::activation_code;

impl Glu for Cuda {
    fn glu(&self, x: &Tensor, activation: Activation) -> Tensor {
        let (tokens, columns) = x.matrix("glu");
        assert!(columns.is_multiple_of(2), "glu: {x:?}");
        let width = columns / 2;
        let mut y = self.empty(&[tokens, width], x.dtype());
        let y_at = y.device_ptr_mut();
        let mut args = args![x.device_ptr(), y_at, tokens as i32, width as i32, activation_code(activation)];
        // SAFETY: x is [T, 2F] and y is [T, F].
        unsafe { self.launch_of("glu_forward", x.dtype(), Grid::warp_for_each(tokens), &mut args) };
        y
    }

    fn glu_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Tensor {
        let (tokens, columns) = x.matrix("glu_backward");
        let width = columns / 2;
        let mut dx = self.empty(&[tokens, columns], x.dtype());
        let (dy, dx_at) = (dy.device_ptr(), dx.device_ptr_mut());
        let mut args = args![x.device_ptr(), dy, dx_at, tokens as i32, width as i32, activation_code(activation)];
        // SAFETY: x and dx are [T, 2F], and dy is [T, F].
        unsafe { self.launch_of("glu_backward", x.dtype(), Grid::warp_for_each(tokens), &mut args) };
        dx
    }
}
