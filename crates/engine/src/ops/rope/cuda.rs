use super::{Rope, RopeInputs};
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;

impl Rope for Cuda {
    fn rope(&self, x: &Tensor, inputs: &RopeInputs, inverse: bool) -> Tensor {
        let (tokens, columns) = x.matrix("rope");
        let (rows, width) = inputs.rotation.table.matrix("rope");
        let positions = inputs.positions.slice::<i32>();
        assert_eq!((positions.len(), columns), (tokens, 3 * inputs.heads * width), "rope: {x:?}");
        assert!(positions.iter().all(|at| (0..rows as i32).contains(at)), "rope: a position outside 0..{rows}");
        let mut y = self.empty(&[tokens, columns], x.dtype());
        let (positions, table) = (inputs.positions.device_ptr(), inputs.rotation.table.device_ptr());
        let (y_at, tokens_arg, columns) = (y.device_ptr_mut(), tokens as i32, columns as i32);
        let mut args = args![x.device_ptr(), y_at, positions, table, tokens_arg, columns, width as i32, inverse];
        // SAFETY: x and y are [T, 3H], H is a multiple of the width of a head, and the positions are rows of the table.
        unsafe { self.launch_of("rope_rotate", x.dtype(), Grid::warp_for_each(tokens), &mut args) };
        y
    }
}
