//! Sums of losses: kernels write a part for each row or block, and one block adds them in a fixed order.

use super::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::ops::LossSum;
use crate::{DType, Tensor};

/// 32-bit words of a `LossPart` of the kernels.
const WORDS: usize = 8;

impl Cuda {
    /// Memory for `count` values of `LossPart`, losses.cu.
    pub(crate) fn loss_parts(&self, count: usize) -> Tensor {
        self.empty(&[count, WORDS], DType::I32)
    }

    /// The address of part number `index`.
    pub(crate) fn loss_part(&self, parts: DevicePtr, index: usize) -> DevicePtr {
        parts.element(index * WORDS, DType::I32)
    }

    /// A loss of each element: z, targets (f32) of the same shape → the sum, and scale · dz. The kernel's blocks take 2,048 elements each.
    pub(crate) fn elementwise_loss(&self, kernel: &str, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        assert_eq!(targets.dtype(), DType::F32, "{kernel}: targets");
        let (count, blocks) = (z.count(), z.count().div_ceil(2048));
        let mut gradient = self.empty(z.shape(), z.dtype());
        let mut parts = self.loss_parts(blocks);
        let (dz, parts_at) = (gradient.device_ptr_mut(), parts.device_ptr_mut());
        let mut args = args![z.device_ptr(), targets.device_ptr(), dz, parts_at, count, scale];
        // SAFETY: z, its targets and dz have `count` elements, and there is a part for each block.
        unsafe { self.launch_of(kernel, z.dtype(), Grid::new(blocks, 256), &mut args) };
        (self.loss_total(parts), gradient)
    }

    /// The sum of all parts, which kernels have written. Waits for them.
    pub(crate) fn loss_total(&self, mut parts: Tensor) -> LossSum {
        let (count, _) = parts.matrix("loss_total");
        if count == 0 {
            return LossSum::default();
        }
        let mut total = self.loss_parts(1);
        let mut args = args![parts.device_ptr_mut(), total.device_ptr_mut(), count];
        // SAFETY: there are `count` parts, and room for one.
        unsafe { self.launch("loss_total", Grid::new(1, 1024), &mut args) };
        let words = total.to_vec_i32();
        let number = |i: usize| u64::from(words[2 * i] as u32) | u64::from(words[2 * i + 1] as u32) << 32;
        LossSum {
            sum: f64::from_bits(number(0)),
            weight: f64::from_bits(number(1)),
            count: number(2) as usize,
            correct: number(3) as usize,
        }
    }
}
