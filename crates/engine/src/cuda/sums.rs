//! Sums over rows in a fixed order: the gradients of biases and gains.

use std::ops::Range;

use super::{Cuda, Grid, args};
use crate::device::Memory;
use crate::{DType, Gradients, Tensor};

/// Rows that are summed first, as on the CPU.
pub(crate) const BLOCK: usize = 64;

impl Cuda {
    /// Adds the sums of the columns of x [T, H] to the gradients at `range`, or of those that
    /// are not padding to a multiple of eight columns.
    pub(crate) fn add_column_sums(&self, x: &Tensor, grads: &mut Gradients, range: Range<usize>) {
        let (rows, columns) = x.matrix("column sums");
        let is_padded = range.len().next_multiple_of(8) == columns;
        assert!(is_padded || range.len() == columns, "column sums: gradients for {x:?}");
        let blocks = rows.div_ceil(BLOCK);
        let mut partial = self.empty(&[blocks, columns], DType::F32);
        let grid = Grid::of([columns.div_ceil(128), blocks, 1], 128);
        let mut args = args![x.device_ptr(), partial.device_ptr_mut(), rows as i32, columns as i32, BLOCK as i32];
        // SAFETY: x is [T, H], and `partial` has a sum for each block and column.
        unsafe { self.launch_of("block_sums", x.dtype(), grid, &mut args) };
        self.add_blocks(&partial, 0, columns, grads, range);
    }

    /// Adds the sums over the blocks of `partial` to the gradients at `range`. Each block has `stride` numbers, of which those from
    /// `offset` belong to this range.
    pub(crate) fn add_blocks(
        &self,
        partial: &Tensor,
        offset: usize,
        stride: usize,
        grads: &mut Gradients,
        range: Range<usize>,
    ) {
        let (count, blocks) = (range.len(), partial.count() / stride);
        assert!(offset + count <= stride, "block sums");
        let (to, adds) = self.gradients(grads, range);
        let from = partial.device_ptr().element(offset, DType::F32);
        let mut args = args![from, to, blocks as i32, stride, count, adds];
        // SAFETY: each block has numbers for the whole range, which is within the gradients.
        unsafe { self.launch("add_blocks", Grid::new(count.div_ceil(128), 128), &mut args) };
    }
}
