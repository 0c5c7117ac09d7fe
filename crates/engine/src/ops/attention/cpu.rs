use super::{Attention, Heads};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, Precision, product_serial};
use crate::cpu::lanes::{self, LANES, VectorElement, each_part, lane_max, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized, mul_add, prefetch};
use crate::cpu::math::{exp_nonpositive, ln};
use crate::cpu::sums::Accumulate;
use crate::cpu::{Cpu, mat_part, precision_of};
use crate::dtype::with_real;
use crate::gradients::Write;
use crate::random::Mask;
use crate::{DType, Tensor};
use std::ops::Range;

/// Attention weights a task holds at a time: a block of rows of one head's matrix, kept in L2.
const WEIGHTS: usize = 1 << 16;
/// Rows of a block at least.
const LEAST_ROWS: usize = 16;
/// Tasks that each thread should get, for balance where lengths differ.
const TASKS_A_THREAD: usize = 8;

/// One head of one sequence: what a task does.
struct Head<'a> {
    cpu: &'a Cpu,
    inputs: &'a Heads,
    /// The sequence's rows of keys and values.
    tokens: Range<usize>,
    /// The sequence's rows of queries, outputs and log-sum-exps.
    queries: Range<usize>,
    head: usize,
    width: usize,
    /// Whether the same thread takes the next head after this.
    followed: bool,
}

impl<'a> Head<'a> {
    /// Some of the sequence's queries.
    fn q(&self, rows: &Range<usize>) -> Mat<'a> {
        mat_part(self.inputs.queries(), self.rows(rows), self.columns())
    }

    /// The first `count` of the sequence's keys.
    fn k(&self, count: usize) -> Mat<'a> {
        self.of_tokens(count, self.key_column())
    }

    /// The first `count` of the sequence's values.
    fn v(&self, count: usize) -> Mat<'a> {
        self.of_tokens(count, self.value_column())
    }

    fn of_tokens(&self, count: usize, column: usize) -> Mat<'a> {
        let rows = self.tokens.start..self.tokens.start + count;
        mat_part(&self.inputs.tokens, rows, column..column + self.width)
    }

    /// The first of the head's columns among the tokens' keys.
    fn key_column(&self) -> usize {
        self.value_column() - self.inputs.hidden()
    }

    /// The first of the head's columns among the tokens' values, which are the last.
    fn value_column(&self) -> usize {
        let (_, columns) = self.inputs.tokens.matrix("attention");
        columns - self.inputs.hidden() + self.columns().start
    }

    /// Where rows of the sequence's queries lie in the batch.
    fn rows(&self, rows: &Range<usize>) -> Range<usize> {
        self.queries.start + rows.start..self.queries.start + rows.end
    }

    /// The head's columns among queries and outputs.
    fn columns(&self) -> Range<usize> {
        self.head * self.width..(self.head + 1) * self.width
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn precision(&self) -> Precision {
        precision_of(self.inputs.tokens.dtype())
    }

    /// Blocks of query rows, and the number of keys that a block can see.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let (queries, keys, causal) = (self.queries.len(), self.tokens.len(), self.inputs.causal);
        let rows = (WEIGHTS / keys.max(1)).max(LEAST_ROWS);
        (0..queries.div_ceil(rows)).map(move |block| {
            let range = block * rows..queries.min((block + 1) * rows);
            let keys = if causal { range.end } else { keys };
            (range, keys)
        })
    }

    /// Asks for what the next head needs of the tokens and the queries, a part of it while these rows of queries are worked on:
    /// its lines lie among this head's, and the hardware sees no run in them.
    fn prefetch_next<E: VectorElement>(&self, rows: &Range<usize>) {
        let share = |row: usize| self.tokens.start + row * self.tokens.len() / self.queries.len();
        self.prefetch::<E>(&self.inputs.tokens, share(rows.start)..share(rows.end));
        if let Some([queries, _]) = &self.inputs.queries {
            self.prefetch::<E>(queries, self.rows(rows));
        }
    }

    /// Asks for the next head's columns of some rows.
    fn prefetch<E: VectorElement>(&self, of: &Tensor, rows: Range<usize>) {
        if !self.followed {
            return;
        }
        let (_, columns) = of.matrix("attention");
        let values = of.slice::<E>();
        for row in rows {
            for first in (0..columns).step_by(self.inputs.hidden()) {
                let next = &values[row * columns + first + (self.head + 1) * self.width..][..self.width];
                next.iter().step_by(64 / size_of::<E>()).for_each(|x| prefetch(x));
            }
        }
    }

    /// The dropout of one row's weights.
    fn mask(&self, row: usize) -> Mask {
        self.inputs.mask.row(self.log_sum_at(row) as u64)
    }

    /// What the attention weights of these queries depend on beside their scores, but for the log-sum-exp.
    fn settings(&self, rows: &Range<usize>, keys: usize) -> Vec<Query> {
        let seen = |row| if self.inputs.causal { row + 1 } else { keys };
        rows.clone().map(|row| Query { log_sum: 0.0, mask: self.mask(row), seen: seen(row) }).collect()
    }

    /// Where a query's log-sum-exp is.
    fn log_sum_at(&self, row: usize) -> usize {
        (self.queries.start + row) * self.inputs.heads + self.head
    }
}

impl Cpu {
    /// Runs `body` for every head of every sequence: a task is some neighbouring heads of one.
    fn for_heads<'a>(&'a self, inputs: &'a Heads, body: impl Fn(Head<'a>) + Sync) {
        let (heads, hidden) = (inputs.heads, inputs.hidden());
        let width = hidden / heads;
        assert_eq!(width * heads, hidden, "attention: {heads} heads of {hidden} columns");
        let (_, columns) = inputs.queries().matrix("attention");
        assert_eq!(columns % hidden, 0, "attention: {columns} columns hold queries of {hidden}");
        let all = |ends: &'a Tensor, of: &Tensor| -> &'a [i32] {
            let (rows, ends) = (of.matrix("attention").0, ends.slice::<i32>());
            assert!(
                ends.first() == Some(&0) && ends.last() == Some(&(rows as i32)) && ends.is_sorted(),
                "attention: cumulative lengths must rise from 0 to {rows}"
            );
            ends
        };
        let token_ends = all(&inputs.cu_seqlens, &inputs.tokens);
        let query_ends = all(inputs.query_ends(), inputs.queries());
        assert_eq!(token_ends.len(), query_ends.len(), "attention: ends of the sequences");
        let sequences = token_ends.len() - 1;
        let each = (sequences * heads / (self.pool.threads() * TASKS_A_THREAD)).clamp(1, heads);
        let groups = heads.div_ceil(each);
        self.pool.run(sequences * groups, &|task| {
            let (sequence, group) = (task / groups, task % groups);
            let [tokens, queries] =
                [token_ends, query_ends].map(|ends| ends[sequence] as usize..ends[sequence + 1] as usize);
            let last = heads.min((group + 1) * each);
            for head in group * each..last {
                let (tokens, queries) = (tokens.clone(), queries.clone());
                body(Head { cpu: self, inputs, tokens, queries, head, width, followed: head + 1 < last });
            }
        });
    }
}

impl Attention for Cpu {
    fn attention(&self, inputs: &Heads) -> (Tensor, Tensor) {
        let (queries, _) = inputs.queries().matrix("attention");
        let mut y = Tensor::host(&[queries, inputs.hidden()], inputs.tokens.dtype());
        let mut log_sums = Tensor::host(&[queries, inputs.heads], DType::F32);
        with_real!(inputs.tokens.dtype(), E => {
            let (y, log_sums) = (DisjointSlice::new(y.slice_mut::<E>()), DisjointSlice::new(log_sums.slice_mut::<f32>()));
            self.for_heads(inputs, |head| forward(&head, &y, &log_sums));
        });
        (y, log_sums)
    }

    fn attention_backward(&self, inputs: &Heads, log_sums: &Tensor, dy: &Tensor) -> (Tensor, Option<Tensor>) {
        let mut dtokens = Tensor::host(inputs.tokens.shape(), inputs.tokens.dtype());
        let mut dqueries = inputs.queries.as_ref().map(|[queries, _]| Tensor::host(queries.shape(), queries.dtype()));
        with_real!(inputs.tokens.dtype(), E => {
            let dtokens = DisjointSlice::new(dtokens.slice_mut::<E>());
            let dqueries = dqueries.as_mut().map(|dqueries| DisjointSlice::new(dqueries.slice_mut::<E>()));
            self.for_heads(inputs, |head| {
                backward::<E>(&head, log_sums.slice(), dy, dqueries.as_ref().unwrap_or(&dtokens), &dtokens);
            });
        });
        (dtokens, dqueries)
    }
}

/// A block's matrices have rows of whole vectors: what lies past the keys may be anything in scores and their gradients, and is
/// zero in weights.
fn scratch(rows: &Range<usize>, keys: usize, dtype: DType) -> Tensor {
    Tensor::host(&[rows.len(), keys.next_multiple_of(LANES)], dtype)
}

/// Sixteen rows at a time.
fn chunks(rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = rows.end;
    rows.clone().step_by(LANES).map(move |first| first..end.min(first + LANES))
}

fn forward<E: VectorElement>(head: &Head<'_>, y: &DisjointSlice<'_, E>, log_sums: &DisjointSlice<'_, f32>) {
    let level = head.cpu.level;
    for (rows, keys) in head.blocks() {
        let (mut scores, mut weights) = (scratch(&rows, keys, DType::F32), scratch(&rows, keys, E::DTYPE));
        let mut totals = Tensor::host(&[rows.len()], DType::F32);
        let (_, stride) = scores.matrix("attention");
        let sink = Store { y: DisjointSlice::new(scores.slice_mut()), stride, factor: head.scale() };
        product_serial(level, head.precision(), head.q(&rows), head.k(keys).t(), &sink);
        let mut queries = head.settings(&rows, keys);
        let weighed =
            scores.slice::<f32>().chunks(LANES * stride).zip(weights.slice_mut::<E>().chunks_mut(LANES * stride));
        let found = queries.chunks_mut(LANES).zip(totals.slice_mut::<f32>().chunks_mut(LANES));
        for (some, ((scores, weights), (queries, totals))) in chunks(&rows).zip(weighed.zip(found)) {
            head.prefetch_next::<E>(&some);
            level.run(Softmax { scores, weights, stride, queries, totals });
        }
        for (row, query) in rows.clone().zip(&queries) {
            let at = head.log_sum_at(row);
            // SAFETY: (token, head) belongs to this task alone.
            let place = unsafe { log_sums.part(at..at + 1) };
            place[0] = query.log_sum;
        }
        let sink = StoreRows {
            y,
            first_row: head.rows(&rows).start,
            first_col: head.columns().start,
            stride: head.inputs.hidden(),
            factors: Some(totals.slice()),
        };
        let weights = mat_part(&weights, 0..rows.len(), 0..keys);
        product_serial(level, head.precision(), weights, head.v(keys), &sink);
    }
}

/// The queries' gradients go to `dqueries`, the others to `dtokens`; they are one matrix where queries, keys and values are.
fn backward<E: VectorElement>(
    head: &Head<'_>,
    log_sums: &[f32],
    dy: &Tensor,
    dqueries: &DisjointSlice<'_, E>,
    dtokens: &DisjointSlice<'_, E>,
) {
    let (width, len) = (head.width, head.tokens.len());
    let (level, precision) = (head.cpu.level, head.precision());
    let dy_part = |rows: &Range<usize>| mat_part(dy, head.rows(rows), head.columns());
    // Gradients of keys and values add up over the blocks of rows: dK, then dV.
    let mut sums = Tensor::host(&[2, len * width], DType::F32);
    if head.queries.is_empty() {
        sums.slice_mut::<f32>().fill(0.0);
    }
    for (rows, keys) in head.blocks() {
        let (mut signed, mut slopes) = (scratch(&rows, keys, DType::F32), scratch(&rows, keys, DType::F32));
        let (_, stride) = signed.matrix("attention");
        let mut queries = head.settings(&rows, keys);
        for (row, query) in rows.clone().zip(&mut queries) {
            query.log_sum = log_sums[head.log_sum_at(row)];
        }
        let sink =
            Signed { y: DisjointSlice::new(signed.slice_mut()), stride, factor: head.scale(), queries: &queries };
        product_serial(level, precision, head.q(&rows), head.k(keys).t(), &sink);
        let sink = Store { y: DisjointSlice::new(slopes.slice_mut()), stride, factor: 1.0 };
        product_serial(level, precision, dy_part(&rows), head.v(keys).t(), &sink);

        let (mut dropped, mut ds) = (scratch(&rows, keys, E::DTYPE), scratch(&rows, keys, E::DTYPE));
        let inputs = signed.slice::<f32>().chunks(LANES * stride).zip(slopes.slice::<f32>().chunks(LANES * stride));
        let outputs =
            dropped.slice_mut::<E>().chunks_mut(LANES * stride).zip(ds.slice_mut::<E>().chunks_mut(LANES * stride));
        let (kept, scale) = (head.inputs.mask.kept(), head.scale());
        for (some, ((signed, slopes), (dropped, ds))) in chunks(&rows).zip(inputs.zip(outputs)) {
            head.prefetch_next::<E>(&some);
            head.prefetch::<E>(dy, head.rows(&some));
            level.run(SoftmaxBack { signed, slopes, dropped, ds, stride, kept, scale });
        }
        let (dropped, ds) = (mat_part(&dropped, 0..rows.len(), 0..keys), mat_part(&ds, 0..rows.len(), 0..keys));
        let write = if rows.start > 0 { Write::Add } else { Write::Store };
        // Of a causal block's keys, those it is the first to see have no sums yet.
        let (dk, dv) = sums.slice_mut::<f32>().split_at_mut(len * width);
        if write == Write::Add && head.inputs.causal {
            let fresh = rows.start * width..keys * width;
            dk[fresh.clone()].fill(0.0);
            dv[fresh].fill(0.0);
        }
        let sink = Accumulate { sum: DisjointSlice::new(dv), columns: width, write, far: false };
        product_serial(level, precision, dropped.t(), dy_part(&rows), &sink);
        let sink = Accumulate { sum: DisjointSlice::new(dk), columns: width, write, far: false };
        product_serial(level, precision, ds.t(), head.q(&rows), &sink);
        let (_, stride) = head.inputs.queries().matrix("attention_backward");
        let (first_row, first_col) = (head.rows(&rows).start, head.columns().start);
        let sink = StoreRows { y: dqueries, first_row, first_col, stride, factors: None };
        product_serial(level, precision, ds, head.k(keys), &sink);
    }
    let (_, stride) = head.inputs.tokens.matrix("attention_backward");
    let sums = sums.slice::<f32>().chunks_exact((len * width).max(1));
    for (first, sums) in [head.key_column(), head.value_column()].into_iter().zip(sums) {
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            let at = (head.tokens.start + row) * stride + first;
            // SAFETY: these columns of the sequence's rows belong to this task alone.
            let to = unsafe { dtokens.part(at..at + width) };
            level.run(lanes::Narrow { from: sums, to });
        }
    }
}

/// Stores factor · C in an f32 matrix with rows of whole vectors.
struct Store<'a> {
    y: DisjointSlice<'a, f32>,
    stride: usize,
    factor: f32,
}

impl Epilogue for Store<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let cols = cols.next_multiple_of(LANES);
        for r in 0..rows {
            let at = (row + r) * self.stride + col;
            // SAFETY: tiles are disjoint, and the matrix is this task's own.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            each_part!(cols, part => {
                store::<I, _>(lanes::map(load(&acc[part.clone()]), |a| self.factor * a), &mut y[part]);
            });
        }
    }
}

/// Stores C in some columns of a matrix that the tasks share, each row divided by its total.
struct StoreRows<'a, E> {
    y: &'a DisjointSlice<'a, E>,
    first_row: usize,
    first_col: usize,
    stride: usize,
    factors: Option<&'a [f32]>,
}

impl<E: VectorElement> Epilogue for StoreRows<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (self.first_row + row + r) * self.stride + self.first_col + col;
            let factor = self.factors.map_or(1.0, |factors| factors[row + r]);
            // SAFETY: tiles are disjoint, and these rows' columns are this task's own.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &mut acc[r * stride..r * stride + cols];
            each_part!(cols, part => {
                let scaled = lanes::map(load(&acc[part.clone()]), |a| factor * a);
                store::<I, _>(scaled, &mut acc[part]);
            });
            lanes::stream::<I, _>(acc, y);
        }
    }
}

/// What the attention weights of a query depend on beside its scores.
#[derive(Clone, Copy)]
struct Query {
    log_sum: f32,
    mask: Mask,
    /// Keys that it sees.
    seen: usize,
}

/// Turns scores into P, with rows of whole vectors. The sign of a weight remembers whether it was dropped.
struct Signed<'a> {
    y: DisjointSlice<'a, f32>,
    stride: usize,
    factor: f32,
    queries: &'a [Query],
}

impl Epilogue for Signed<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let cols = cols.next_multiple_of(LANES);
        for r in 0..rows {
            let at = (row + r) * self.stride + col;
            // SAFETY: tiles are disjoint, and the matrix is this task's own.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            let Query { log_sum, mask, seen } = self.queries[row + r];
            each_part!(cols, part => {
                let mut p = lanes::map(load(&acc[part.clone()]), |s| exp_nonpositive::<I>(mul_add::<I>(s, self.factor, -log_sum)));
                if mask.active() {
                    let factors = lanes::factors(mask, col + part.start);
                    p = lanes::zip(p, factors, |p, factor| if factor > 0.0 { p } else { -p });
                }
                store::<I, _>(lanes::first(p, seen.saturating_sub(col + part.start), 0.0), &mut y[part]);
            });
        }
    }
}

/// Turns up to sixteen rows of scores into dropped-out weights before their division by the total, whose reciprocal it leaves in
/// `totals`, and finds the queries' log-sum-exp.
struct Softmax<'a, E> {
    scores: &'a [f32],
    weights: &'a mut [E],
    stride: usize,
    queries: &'a mut [Query],
    totals: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for Softmax<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Softmax { scores, weights, stride, queries, totals } = self;
        let mut sums = [1.0; LANES];
        let rows = scores.chunks_exact(stride).zip(weights.chunks_exact_mut(stride));
        for (((scores, weights), query), sum) in rows.zip(&mut *queries).zip(&mut sums) {
            let whole = query.seen.next_multiple_of(LANES);
            let (weights, hidden) = weights.split_at_mut(whole);
            hidden.fill(E::from_f32(0.0));
            let greatest = lane_max!(I, whole, part => {
                lanes::first(load(&scores[part.clone()]), query.seen - part.start, f32::NEG_INFINITY)
            });
            // The sum is that of all weights, the dropped ones too.
            *sum = lane_sum!(I, whole, part => {
                let w = lanes::map(load(&scores[part.clone()]), |w| exp_nonpositive::<I>(w - greatest));
                let w = lanes::first(w, query.seen - part.start, 0.0);
                let kept = if query.mask.active() {
                    lanes::zip(w, lanes::factors(query.mask, part.start), |w, factor| w * factor)
                } else {
                    w
                };
                store::<I, _>(kept, &mut weights[part]);
                w
            });
            query.log_sum = greatest;
        }
        let logs = lanes::map(sums, ln::<I>);
        for ((query, total), (sum, log)) in queries.iter_mut().zip(totals).zip(sums.into_iter().zip(logs)) {
            query.log_sum += log;
            *total = 1.0 / sum;
        }
    }
}

/// From up to sixteen rows of signed P and of dO Vᵀ: P̃ and dS.
struct SoftmaxBack<'a, E> {
    signed: &'a [f32],
    slopes: &'a [f32],
    dropped: &'a mut [E],
    ds: &'a mut [E],
    stride: usize,
    /// What dropout multiplies kept weights by.
    kept: f32,
    scale: f32,
}

impl<E: VectorElement> Vectorized for SoftmaxBack<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let SoftmaxBack { signed, slopes, dropped, ds, stride, kept, scale } = self;
        let inputs = signed.chunks_exact(stride).zip(slopes.chunks_exact(stride));
        let outputs = dropped.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride));
        for ((signed, slopes), (dropped, ds)) in inputs.zip(outputs) {
            // δ from this row's own numbers in f32, not from O: O was rounded to bf16, and where the softmax is steep dP − δ is a
            // difference of near equals that would be nothing but that rounding.
            let delta = kept
                * lane_sum!(I, signed.len(), part => {
                    lanes::zip(load(&signed[part.clone()]), load(&slopes[part]), |p, d| if p > 0.0 { p * d } else { 0.0 })
                });
            each_part!(signed.len(), part => {
                let p = load(&signed[part.clone()]);
                let slope = lanes::zip(p, load(&slopes[part.clone()]), |p, d| {
                    p.abs() * (if p > 0.0 { d * kept } else { 0.0 } - delta) * scale
                });
                store::<I, _>(slope, &mut ds[part.clone()]);
                store::<I, _>(lanes::map(p, |p| p.max(0.0) * kept), &mut dropped[part]);
            });
        }
    }
}
