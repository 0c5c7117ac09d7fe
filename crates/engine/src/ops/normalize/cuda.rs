use super::{EPSILON, Normalize};
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::{DType, Tensor};

impl Normalize for Cuda {
    fn normalize(&self, x: &Tensor) -> Tensor {
        let (rows, columns) = x.matrix("normalize");
        assert_eq!(x.dtype(), DType::F32, "normalize: {x:?}");
        let mut y = self.empty(x.shape(), DType::F32);
        let mut args = args![x.device_ptr(), y.device_ptr_mut(), rows as i32, columns as i32, EPSILON];
        // SAFETY: x and y have the same shape and are f32.
        unsafe { self.launch("normalize_rows", Grid::warp_for_each(rows), &mut args) };
        y
    }

    fn normalize_backward(&self, x: &Tensor, dy: &Tensor) -> Tensor {
        let (rows, columns) = x.matrix("normalize_backward");
        assert_eq!([x.dtype(), dy.dtype()], [DType::F32; 2], "normalize_backward: {dy:?}");
        let mut dx = self.empty(x.shape(), DType::F32);
        let (dy, dx_at) = (dy.device_ptr(), dx.device_ptr_mut());
        let mut args = args![x.device_ptr(), dy, dx_at, rows as i32, columns as i32, EPSILON];
        // SAFETY: x, dy and dx have the same shape and are f32.
        unsafe { self.launch("normalize_backward", Grid::warp_for_each(rows), &mut args) };
        dx
    }
}
