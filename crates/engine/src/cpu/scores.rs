//! Blocks of rows of scores and logits, for ops with a softmax.

use std::ops::Range;

use super::disjoint::DisjointSlice;
use super::gemm::Epilogue;
use super::lanes::{self, LANES, VectorElement, each_part, lane_max, lane_sum, load, store};
use super::level::{Isa, Vectorized};
use super::math::{exp_nonpositive, ln};
use crate::ops::LossSum;
use crate::{DType, Tensor};

/// A matrix for a block, whose rows are padded to full vectors. The padding is arbitrary.
pub(crate) fn scratch(rows: &Range<usize>, columns: usize, dtype: DType) -> Tensor {
    Tensor::host(&[rows.len(), columns.next_multiple_of(LANES)], dtype)
}

/// Stores factor · C in an f32 matrix whose rows are padded to full vectors.
pub(crate) struct Store<'a> {
    pub(crate) y: DisjointSlice<'a, f32>,
    pub(crate) stride: usize,
    pub(crate) factor: f32,
}

impl Epilogue for Store<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let cols = cols.next_multiple_of(LANES);
        for r in 0..rows {
            let at = (row + r) * self.stride + col;
            // SAFETY: tiles are disjoint, and only this task writes the matrix.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            each_part!(cols, part => {
                store::<I, _>(lanes::map(load(&acc[part.clone()]), |a| self.factor * a), &mut y[part]);
            });
        }
    }
}

/// For some rows of logits z and of other logits u: the sum of KL(q ‖ p) = Σᵥ qᵥ (log qᵥ − log pᵥ) with p = softmax(z/T)
/// and q = softmax(u/T). The number of correct rows is the number of those whose z is largest where u is.
pub(crate) struct KlDivergence<'a, E> {
    /// z; with a scale, overwritten by scale · (p − q).
    pub(crate) logits: &'a mut [f32],
    /// u.
    pub(crate) targets: &'a [E],
    /// Numbers per row of either, of which the first `columns` are read.
    pub(crate) stride: usize,
    pub(crate) columns: usize,
    pub(crate) temperature: f32,
    pub(crate) scale: Option<f32>,
}

impl<E: VectorElement> Vectorized for KlDivergence<'_, E> {
    type Output = LossSum;
    #[inline(always)]
    fn call<I: Isa>(self) -> LossSum {
        let KlDivergence { logits, targets, stride, columns, temperature, scale } = self;
        let factor = 1.0 / temperature;
        let mut loss = LossSum::default();
        for (z, u) in logits.chunks_exact_mut(stride).zip(targets.chunks_exact(stride)) {
            let (z, u) = (&mut z[..columns], &u[..columns]);
            let z_max = lane_max!(I, columns, part => load(&z[part]));
            let u_max = lane_max!(I, columns, part => load(&u[part]));
            let z_sum = lane_sum!(I, columns, part => {
                lanes::map(load(&z[part]), |z| exp_nonpositive::<I>((z - z_max) * factor))
            });
            let u_sum = lane_sum!(I, columns, part => {
                lanes::map(load(&u[part]), |u| exp_nonpositive::<I>((u - u_max) * factor))
            });
            // Σ exp u' · (u' − z'), where u' and z' are the differences from the maxima.
            let cross = lane_sum!(I, columns, part => {
                lanes::zip(load(&z[part.clone()]), load(&u[part]), |z, u| {
                    let (z, u) = ((z - z_max) * factor, (u - u_max) * factor);
                    exp_nonpositive::<I>(u) * (u - z)
                })
            });
            let kl = f64::from(cross / u_sum) + f64::from(ln::<I>(z_sum) - ln::<I>(u_sum));
            let best = u.iter().position(|u| u.to_f32() == u_max);
            let correct = usize::from(best.is_some_and(|best| z[best] >= z_max));
            loss += LossSum { sum: kl, weight: 1.0, count: 1, correct };
            if let Some(scale) = scale {
                let (p_factor, q_factor) = (scale / z_sum, scale / u_sum);
                each_part!(columns, part => {
                    let dz = lanes::zip(load(&z[part.clone()]), load(&u[part.clone()]), |z, u| {
                        p_factor * exp_nonpositive::<I>((z - z_max) * factor)
                            - q_factor * exp_nonpositive::<I>((u - u_max) * factor)
                    });
                    store::<I, _>(dz, &mut z[part]);
                });
            }
        }
        loss
    }
}
