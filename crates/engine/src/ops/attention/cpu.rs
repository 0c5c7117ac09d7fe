use super::{Attention, Heads};
use crate::cpu::gemm::{Mat, Precision, TileSink, product_serial};
use crate::cpu::lanes::{self, each_part, lane_max, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::math::exp;
use crate::cpu::rows::Parts;
use crate::cpu::{Cpu, mat_part, precision_of};
use crate::dtype::Real;
use crate::random::Mask;
use crate::tensor::with_real;
use crate::{DType, Tensor};
use std::ops::Range;

/// Attention weights a task holds at a time: a block of rows of one head's matrix, kept in L2.
const WEIGHTS: usize = 1 << 16;
/// Rows of a block at least.
const LEAST_ROWS: usize = 16;

/// One head of one sequence: what a task does.
struct Head<'a> {
    cpu: &'a Cpu,
    inputs: &'a Heads<'a>,
    tokens: Range<usize>,
    head: usize,
    width: usize,
}

impl<'a> Head<'a> {
    fn part(&self, which: usize, rows: Range<usize>) -> Mat<'a> {
        let first = (which * self.inputs.heads + self.head) * self.width;
        mat_part(
            self.inputs.qkv,
            self.tokens.start + rows.start..self.tokens.start + rows.end,
            first..first + self.width,
        )
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn precision(&self) -> Precision {
        precision_of(self.inputs.qkv.dtype())
    }

    /// Blocks of query rows, and the number of keys that a block can see.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let (len, causal) = (self.len(), self.inputs.causal);
        let rows = (WEIGHTS / len.max(1)).max(LEAST_ROWS);
        (0..len.div_ceil(rows)).map(move |block| {
            let range = block * rows..len.min((block + 1) * rows);
            let keys = if causal { range.end } else { len };
            (range, keys)
        })
    }

    /// Q Kᵀ/√D of some rows.
    fn scores(&self, rows: Range<usize>, keys: usize, scores: &mut [f32]) {
        let sink = Store { y: Parts::new(scores), stride: keys, first: 0, factor: self.scale(), add: false };
        product_serial(self.cpu.level, self.precision(), self.part(0, rows), self.part(1, 0..keys).t(), &sink);
    }

    /// The dropout of one row's weights.
    fn mask(&self, row: usize) -> Mask {
        self.inputs.mask.row(((self.tokens.start + row) * self.inputs.heads + self.head) as u64)
    }

    fn seen(&self, row: usize, keys: usize) -> usize {
        if self.inputs.causal { row + 1 } else { keys }
    }
}

impl Cpu {
    /// Runs `body` for every head of every sequence, longest work first where lengths differ much is not needed: tasks
    /// are taken one by one.
    fn for_heads<'a>(&'a self, inputs: &'a Heads<'a>, body: impl Fn(Head<'a>) + Sync) {
        let (tokens, columns) = inputs.qkv.matrix("attention");
        let ends = inputs.cu_seqlens.slice::<i32>();
        assert_eq!(columns % (3 * inputs.heads), 0, "attention: {columns} columns for {} heads", inputs.heads);
        assert!(
            ends.first() == Some(&0) && ends.last() == Some(&(tokens as i32)) && ends.is_sorted(),
            "attention: cumulative lengths must rise from 0 to {tokens}"
        );
        let width = columns / 3 / inputs.heads;
        self.pool.run((ends.len() - 1) * inputs.heads, &|task| {
            let (sequence, head) = (task / inputs.heads, task % inputs.heads);
            let tokens = ends[sequence] as usize..ends[sequence + 1] as usize;
            body(Head { cpu: self, inputs, tokens, head, width });
        });
    }
}

impl Attention for Cpu {
    fn attention(&self, inputs: &Heads<'_>) -> (Tensor, Tensor) {
        let (tokens, columns) = inputs.qkv.matrix("attention");
        let hidden = columns / 3;
        let mut y = Tensor::host(&[tokens, hidden], inputs.qkv.dtype());
        let mut log_sums = Tensor::host(&[tokens, inputs.heads], DType::F32);
        with_real!(inputs.qkv.dtype(), E => {
            let (y, log_sums) = (Parts::new(y.slice_mut::<E>()), Parts::new(log_sums.slice_mut::<f32>()));
            self.for_heads(inputs, |head| forward(&head, &y, &log_sums));
        });
        (y, log_sums)
    }

    fn attention_back(&self, inputs: &Heads<'_>, log_sums: &Tensor, dy: &Tensor) -> Tensor {
        let mut dqkv = Tensor::host(inputs.qkv.shape(), inputs.qkv.dtype());
        with_real!(inputs.qkv.dtype(), E => {
            let dqkv = Parts::new(dqkv.slice_mut::<E>());
            self.for_heads(inputs, |head| backward::<E>(&head, log_sums.slice(), dy, &dqkv));
        });
        dqkv
    }
}

fn forward<E: Real>(head: &Head<'_>, y: &Parts<'_, E>, log_sums: &Parts<'_, f32>) {
    let (heads, width) = (head.inputs.heads, head.width);
    for (rows, keys) in head.blocks() {
        let mut weights = Tensor::host(&[rows.len(), keys], DType::F32);
        let mut totals = Tensor::host(&[rows.len()], DType::F32);
        head.scores(rows.clone(), keys, weights.slice_mut());
        for (i, (weights, total)) in
            weights.slice_mut::<f32>().chunks_exact_mut(keys).zip(totals.slice_mut::<f32>()).enumerate()
        {
            let row = rows.start + i;
            let seen = head.seen(row, keys);
            let log_sum = head.cpu.level.run(Softmax { weights, seen, mask: head.mask(row), total });
            let at = (head.tokens.start + row) * heads + head.head;
            // SAFETY: (token, head) belongs to this task alone.
            let place = unsafe { log_sums.part(at..at + 1) };
            place[0] = log_sum;
        }
        let sink = StoreRows {
            y,
            first_row: head.tokens.start + rows.start,
            first_col: head.head * width,
            stride: heads * width,
            factors: Some(totals.slice()),
        };
        let precision = head.precision();
        product_serial(
            head.cpu.level,
            precision,
            mat_part(&weights, 0..rows.len(), 0..keys),
            head.part(2, 0..keys),
            &sink,
        );
    }
}

fn backward<E: Real>(head: &Head<'_>, log_sums: &[f32], dy: &Tensor, dqkv: &Parts<'_, E>) {
    let (heads, width, len) = (head.inputs.heads, head.width, head.len());
    let (level, precision) = (head.cpu.level, head.precision());
    let columns = head.head * width..(head.head + 1) * width;
    let stride = 3 * heads * width;
    let dy_part = |rows: &Range<usize>| {
        mat_part(dy, head.tokens.start + rows.start..head.tokens.start + rows.end, columns.clone())
    };
    // Gradients of keys and values add up over the blocks of rows: dK, then dV.
    let mut sums = Tensor::host(&[2, len * width], DType::F32);
    sums.slice_mut::<f32>().fill(0.0);
    for (rows, keys) in head.blocks() {
        let shape = [rows.len(), keys];
        let (mut scores, mut slopes) = (Tensor::host(&shape, DType::F32), Tensor::host(&shape, DType::F32));
        head.scores(rows.clone(), keys, scores.slice_mut());
        let sink = Store { y: Parts::new(slopes.slice_mut::<f32>()), stride: keys, first: 0, factor: 1.0, add: false };
        product_serial(level, precision, dy_part(&rows), head.part(2, 0..keys).t(), &sink);
        let blocks =
            scores.slice_mut::<f32>().chunks_exact_mut(keys).zip(slopes.slice_mut::<f32>().chunks_exact_mut(keys));
        for (i, (scores, slopes)) in blocks.enumerate() {
            let row = rows.start + i;
            let token = head.tokens.start + row;
            level.run(SoftmaxBack {
                scores,
                slopes,
                seen: head.seen(row, keys),
                mask: head.mask(row),
                log_sum: log_sums[token * heads + head.head],
                scale: head.scale(),
            });
        }
        let (dropped, ds) = (mat_part(&scores, 0..rows.len(), 0..keys), mat_part(&slopes, 0..rows.len(), 0..keys));
        let (dk, dv) = sums.slice_mut::<f32>().split_at_mut(len * width);
        let sink = Store { y: Parts::new(dv), stride: width, first: 0, factor: 1.0, add: true };
        product_serial(level, precision, dropped.t(), dy_part(&rows), &sink);
        let sink = Store { y: Parts::new(dk), stride: width, first: 0, factor: 1.0, add: true };
        product_serial(level, precision, ds.t(), head.part(0, rows.clone()), &sink);
        let first_row = head.tokens.start + rows.start;
        let sink = StoreRows { y: dqkv, first_row, first_col: columns.start, stride, factors: None };
        product_serial(level, precision, ds, head.part(1, 0..keys), &sink);
    }
    for (which, sums) in sums.slice::<f32>().chunks_exact((len * width).max(1)).enumerate() {
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            let at = (head.tokens.start + row) * stride + (which + 1) * heads * width + columns.start;
            // SAFETY: these columns of the sequence's rows belong to this task alone.
            let to = unsafe { dqkv.part(at..at + width) };
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = E::from_f32(*sum);
            }
        }
    }
}

/// Stores or adds factor · C in an f32 matrix.
struct Store<'a> {
    y: Parts<'a, f32>,
    stride: usize,
    first: usize,
    factor: f32,
    add: bool,
}

impl TileSink for Store<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = self.first + (row + r) * self.stride + col;
            // SAFETY: tiles are disjoint, and the matrix is this task's own.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            each_part!(cols, part => {
                let mut c = lanes::map(load(&acc[part.clone()]), |a| self.factor * a);
                if self.add {
                    c = lanes::zip(c, load(&y[part.clone()]), |c, y| y + c);
                }
                store(c, &mut y[part]);
            });
        }
    }
}

/// Stores C in some columns of a matrix that the tasks share, each row divided by its total.
struct StoreRows<'a, E> {
    y: &'a Parts<'a, E>,
    first_row: usize,
    first_col: usize,
    stride: usize,
    factors: Option<&'a [f32]>,
}

impl<E: Real> TileSink for StoreRows<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (self.first_row + row + r) * self.stride + self.first_col + col;
            let factor = self.factors.map_or(1.0, |factors| factors[row + r]);
            // SAFETY: tiles are disjoint, and these rows' columns are this task's own.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            each_part!(cols, part => store(lanes::map(load(&acc[part.clone()]), |a| factor * a), &mut y[part]));
        }
    }
}

/// Turns a row of scores into dropped-out weights before their division by the total; returns the log-sum-exp.
struct Softmax<'a> {
    weights: &'a mut [f32],
    seen: usize,
    mask: Mask,
    total: &'a mut f32,
}

impl Vectorized for Softmax<'_> {
    type Output = f32;
    #[inline(always)]
    fn call<I: Isa>(self) -> f32 {
        let (weights, hidden) = self.weights.split_at_mut(self.seen);
        hidden.fill(0.0);
        let greatest = lane_max!(weights.len(), part => load(&weights[part]));
        // The sum is that of all weights, the dropped ones too.
        let sum = lane_sum!(weights.len(), part => {
            let w = lanes::map(load(&weights[part.clone()]), |w| exp::<I>(w - greatest));
            let kept = if self.mask.active() {
                lanes::zip(w, self.mask.factors(part.start), |w, factor| w * factor)
            } else {
                w
            };
            store(kept, &mut weights[part]);
            w
        });
        *self.total = 1.0 / sum;
        greatest + sum.ln()
    }
}

/// Turns a row of scores into P̃, and a row of dO Vᵀ into dS.
struct SoftmaxBack<'a> {
    scores: &'a mut [f32],
    slopes: &'a mut [f32],
    seen: usize,
    mask: Mask,
    log_sum: f32,
    scale: f32,
}

impl Vectorized for SoftmaxBack<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let (scores, hidden) = self.scores.split_at_mut(self.seen);
        hidden.fill(0.0);
        let (slopes, hidden) = self.slopes.split_at_mut(self.seen);
        hidden.fill(0.0);
        // δ from this row's own numbers, not from O: O was rounded to bf16, and where the softmax is steep dP − δ is a
        // difference of near equals that would be nothing but that rounding.
        let mask = self.mask;
        let delta = lane_sum!(scores.len(), part => {
            let mut p = lanes::map(load(&scores[part.clone()]), |s| exp::<I>(s - self.log_sum));
            let mut d = load(&slopes[part.clone()]);
            if mask.active() {
                // The sign of a weight remembers whether it was dropped.
                let factors = mask.factors(part.start);
                d = lanes::zip(d, factors, |d, factor| d * factor);
                store(d, &mut slopes[part.clone()]);
                p = lanes::zip(p, factors, |p, factor| if factor > 0.0 { p } else { -p });
            }
            store(p, &mut scores[part]);
            lanes::zip(p, d, |p, d| p.abs() * d)
        });
        let kept = mask.kept();
        each_part!(scores.len(), part => {
            let p = load(&scores[part.clone()]);
            let ds = lanes::zip(p, load(&slopes[part.clone()]), |p, d| p.abs() * (d - delta) * self.scale);
            store(ds, &mut slopes[part.clone()]);
            store(lanes::map(p, |p| p.max(0.0) * kept), &mut scores[part]);
        });
    }
}
