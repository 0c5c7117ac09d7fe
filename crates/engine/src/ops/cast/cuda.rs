use super::Cast;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::{DType, Tensor};

impl Cast for Cuda {
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        let kernel = match (x.dtype(), dtype) {
            (DType::F32, DType::BF16) => "cast_f32_to_bf16",
            (DType::BF16, DType::F32) => "cast_bf16_to_f32",
            (from, to) if from == to => return x.clone(),
            (from, to) => panic!("cast of {} to {}", from.name(), to.name()),
        };
        let mut y = self.empty(x.shape(), dtype);
        let count = x.count();
        let grid = Grid::each(count.div_ceil(8));
        // SAFETY: the kernel reads `count` elements of x and writes as many of y.
        unsafe { self.launch(kernel, grid, &mut args![x.device_ptr(), y.device_ptr_mut(), count]) };
        y
    }
}
