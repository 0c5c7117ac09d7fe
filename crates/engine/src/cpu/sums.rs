//! Sums that several ops use: column sums of matrices, and matrix products that are added to a gradient.

use std::ops::Range;

use super::Cpu;
use super::disjoint::DisjointSlice;
use super::gemm::Epilogue;
use super::lanes::{self, VectorElement, each_part, load};
use super::level::{Isa, Vectorized};
use crate::dtype::{Real, with_real};
use crate::gradients::Write;
use crate::{DType, Tensor};

/// Rows per block. Part of the result's definition: the sums of blocks are added in order.
const ROWS: usize = 64;

/// Column sums of each block of rows, [blocks, C], to be added in order.
pub(crate) struct BlockSums(Tensor);

impl BlockSums {
    pub(crate) fn new(rows: usize, columns: usize) -> BlockSums {
        BlockSums(Tensor::host(&[rows.div_ceil(ROWS), columns], DType::F32))
    }

    /// Runs `body` for each block of rows; its second argument is zero-filled memory for the block's column sums.
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

    /// Adds the sums of all blocks to `sums`, in order.
    pub(crate) fn add_to(&self, cpu: &Cpu, sums: &mut [f32]) {
        cpu.level.run(ColumnSums { d: self.0.slice::<f32>(), sums });
    }
}

/// Adds the rows of a matrix to `sums`, in order.
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

impl Cpu {
    /// Adds the sum over the rows of `d` [T, C] to `sums` [C].
    pub(crate) fn add_column_sums(&self, d: &Tensor, sums: &mut [f32]) {
        let (rows, columns) = d.matrix("add_column_sums");
        assert_eq!(columns, sums.len(), "add_column_sums");
        let mut block_sums = BlockSums::new(rows, columns);
        with_real!(d.dtype(), E => {
            let d = d.slice::<E>();
            block_sums.fill(self, rows, |range, sums| {
                self.level.run(ColumnSums { d: &d[range.start * columns..range.end * columns], sums });
            });
        });
        block_sums.add_to(self, sums);
    }
}

/// The epilogue for a weight's gradient: stores the product in an f32 matrix or adds it.
pub(crate) struct Accumulate<'a> {
    pub(crate) sum: DisjointSlice<'a, f32>,
    pub(crate) columns: usize,
    pub(crate) write: Write,
    /// Whether to store around the caches, because the result is read only much later.
    pub(crate) non_temporal: bool,
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
            } else if self.non_temporal {
                lanes::stream::<I, _>(acc, sum);
            } else {
                sum.copy_from_slice(acc);
            }
        }
    }
}

/// Stores a product plus the prior gradient: the gradient of an input.
pub(crate) struct StoreSum<'a, E> {
    pub(crate) y: DisjointSlice<'a, E>,
    pub(crate) prior: Option<&'a [E]>,
    pub(crate) columns: usize,
}

impl<E: VectorElement> Epilogue for StoreSum<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            let acc = &mut acc[r * stride..r * stride + cols];
            if let Some(prior) = self.prior {
                let prior = &prior[at..at + cols];
                each_part!(cols, part => lanes::add_to(&mut acc[part.clone()], load(&prior[part])));
            }
            // SAFETY: tiles are disjoint.
            lanes::stream::<I, _>(acc, unsafe { self.y.part(at..at + cols) });
        }
    }
}
