use super::{AddNorm, Operands};
use crate::cuda::sums::BLOCK;
use crate::cuda::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::{DType, Gradients, Tensor};

impl AddNorm for Cuda {
    fn add_norm(&self, operands: &Operands<'_>) -> (Tensor, Tensor) {
        let (tokens, hidden) = operands.x.matrix("add_norm");
        let mut y = self.empty(&[tokens, hidden], operands.x.dtype());
        let mut stats = self.empty(&[tokens, 2], DType::F32);
        let [x, residual, gamma, beta] = addresses(self, operands);
        let (y_at, stats_at) = (y.device_ptr_mut(), stats.device_ptr_mut());
        let mut args = args![
            x,
            residual,
            gamma,
            beta,
            y_at,
            stats_at,
            tokens as i32,
            hidden as i32,
            operands.norm.eps,
            operands.mask
        ];
        // SAFETY: x, the residual and y are [T, H], γ and β have H numbers, and the statistics are [T, 2].
        unsafe { self.launch_of("add_norm", operands.x.dtype(), Grid::warp_for_each(tokens), &mut args) };
        (y, stats)
    }

    fn add_norm_backward(
        &self,
        operands: &Operands<'_>,
        stats: &Tensor,
        dy: &Tensor,
        grads: &mut Gradients,
    ) -> (Tensor, Option<Tensor>) {
        let (tokens, hidden) = operands.x.matrix("add_norm_backward");
        let dtype = operands.x.dtype();
        let [x, residual, gamma, _] = addresses(self, operands);
        let mut dx = self.empty(&[tokens, hidden], dtype);
        let has_separate_dr = operands.mask.is_active() && operands.residual.is_some();
        let mut dr = has_separate_dr.then(|| self.empty(&[tokens, hidden], dtype));
        let dr_at = dr.as_mut().map_or(DevicePtr::NULL, Tensor::device_ptr_mut);
        let (stats, dy, rows, columns) = (stats.device_ptr(), dy.device_ptr(), tokens as i32, hidden as i32);
        let dx_at = dx.device_ptr_mut();
        let mut args = args![x, residual, gamma, stats, dy, dx_at, dr_at, rows, columns, operands.mask];
        // SAFETY: x, the residual, dy, dx and dr are [T, H], γ has H numbers, and the statistics are [T, 2].
        unsafe { self.launch_of("add_norm_backward", dtype, Grid::warp_for_each(tokens), &mut args) };

        let blocks = tokens.div_ceil(BLOCK);
        let mut partial = self.empty(&[blocks, 2, hidden], DType::F32);
        let mut args =
            args![x, residual, stats, dy, partial.device_ptr_mut(), rows, columns, BLOCK as i32, operands.mask];
        let grid = Grid::of([hidden.div_ceil(128), blocks, 1], 128);
        // SAFETY: as above; `partial` has two sums for each block and column.
        unsafe { self.launch_of("add_norm_sums", dtype, grid, &mut args) };
        for (id, offset) in [(Some(operands.norm.gamma), 0), (operands.norm.beta, hidden)] {
            let Some(id) = id else { continue };
            self.add_blocks(&partial, offset, 2 * hidden, grads, operands.params.range(id));
        }
        let dr = operands.residual.map(|_| dr.unwrap_or_else(|| dx.clone()));
        (dx, dr)
    }
}

/// x, the residual, γ and β.
fn addresses(cuda: &Cuda, operands: &Operands<'_>) -> [DevicePtr; 4] {
    let (_, hidden) = operands.x.matrix("add_norm");
    if let Some(r) = operands.residual {
        assert_eq!((r.shape(), r.dtype()), (operands.x.shape(), operands.x.dtype()), "add_norm: residual");
    }
    let parameter = |id| {
        assert_eq!(operands.params.size(id), hidden, "add_norm: size of γ or β");
        cuda.weights(operands.params, id)
    };
    let residual = operands.residual.map_or(DevicePtr::NULL, Tensor::device_ptr);
    let beta = operands.norm.beta.map_or(DevicePtr::NULL, parameter);
    [operands.x.device_ptr(), residual, parameter(operands.norm.gamma), beta]
}
