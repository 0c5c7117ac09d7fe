use super::Cast;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::{DType, Tensor};

impl Cast for Cpu {
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        let mut y = Tensor::host(x.shape(), dtype);
        with_real!(x.dtype(), A => {
            with_real!(dtype, B => {
                for (y, x) in y.slice_mut::<B>().iter_mut().zip(x.slice::<A>()) {
                    *y = B::from_f32(x.to_f32());
                }
            });
        });
        y
    }
}
