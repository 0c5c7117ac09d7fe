use std::ops::Range;

use super::{RelationInputs, RelationKl};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Mat, product_serial};
use crate::cpu::lanes::{self, VectorElement};
use crate::cpu::scores::{KlDivergence, Store, scratch};
use crate::cpu::sums::Accumulate;
use crate::cpu::{Cpu, mat_part, precision_of};
use crate::dtype::with_real;
use crate::gradients::Write;
use crate::ops::{LossSum, assert_segments};
use crate::{DType, Tensor};

/// Relations that a task computes at a time: a block of rows of one head's matrix, which stays in L2.
const BLOCK_RELATIONS: usize = 1 << 16;
/// Minimum number of rows of a block.
const MIN_ROWS: usize = 16;

impl RelationKl for Cpu {
    fn relation_kl(&self, inputs: RelationInputs<'_>, scale: Option<f32>) -> (LossSum, Option<Tensor>) {
        let RelationInputs { x, targets, cu_seqlens, heads } = inputs;
        let (tokens, columns) = x.matrix("relation_kl");
        let (target_tokens, target_columns) = targets.matrix("relation_kl");
        assert_eq!(
            (target_tokens, targets.dtype()),
            (tokens, x.dtype()),
            "relation_kl: tokens and type of the targets"
        );
        assert_eq!((columns % heads, target_columns % heads), (0, 0), "relation_kl: columns of {heads} heads");
        let ends = cu_seqlens.slice::<i32>();
        assert_segments("relation_kl", ends, tokens);
        let mut gradient = scale.map(|_| Tensor::host(x.shape(), x.dtype()));
        let mut losses = vec![0.0; (ends.len() - 1) * heads];
        let parts = DisjointSlice::new(&mut losses);
        with_real!(x.dtype(), E => {
            let dx = gradient.as_mut().map(|gradient| DisjointSlice::new(gradient.slice_mut::<E>()));
            self.pool.run((ends.len() - 1) * heads, &|task| {
                let (sequence, number) = (task / heads, task % heads);
                let rows = ends[sequence] as usize..ends[sequence + 1] as usize;
                let head = Head { cpu: self, inputs, rows, number };
                // SAFETY: each task has its own loss.
                let loss = unsafe { parts.part(task..task + 1) };
                loss[0] = head.run(scale.unwrap_or_default(), dx.as_ref());
            });
        });
        let sum = losses.into_iter().sum();
        (LossSum { sum, weight: tokens as f64, count: tokens, correct: 0 }, gradient)
    }
}

/// One head of one sequence: the unit of work.
struct Head<'a> {
    cpu: &'a Cpu,
    inputs: RelationInputs<'a>,
    /// The sequence's tokens.
    rows: Range<usize>,
    number: usize,
}

impl<'a> Head<'a> {
    /// The head's columns of a matrix, and their range.
    fn columns(&self, of: &'a Tensor) -> (Mat<'a>, Range<usize>) {
        let (_, columns) = of.matrix("relation_kl");
        let width = columns / self.inputs.heads;
        let range = self.number * width..(self.number + 1) * width;
        (mat_part(of, self.rows.clone(), range.clone()), range)
    }

    /// X Xᵀ/√D of a range of the sequence's tokens and all of its tokens.
    fn scores(&self, of: &'a Tensor, rows: &Range<usize>) -> Tensor {
        let (all, columns) = self.columns(of);
        let block = mat_part(of, self.rows.start + rows.start..self.rows.start + rows.end, columns.clone());
        let mut scores = scratch(rows, self.rows.len(), DType::F32);
        let (_, stride) = scores.matrix("relation_kl");
        let factor = 1.0 / (columns.len() as f32).sqrt();
        let epilogue = Store { y: DisjointSlice::new(scores.slice_mut()), stride, factor };
        product_serial(self.cpu.level, precision_of(of.dtype()), block, all.t(), &epilogue);
        scores
    }

    /// Returns the loss, and writes its gradient, multiplied by `scale`, to the head's columns of `dx`.
    fn run<E: VectorElement>(&self, scale: f32, dx: Option<&DisjointSlice<'_, E>>) -> f64 {
        let RelationInputs { x, targets, .. } = self.inputs;
        let (level, precision, tokens) = (self.cpu.level, precision_of(x.dtype()), self.rows.len());
        let (all, columns) = self.columns(x);
        let width = columns.len();
        let mut sums = Tensor::host(&[tokens, width], DType::F32);
        sums.slice_mut::<f32>().fill(0.0);
        let mut loss = 0.0;
        let block_rows = (BLOCK_RELATIONS / tokens).max(MIN_ROWS);
        for first in (0..tokens).step_by(block_rows) {
            let rows = first..tokens.min(first + block_rows);
            let (mut z, u) = (self.scores(x, &rows), self.scores(targets, &rows));
            let (_, stride) = z.matrix("relation_kl");
            let kl = KlDivergence {
                logits: z.slice_mut(),
                targets: u.slice::<f32>(),
                stride,
                columns: tokens,
                temperature: 1.0,
                scale: dx.map(|_| scale / (width as f32).sqrt()),
            };
            loss += level.run(kl).sum;
            if dx.is_none() {
                continue;
            }
            // dS X to the block's rows, dSᵀ X to all rows.
            let ds = mat_part(&z, 0..rows.len(), 0..tokens);
            let sums = sums.slice_mut::<f32>();
            let of_block = added_to(&mut sums[rows.start * width..rows.end * width], width);
            product_serial(level, precision, ds, all, &of_block);
            let block = mat_part(x, self.rows.start + rows.start..self.rows.start + rows.end, columns.clone());
            product_serial(level, precision, ds.t(), block, &added_to(sums, width));
        }
        let (_, stride) = x.matrix("relation_kl");
        for (row, sums) in self.rows.clone().zip(sums.slice::<f32>().chunks_exact(width)) {
            let Some(dx) = dx else { break };
            let at = row * stride + columns.start;
            // SAFETY: only this task writes these columns of the sequence's rows.
            let to = unsafe { dx.part(at..at + width) };
            level.run(lanes::Convert { from: sums, to });
        }
        loss
    }
}

fn added_to(sums: &mut [f32], columns: usize) -> Accumulate<'_> {
    Accumulate { sum: DisjointSlice::new(sums), columns, write: Write::Add, non_temporal: false }
}
