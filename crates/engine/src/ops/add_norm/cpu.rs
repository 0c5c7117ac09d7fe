use super::{AddNorm, Operands};
use crate::cpu::Cpu;
use crate::cpu::arena::{gradient_sums, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, LANES, VectorElement, each_part, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized, mul_add};
use crate::dtype::with_real;
use crate::random::Mask;
use crate::{DType, Gradients, Tensor};

/// Rows per task. Part of the result's definition: the gradients of γ and β are summed block by block.
const BLOCK: usize = 64;

impl AddNorm for Cpu {
    fn add_norm(&self, operands: &Operands<'_>) -> (Tensor, Tensor) {
        let (tokens, hidden) = operands.x.matrix("add_norm");
        let mut y = Tensor::host(&[tokens, hidden], operands.x.dtype());
        let mut stats = Tensor::host(&[tokens, 2], DType::F32);
        with_real!(operands.x.dtype(), E => {
            let (y, stats) = (DisjointSlice::new(y.slice_mut::<E>()), DisjointSlice::new(stats.slice_mut::<f32>()));
            let rows = Rows::<E>::new(operands);
            self.for_blocks(tokens, BLOCK, |range| {
                // SAFETY: blocks of rows are disjoint.
                let (y, stats) = unsafe {
                    (y.part(range.start * hidden..range.end * hidden), stats.part(range.start * 2..range.end * 2))
                };
                self.level.run(Forward { rows, first: range.start, y, stats });
            });
        });
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
        let has_separate_dr = operands.mask.is_active() && operands.residual.is_some();
        let dtype = operands.x.dtype();
        let mut dx = Tensor::host(&[tokens, hidden], dtype);
        let mut dr = Tensor::host(&[if has_separate_dr { tokens } else { 0 }, hidden], dtype);
        let blocks = tokens.div_ceil(BLOCK);
        let mut partial = Tensor::host(&[blocks, 2, hidden], DType::F32);
        with_real!(dtype, E => {
            let (dx, dr) = (DisjointSlice::new(dx.slice_mut::<E>()), DisjointSlice::new(dr.slice_mut::<E>()));
            let (partial, stats, dy) = (DisjointSlice::new(partial.slice_mut::<f32>()), stats.slice::<f32>(), dy.slice::<E>());
            let rows = Rows::<E>::new(operands);
            self.for_blocks(tokens, BLOCK, |range| {
                let (elements, block) = (range.start * hidden..range.end * hidden, range.start / BLOCK);
                // SAFETY: blocks of rows are disjoint, and so are their partial sums.
                let (dx, dr, partial) = unsafe {
                    let dr = if has_separate_dr { dr.part(elements.clone()) } else { &mut [][..] };
                    (dx.part(elements.clone()), dr, partial.part(block * 2 * hidden..(block + 1) * 2 * hidden))
                };
                let (dgamma, dbeta) = partial.split_at_mut(hidden);
                let stats = &stats[range.start * 2..range.end * 2];
                self.level.run(BackwardBlock { rows, first: range.start, stats, dy: &dy[elements], dx, dr, dgamma, dbeta });
            });
        });
        let partial = partial.slice::<f32>();
        for (id, offset) in [(Some(operands.norm.gamma), 0), (operands.norm.beta, hidden)] {
            let Some(id) = id else { continue };
            let gradient = gradient_sums(grads, operands.params.range(id));
            for block in partial.chunks_exact(2 * hidden) {
                for (g, p) in gradient.iter_mut().zip(&block[offset..offset + hidden]) {
                    *g += p;
                }
            }
        }
        let dr = match operands.residual {
            None => None,
            Some(_) if has_separate_dr => Some(dr),
            Some(_) => Some(dx.clone()),
        };
        (dx, dr)
    }
}

/// Computes the rows of s = r + dropout(x).
struct Rows<'a, E> {
    x: &'a [E],
    residual: Option<&'a [E]>,
    mask: Mask,
    gamma: &'a [f32],
    /// Empty without an offset.
    beta: &'a [f32],
    eps: f32,
}

impl<E> Clone for Rows<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Rows<'_, E> {}

impl<'a, E: VectorElement> Rows<'a, E> {
    fn new(operands: &Operands<'a>) -> Self {
        let (_, hidden) = operands.x.matrix("add_norm");
        if let Some(r) = operands.residual {
            assert_eq!((r.shape(), r.dtype()), (operands.x.shape(), operands.x.dtype()), "add_norm: residual");
        }
        let gamma = weights(operands.params, operands.norm.gamma);
        let beta = operands.norm.beta.map_or(&[][..], |beta| weights(operands.params, beta));
        assert!(gamma.len() == hidden && [0, hidden].contains(&beta.len()), "add_norm: size of γ or β");
        let residual = operands.residual.map(Tensor::slice::<E>);
        Rows { x: operands.x.slice(), residual, mask: operands.mask, gamma, beta, eps: operands.norm.eps }
    }

    /// Writes row `t` of s to `s`.
    #[inline(always)]
    fn sum_row<I: Isa>(&self, t: usize, s: &mut [f32]) {
        let row = t * s.len()..(t + 1) * s.len();
        let x = &self.x[row.clone()];
        let residual = self.residual.map(|residual| &residual[row.clone()]);
        each_part!(s.len(), part => {
            let mut sum = load(&x[part.clone()]);
            if self.mask.is_active() {
                sum = lanes::zip(sum, lanes::dropout_factors(self.mask, row.start + part.start), |x, factor| x * factor);
            }
            if let Some(residual) = residual {
                sum = lanes::zip(sum, load(&residual[part.clone()]), |x, r| x + r);
            }
            store::<I, _>(sum, &mut s[part]);
        });
    }
}

struct Forward<'a, E> {
    rows: Rows<'a, E>,
    first: usize,
    y: &'a mut [E],
    stats: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let hidden = self.rows.gamma.len();
        let (gamma, beta) = (&self.rows.gamma[..hidden], self.rows.beta);
        let mut s = vec![0f32; hidden];
        for (row, (y, stats)) in self.y.chunks_exact_mut(hidden).zip(self.stats.chunks_exact_mut(2)).enumerate() {
            self.rows.sum_row::<I>(self.first + row, &mut s);
            let mean = lane_sum!(I, hidden, part => load(&s[part])) / hidden as f32;
            let variance = lane_sum!(I, hidden, part => lanes::map(load(&s[part]), |s| (s - mean) * (s - mean)));
            let scale = 1.0 / (variance / hidden as f32 + self.rows.eps).sqrt();
            stats[0] = mean;
            stats[1] = scale;
            each_part!(hidden, part => {
                let (x, gamma) = (load(&s[part.clone()]), load(&gamma[part.clone()]));
                let beta = if beta.is_empty() { [0.0; LANES] } else { load(&beta[part.clone()]) };
                let normed = lanes::zip3(x, gamma, beta, |x, g, b| mul_add::<I>((x - mean) * scale, g, b));
                store::<I, _>(normed, &mut s[part]);
            });
            lanes::stream::<I, _>(&s, y);
        }
    }
}

struct BackwardBlock<'a, E> {
    rows: Rows<'a, E>,
    first: usize,
    stats: &'a [f32],
    dy: &'a [E],
    dx: &'a mut [E],
    dr: &'a mut [E],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for BackwardBlock<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let hidden = self.rows.gamma.len();
        let gamma = &self.rows.gamma[..hidden];
        let (dgamma, dbeta) = (&mut self.dgamma[..hidden], &mut self.dbeta[..hidden]);
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        let (mut normed, mut g) = (vec![0f32; hidden], vec![0f32; hidden]);
        for (row, (dy, stats)) in self.dy.chunks_exact(hidden).zip(self.stats.chunks_exact(2)).enumerate() {
            let (mean, scale) = (stats[0], stats[1]);
            self.rows.sum_row::<I>(self.first + row, &mut normed);
            each_part!(hidden, part => {
                let n = lanes::map(load(&normed[part.clone()]), |s| (s - mean) * scale);
                let d = load(&dy[part.clone()]);
                store::<I, _>(n, &mut normed[part.clone()]);
                store::<I, _>(lanes::zip(d, load(&gamma[part.clone()]), |d, gamma| d * gamma), &mut g[part.clone()]);
                let gain = &mut dgamma[part.clone()];
                store::<I, _>(lanes::zip3(d, n, load(gain), |d, n, sum| mul_add::<I>(d, n, sum)), gain);
                lanes::add_to(&mut dbeta[part], d);
            });
            let mean_g = lane_sum!(I, hidden, part => load(&g[part])) / hidden as f32;
            let mean_gx =
                lane_sum!(I, hidden, part => lanes::zip(load(&g[part.clone()]), load(&normed[part]), |g, n| g * n));
            let mean_gx = mean_gx / hidden as f32;
            let at = row * hidden..(row + 1) * hidden;
            let first = (self.first + row) * hidden;
            each_part!(hidden, part => {
                let mut ds = lanes::zip(load(&g[part.clone()]), load(&normed[part.clone()]), |g, n| {
                    (mul_add::<I>(-n, mean_gx, g) - mean_g) * scale
                });
                store::<I, _>(ds, &mut g[part.clone()]);
                if self.rows.mask.is_active() {
                    ds = lanes::zip(ds, lanes::dropout_factors(self.rows.mask, first + part.start), |ds, factor| ds * factor);
                }
                store::<I, _>(ds, &mut normed[part]);
            });
            if !self.dr.is_empty() {
                lanes::stream::<I, _>(&g, &mut self.dr[at.clone()]);
            }
            lanes::stream::<I, _>(&normed, &mut self.dx[at]);
        }
    }
}
