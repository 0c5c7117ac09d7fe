use super::Concat;
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;

impl Concat for Cuda {
    fn concat(&self, parts: &[&Tensor]) -> Tensor {
        let (tokens, _) = parts[0].matrix("concat");
        let width: usize = parts.iter().map(|part| part.matrix("concat").1).sum();
        let dtype = parts[0].dtype();
        let mut y = self.empty(&[tokens, width], dtype);
        let mut to = y.device_ptr_mut();
        for part in parts {
            let (rows, columns) = part.matrix("concat");
            assert_eq!((rows, part.dtype()), (tokens, dtype), "concat: rows and type of {part:?}");
            let mut args = args![part.device_ptr(), columns, to, width, rows as i32, columns as i32];
            // SAFETY: the part is [T, Hᵢ], and y is [T, Σ Hᵢ]; `to` is the first of the part's columns of y.
            unsafe { self.launch_of("concat_copy", dtype, Grid::warp_for_each(rows), &mut args) };
            to = to.element(columns, dtype);
        }
        y
    }

    fn concat_backward(&self, dy: &Tensor, widths: &[usize]) -> Vec<Tensor> {
        let (tokens, width) = dy.matrix("concat_backward");
        assert_eq!(widths.iter().sum::<usize>(), width, "concat_backward: {dy:?}");
        let mut from = dy.device_ptr();
        let part = |&columns: &usize| {
            let mut dx = self.empty(&[tokens, columns], dy.dtype());
            let mut args = args![from, width, dx.device_ptr_mut(), columns, tokens as i32, columns as i32];
            // SAFETY: dy is [T, Σ Hᵢ], and the part is [T, Hᵢ]; `from` is the first of the part's columns of dy.
            unsafe { self.launch_of("concat_copy", dy.dtype(), Grid::warp_for_each(tokens), &mut args) };
            from = from.element(columns, dy.dtype());
            dx
        };
        widths.iter().map(part).collect()
    }
}
