//! Sums that several ops need: of a matrix's columns, and of products that add up to a weight's gradient.

use std::ops::Range;

use super::Cpu;
use super::disjoint::DisjointSlice;
use super::gemm::Epilogue;
use super::lanes::{self, each_part, load};
use super::level::{Isa, Vectorized};
use crate::dtype::Real;
use crate::gradients::Write;
use crate::{DType, Tensor};

/// Rows a task takes. Part of the result's definition: sums of blocks are added in order.
const ROWS: usize = 64;

/// Column sums of each block of rows [blocks, C], which are then added in order.
pub(crate) struct Partial(Tensor);

impl Partial {
    pub(crate) fn new(rows: usize, columns: usize) -> Partial {
        Partial(Tensor::host(&[rows.div_ceil(ROWS), columns], DType::F32))
    }

    /// Runs `body` for each block of rows, with zeros where its sums are to be.
    pub(crate) fn fill(&mut self, cpu: &Cpu, rows: usize, body: impl Fn(Range<usize>, &mut [f32]) + Sync) {
        let (_, columns) = self.0.matrix("column sums");
        let sums = DisjointSlice::new(self.0.slice_mut::<f32>());
        cpu.for_blocks(rows, ROWS, |range| {
            let block = range.start / ROWS;
            // SAFETY: each block of rows has its own sums.
            let sums = unsafe { sums.part(block * columns..(block + 1) * columns) };
            sums.fill(0.0);
            body(range, sums);
        });
    }

    /// Adds the blocks' sums to `sums`.
    pub(crate) fn add_to(&self, cpu: &Cpu, sums: &mut [f32]) {
        cpu.level.run(ColumnSums { d: self.0.slice::<f32>(), sums });
    }
}

/// Adds rows to `sums`, one after the other.
pub(crate) struct ColumnSums<'a, E> {
    pub(crate) d: &'a [E],
    pub(crate) sums: &'a mut [f32],
}

impl<E: Real> Vectorized for ColumnSums<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let ColumnSums { d, sums } = self;
        for row in d.chunks_exact(sums.len().max(1)) {
            each_part!(row.len(), part => lanes::add_to(&mut sums[part.clone()], load(&row[part])));
        }
    }
}

/// Stores a product in an f32 matrix, or adds it: a weight's gradient.
pub(crate) struct Accumulate<'a> {
    pub(crate) sum: DisjointSlice<'a, f32>,
    pub(crate) columns: usize,
    pub(crate) write: Write,
    /// Whether what is stored is read only much later.
    pub(crate) far: bool,
}

impl Epilogue for Accumulate<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            // SAFETY: tiles are disjoint.
            let sum = unsafe { self.sum.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            if self.write == Write::Add {
                each_part!(cols, part => lanes::add_to(&mut sum[part.clone()], load(&acc[part])));
            } else if self.far {
                lanes::stream::<I, _>(acc, sum);
            } else {
                sum.copy_from_slice(acc);
            }
        }
    }
}
