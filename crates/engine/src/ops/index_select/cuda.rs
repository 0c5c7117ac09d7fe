use super::IndexSelect;
use crate::cuda::{Cuda, Grid, Groups, args};
use crate::device::Memory;
use crate::{DType, Tensor};

impl IndexSelect for Cuda {
    fn index_select(&self, x: &Tensor, rows: &Tensor) -> Tensor {
        let (tokens, hidden) = x.matrix("index_select");
        if let Some(row) = rows.slice::<i32>().iter().find(|row| !(0..tokens as i32).contains(*row)) {
            panic!("index_select: row {row} of {tokens}");
        }
        let count = rows.count();
        let mut y = self.empty(&[count, hidden], x.dtype());
        let mut args = args![x.device_ptr(), rows.device_ptr(), y.device_ptr_mut(), count as i32, hidden as i32];
        // SAFETY: the indices are those of rows of x, and y has a row for each.
        unsafe { self.launch_of("index_select", x.dtype(), Grid::warp_for_each(count), &mut args) };
        y
    }

    fn index_select_backward(&self, dy: &Tensor, rows: &Tensor, tokens: usize, prior: Option<Tensor>) -> Tensor {
        let (_, hidden) = dy.matrix("index_select_backward");
        let mut dx = match prior {
            Some(prior) => prior.into_unique(),
            None => self.zeros(&[tokens, hidden], dy.dtype()),
        };
        let Groups { rows, starts, items } = Groups::new(rows.slice(), tokens, None);
        let count = rows.len();
        let groups = [rows, starts, items].concat();
        let groups = self.tensor_i32(&groups, &[groups.len()]);
        let at = |place| groups.device_ptr().element(place, DType::I32);
        let (rows, starts, items) = (at(0), at(count), at(2 * count + 1));
        let mut args = args![dy.device_ptr(), rows, starts, items, dx.device_ptr_mut(), count as i32, hidden as i32];
        let grid = Grid::of([count.div_ceil(4), Grid::column_blocks(hidden, dy.dtype()), 1], 128);
        // SAFETY: dx is [T, H], each of its rows is in at most one group, and the items are rows of dy.
        unsafe { self.launch_of("index_select_backward", dy.dtype(), grid, &mut args) };
        dx
    }
}
