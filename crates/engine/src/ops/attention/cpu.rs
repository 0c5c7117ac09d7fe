use super::{Attention, AttentionInputs, Visible};
use crate::cpu::arena::{gradient_sums, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, Precision, product_serial};
use crate::cpu::lanes::{self, LANES, VectorElement, each_part, lane_max, lane_sum, load, store};
use crate::cpu::level::{Isa, Lanes, Vectorized, mul_add, prefetch};
use crate::cpu::math::{exp_nonpositive, ln};
use crate::cpu::scores::{Store, scratch};
use crate::cpu::sums::Accumulate;
use crate::cpu::{Cpu, mat_part, precision_of};
use crate::dtype::with_real;
use crate::gradients::Write;
use crate::random::Mask;
use crate::{DType, Gradients, Parameters, Tensor};
use std::ops::Range;

/// Attention weights that a task computes at a time: a block of rows of one head's matrix, which stays in L2.
const BLOCK_WEIGHTS: usize = 1 << 16;
/// Minimum number of rows of a block.
const MIN_ROWS: usize = 16;
/// The same for sequences of more than [`LONG`] keys: keys and values are packed once for each block, which takes longer than the
/// products of a few rows. Then the weights leave L2.
const MIN_ROWS_OF_LONG: usize = 192;
const LONG: usize = 1024;
/// Minimum number of tasks per thread, for load balancing when sequence lengths differ.
const TASKS_PER_THREAD: usize = 8;

/// One head of one sequence: the unit of work.
struct Head<'a> {
    cpu: &'a Cpu,
    inputs: &'a AttentionInputs,
    /// The sequence's rows of keys and values.
    tokens: Range<usize>,
    /// The sequence's rows of queries, outputs and log-sum-exps.
    queries: Range<usize>,
    /// The number of the sequence.
    sequence: usize,
    head: usize,
    width: usize,
    /// Whether the same thread processes the next head afterwards, so that prefetching its data pays.
    prefetches_next: bool,
}

impl<'a> Head<'a> {
    /// A range of the sequence's queries.
    fn q(&self, rows: &Range<usize>) -> Mat<'a> {
        mat_part(self.inputs.queries(), self.rows(rows), self.columns())
    }

    /// A range of the sequence's keys.
    fn k(&self, keys: &Range<usize>) -> Mat<'a> {
        self.token_columns(keys, self.key_column())
    }

    /// A range of the sequence's values.
    fn v(&self, keys: &Range<usize>) -> Mat<'a> {
        self.token_columns(keys, self.value_column())
    }

    fn token_columns(&self, keys: &Range<usize>, column: usize) -> Mat<'a> {
        let rows = self.tokens.start + keys.start..self.tokens.start + keys.end;
        mat_part(&self.inputs.tokens, rows, column..column + self.width)
    }

    /// The head's first key column in `tokens`.
    fn key_column(&self) -> usize {
        self.value_column() - self.inputs.hidden()
    }

    /// The head's first value column in `tokens`; the values are the last columns.
    fn value_column(&self) -> usize {
        let (_, columns) = self.inputs.tokens.matrix("attention");
        columns - self.inputs.hidden() + self.columns().start
    }

    /// The rows of a range of the sequence's queries in the batch.
    fn rows(&self, rows: &Range<usize>) -> Range<usize> {
        self.queries.start + rows.start..self.queries.start + rows.end
    }

    /// The head's columns in queries and outputs.
    fn columns(&self) -> Range<usize> {
        self.head * self.width..(self.head + 1) * self.width
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn precision(&self) -> Precision {
        precision_of(self.inputs.tokens.dtype())
    }

    /// Blocks of query rows, and the keys that any of their rows sees.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<> {
        let (queries, keys, visible) = (self.queries.len(), self.tokens.len(), self.inputs.visible);
        let rows = match visible.window {
            // Of the keys of a block, a row sees one window.
            Some(window) => (2 * window + 1).min(BLOCK_WEIGHTS / (4 * window + 2)),
            None if keys > LONG => MIN_ROWS_OF_LONG,
            None => BLOCK_WEIGHTS / keys.max(1),
        };
        let rows = rows.max(MIN_ROWS);
        (0..queries.div_ceil(rows)).map(move |block| {
            let range = block * rows..queries.min((block + 1) * rows);
            let keys = match visible {
                Visible::ALL => 0..keys,
                // All tokens have queries.
                _ => visible.keys(range.start, keys).start..visible.keys(range.end - 1, keys).end,
            };
            (range, keys)
        })
    }

    /// The biases of the distances from −(length − 1) to length − 1; empty without a bias.
    fn distance_biases(&self, params: &Parameters) -> Vec<f32> {
        let Some(bias) = &self.inputs.bias else { return Vec::new() };
        let table = weights(params, bias.table);
        let buckets = bias.of_length(self.tokens.len());
        buckets.iter().map(|bucket| table[*bucket as usize * self.inputs.heads + self.head]).collect()
    }

    /// The place of the distance between a row and the first key of its block in [`distance_biases`](Self::distance_biases).
    fn first_distance(&self, row: usize, keys: &Range<usize>) -> usize {
        keys.start + self.tokens.len() - 1 - row
    }

    /// Prefetches a part of the next head's keys, values and queries, while these rows of queries are processed. Its
    /// data alternates with this head's in memory, so the hardware prefetcher does not detect it.
    fn prefetch_next<E: VectorElement>(&self, rows: &Range<usize>) {
        let share = |row: usize| self.tokens.start + row * self.tokens.len() / self.queries.len();
        self.prefetch::<E>(&self.inputs.tokens, share(rows.start)..share(rows.end));
        if let Some([queries, _]) = &self.inputs.queries {
            self.prefetch::<E>(queries, self.rows(rows));
        }
    }

    /// Prefetches the next head's columns of some rows.
    fn prefetch<E: VectorElement>(&self, tensor: &Tensor, rows: Range<usize>) {
        if !self.prefetches_next {
            return;
        }
        let (_, columns) = tensor.matrix("attention");
        let values = tensor.slice::<E>();
        for row in rows {
            for first in (0..columns).step_by(self.inputs.hidden()) {
                let next = &values[row * columns + first + (self.head + 1) * self.width..][..self.width];
                next.iter().step_by(64 / size_of::<E>()).for_each(|x| prefetch(x));
            }
        }
    }

    /// The dropout mask of one row of weights.
    fn mask(&self, row: usize) -> Mask {
        self.inputs.mask.row(self.log_sum_index(row) as u64)
    }

    /// The settings of a range of queries, for a range of keys; their log-sum-exps are filled in later.
    fn query_settings(&self, rows: &Range<usize>, keys: &Range<usize>) -> Vec<Query> {
        let setting = |row| {
            let visible = match self.inputs.visible {
                Visible::ALL => keys.clone(),
                visible => visible.keys(row, self.tokens.len()),
            };
            let (first, visible) = (visible.start - keys.start, visible.end - keys.start);
            // The mask counts keys from the sequence's first one.
            Query { log_sum: 0.0, mask: self.mask(row), first, visible, first_key: keys.start }
        };
        rows.clone().map(setting).collect()
    }

    /// The index of a query's log-sum-exp.
    fn log_sum_index(&self, row: usize) -> usize {
        (self.queries.start + row) * self.inputs.heads + self.head
    }
}

impl Cpu {
    /// Runs `body` for every head of every sequence. A task consists of some neighbouring heads of one sequence.
    fn for_heads<'a>(&'a self, inputs: &'a AttentionInputs, body: impl Fn(Head<'a>) + Sync) {
        let (heads, hidden) = (inputs.heads, inputs.hidden());
        let width = hidden / heads;
        assert_eq!(width * heads, hidden, "attention: {heads} heads of {hidden} columns");
        let (_, columns) = inputs.queries().matrix("attention");
        assert_eq!(columns % hidden, 0, "attention: {columns} query columns are not a multiple of {hidden}");
        let checked = |ends: &'a Tensor, tensor: &Tensor| -> &'a [i32] {
            let (rows, ends) = (tensor.matrix("attention").0, ends.slice::<i32>());
            assert!(
                ends.first() == Some(&0) && ends.last() == Some(&(rows as i32)) && ends.is_sorted(),
                "attention: cumulative lengths must increase from 0 to {rows}"
            );
            ends
        };
        let token_ends = checked(&inputs.cu_seqlens, &inputs.tokens);
        let query_ends = checked(inputs.query_ends(), inputs.queries());
        assert_eq!(token_ends.len(), query_ends.len(), "attention: number of sequences");
        let sequences = token_ends.len() - 1;
        let heads_per_task = (sequences * heads / (self.pool.threads() * TASKS_PER_THREAD)).clamp(1, heads);
        let rows =
            |sequence: usize| [token_ends, query_ends].map(|ends| ends[sequence] as usize..ends[sequence + 1] as usize);
        let groups = |sequence| (0..heads).step_by(heads_per_task).map(move |first| (sequence, first));
        let mut tasks: Vec<(usize, usize)> = (0..sequences).flat_map(groups).collect();
        // The largest first (Graham 1969): a large one at the end would leave the other threads without work.
        tasks.sort_by_cached_key(|&(sequence, first)| {
            let [tokens, queries] = rows(sequence);
            std::cmp::Reverse(tokens.len() * queries.len() * heads_per_task.min(heads - first))
        });
        self.pool.run(tasks.len(), &|task| {
            let (sequence, first) = tasks[task];
            let [tokens, queries] = rows(sequence);
            let last = heads.min(first + heads_per_task);
            for head in first..last {
                let (tokens, queries) = (tokens.clone(), queries.clone());
                body(Head {
                    cpu: self,
                    inputs,
                    tokens,
                    queries,
                    sequence,
                    head,
                    width,
                    prefetches_next: head + 1 < last,
                });
            }
        });
    }
}

impl Attention for Cpu {
    fn attention(&self, inputs: &AttentionInputs, params: &Parameters) -> (Tensor, Tensor) {
        let (queries, _) = inputs.queries().matrix("attention");
        let mut y = Tensor::host(&[queries, inputs.hidden()], inputs.tokens.dtype());
        let mut log_sums = Tensor::host(&[queries, inputs.heads], DType::F32);
        with_real!(inputs.tokens.dtype(), E => {
            let (y, log_sums) = (DisjointSlice::new(y.slice_mut::<E>()), DisjointSlice::new(log_sums.slice_mut::<f32>()));
            self.for_heads(inputs, |head| forward(&head, &head.distance_biases(params), &y, &log_sums));
        });
        (y, log_sums)
    }

    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        _y: &Tensor,
        log_sums: &Tensor,
        dy: &Tensor,
        params: &Parameters,
        grads: &mut Gradients,
    ) -> (Tensor, Option<Tensor>) {
        let mut dtokens = Tensor::host(inputs.tokens.shape(), inputs.tokens.dtype());
        let mut dqueries = inputs.queries.as_ref().map(|[queries, _]| Tensor::host(queries.shape(), queries.dtype()));
        // The bias's gradients of each sequence and head, which are added in a fixed order.
        let buckets = inputs.bias.as_ref().map_or(0, |bias| params.shape(bias.table)[0]);
        let units = (inputs.cu_seqlens.count() - 1) * inputs.heads;
        let mut dbias = Tensor::host(&[units, buckets], DType::F32);
        dbias.slice_mut::<f32>().fill(0.0);
        with_real!(inputs.tokens.dtype(), E => {
            let dtokens = DisjointSlice::new(dtokens.slice_mut::<E>());
            let dqueries = dqueries.as_mut().map(|dqueries| DisjointSlice::new(dqueries.slice_mut::<E>()));
            let dbias = DisjointSlice::new(dbias.slice_mut::<f32>());
            self.for_heads(inputs, |head| {
                let biases = head.distance_biases(params);
                let dqueries = dqueries.as_ref().unwrap_or(&dtokens);
                let by_distance = backward::<E>(&head, &biases, log_sums.slice(), dy, dqueries, &dtokens);
                if let Some(bias) = &inputs.bias {
                    let unit = head.sequence * inputs.heads + head.head;
                    // SAFETY: only this task writes the sums of its sequence and head.
                    let sums = unsafe { dbias.part(unit * buckets..(unit + 1) * buckets) };
                    for (bucket, gradient) in bias.of_length(head.tokens.len()).iter().zip(by_distance) {
                        sums[*bucket as usize] += gradient;
                    }
                }
            });
        });
        if let Some(bias) = &inputs.bias {
            let gradient = gradient_sums(grads, params.range(bias.table));
            for (unit, sums) in dbias.slice::<f32>().chunks_exact(buckets.max(1)).enumerate() {
                for (bucket, sum) in sums.iter().enumerate() {
                    gradient[bucket * inputs.heads + unit % inputs.heads] += sum;
                }
            }
        }
        (dtokens, dqueries)
    }
}

/// Splits rows into chunks of up to sixteen.
fn chunks(rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = rows.end;
    rows.clone().step_by(LANES).map(move |first| first..end.min(first + LANES))
}

fn forward<E: VectorElement>(
    head: &Head<'_>,
    biases: &[f32],
    y: &DisjointSlice<'_, E>,
    log_sums: &DisjointSlice<'_, f32>,
) {
    let level = head.cpu.level;
    for (rows, keys) in head.blocks() {
        let (mut scores, mut weights) = (scratch(&rows, keys.len(), DType::F32), scratch(&rows, keys.len(), E::DTYPE));
        let mut inverse_sums = Tensor::host(&[rows.len()], DType::F32);
        let (_, stride) = scores.matrix("attention");
        let epilogue = Store { y: DisjointSlice::new(scores.slice_mut()), stride, factor: head.scale() };
        product_serial(level, head.precision(), head.q(&rows), head.k(&keys).t(), &epilogue);
        if !biases.is_empty() {
            for (row, scores) in rows.clone().zip(scores.slice_mut::<f32>().chunks_exact_mut(stride)) {
                let first = head.first_distance(row, &keys);
                level.run(AddTo { sums: &mut scores[..keys.len()], x: &biases[first..first + keys.len()] });
            }
        }
        let mut queries = head.query_settings(&rows, &keys);
        let matrices =
            scores.slice::<f32>().chunks(LANES * stride).zip(weights.slice_mut::<E>().chunks_mut(LANES * stride));
        let statistics = queries.chunks_mut(LANES).zip(inverse_sums.slice_mut::<f32>().chunks_mut(LANES));
        for (chunk, ((scores, weights), (queries, inverse_sums))) in chunks(&rows).zip(matrices.zip(statistics)) {
            head.prefetch_next::<E>(&chunk);
            level.run(Softmax { scores, weights, stride, queries, inverse_sums });
        }
        for (row, query) in rows.clone().zip(&queries) {
            let at = head.log_sum_index(row);
            // SAFETY: only this task writes (token, head).
            let place = unsafe { log_sums.part(at..at + 1) };
            place[0] = query.log_sum;
        }
        let epilogue = StoreRows {
            y,
            first_row: head.rows(&rows).start,
            first_col: head.columns().start,
            stride: head.inputs.hidden(),
            factors: Some(inverse_sums.slice()),
        };
        let weights = mat_part(&weights, 0..rows.len(), 0..keys.len());
        product_serial(level, head.precision(), weights, head.v(&keys), &epilogue);
    }
}

/// Writes the gradients of queries to `dqueries` and those of keys and values to `dtokens`. Both are the same matrix if
/// queries, keys and values are. Returns the gradients of the biases of each distance.
fn backward<E: VectorElement>(
    head: &Head<'_>,
    biases: &[f32],
    log_sums: &[f32],
    dy: &Tensor,
    dqueries: &DisjointSlice<'_, E>,
    dtokens: &DisjointSlice<'_, E>,
) -> Vec<f32> {
    let (width, len) = (head.width, head.tokens.len());
    let (level, precision) = (head.cpu.level, head.precision());
    let dy_part = |rows: &Range<usize>| mat_part(dy, head.rows(rows), head.columns());
    // Gradients of keys and values are summed over the blocks of rows: first dK, then dV.
    let mut sums = Tensor::host(&[2, len * width], DType::F32);
    let is_partial = head.inputs.visible != Visible::ALL;
    if head.queries.is_empty() || is_partial {
        sums.slice_mut::<f32>().fill(0.0);
    }
    let mut by_distance = vec![0.0; biases.len()];
    for (rows, keys) in head.blocks() {
        let (mut signed, mut dp) = (scratch(&rows, keys.len(), DType::F32), scratch(&rows, keys.len(), DType::F32));
        let (_, stride) = signed.matrix("attention");
        let mut queries = head.query_settings(&rows, &keys);
        for (row, query) in rows.clone().zip(&mut queries) {
            query.log_sum = log_sums[head.log_sum_index(row)];
        }
        let epilogue = SignedWeights {
            y: DisjointSlice::new(signed.slice_mut()),
            stride,
            factor: head.scale(),
            queries: &queries,
            biases,
            first_distance: if biases.is_empty() { 0 } else { head.first_distance(rows.start, &keys) },
        };
        product_serial(level, precision, head.q(&rows), head.k(&keys).t(), &epilogue);
        let epilogue = Store { y: DisjointSlice::new(dp.slice_mut()), stride, factor: 1.0 };
        product_serial(level, precision, dy_part(&rows), head.v(&keys).t(), &epilogue);

        let (mut dropped, mut ds) = (scratch(&rows, keys.len(), E::DTYPE), scratch(&rows, keys.len(), E::DTYPE));
        let inputs = signed.slice::<f32>().chunks(LANES * stride).zip(dp.slice::<f32>().chunks(LANES * stride));
        let outputs =
            dropped.slice_mut::<E>().chunks_mut(LANES * stride).zip(ds.slice_mut::<E>().chunks_mut(LANES * stride));
        let (dropout_scale, scale) = (head.inputs.mask.scale(), head.scale());
        for (chunk, ((signed, dp), (dropped, ds))) in chunks(&rows).zip(inputs.zip(outputs)) {
            head.prefetch_next::<E>(&chunk);
            head.prefetch::<E>(dy, head.rows(&chunk));
            let has_bias = !by_distance.is_empty();
            let bias =
                has_bias.then(|| (by_distance.as_mut_slice(), head.first_distance(chunk.start, &keys), keys.len()));
            level.run(SoftmaxBackward { signed, dp, dropped, ds, stride, dropout_scale, scale, bias });
        }
        let all = (0..rows.len(), 0..keys.len());
        let (dropped, ds) =
            (mat_part(&dropped, all.0.clone(), all.1.clone()), mat_part(&ds, all.0.clone(), all.1.clone()));
        let write = if rows.start > 0 || is_partial { Write::Add } else { Write::Store };
        let (dk, dv) = sums.slice_mut::<f32>().split_at_mut(len * width);
        let of_keys = keys.start * width..keys.end * width;
        let (dk, dv) = (&mut dk[of_keys.clone()], &mut dv[of_keys]);
        let epilogue = Accumulate { sum: DisjointSlice::new(dv), columns: width, write, non_temporal: false };
        product_serial(level, precision, dropped.t(), dy_part(&rows), &epilogue);
        let epilogue = Accumulate { sum: DisjointSlice::new(dk), columns: width, write, non_temporal: false };
        product_serial(level, precision, ds.t(), head.q(&rows), &epilogue);
        let (_, stride) = head.inputs.queries().matrix("attention_backward");
        let (first_row, first_col) = (head.rows(&rows).start, head.columns().start);
        let epilogue = StoreRows { y: dqueries, first_row, first_col, stride, factors: None };
        product_serial(level, precision, ds, head.k(&keys), &epilogue);
    }
    let (_, stride) = head.inputs.tokens.matrix("attention_backward");
    let sums = sums.slice::<f32>().chunks_exact((len * width).max(1));
    for (first, sums) in [head.key_column(), head.value_column()].into_iter().zip(sums) {
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            let at = (head.tokens.start + row) * stride + first;
            // SAFETY: only this task writes these columns of the sequence's rows.
            let to = unsafe { dtokens.part(at..at + width) };
            level.run(lanes::Convert { from: sums, to });
        }
    }
    by_distance
}

/// Adds x to the sums.
struct AddTo<'a> {
    sums: &'a mut [f32],
    x: &'a [f32],
}

impl Vectorized for AddTo<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        each_part!(self.sums.len(), part => lanes::add_to(&mut self.sums[part.clone()], load(&self.x[part])));
    }
}

/// Stores C in some columns of a matrix that tasks share; each row is multiplied by its factor.
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
            // SAFETY: tiles are disjoint, and only this task writes these rows and columns.
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

/// What determines a query's attention weights, in addition to its scores.
#[derive(Clone, Copy)]
struct Query {
    log_sum: f32,
    mask: Mask,
    /// The first visible key, and the end of the visible ones, counted from the first key of the block.
    first: usize,
    visible: usize,
    /// The first key of the block in the sequence.
    first_key: usize,
}

impl Query {
    /// The lanes of visible keys, where lane 0 is key `at` of the block; `rest` in the others.
    #[inline(always)]
    fn mask_lanes(&self, at: usize, x: Lanes, rest: f32) -> Lanes {
        lanes::take(x, self.first.saturating_sub(at), self.visible.saturating_sub(at), rest)
    }
}

/// Converts scores to P, with rows padded to full vectors. A weight is negative if it was dropped.
struct SignedWeights<'a> {
    y: DisjointSlice<'a, f32>,
    stride: usize,
    factor: f32,
    queries: &'a [Query],
    /// The bias of each distance, or none.
    biases: &'a [f32],
    /// The place of the distance between the first row and the first key.
    first_distance: usize,
}

impl Epilogue for SignedWeights<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let cols = cols.next_multiple_of(LANES);
        for r in 0..rows {
            let at = (row + r) * self.stride + col;
            // SAFETY: tiles are disjoint, and only this task writes the matrix.
            let y = unsafe { self.y.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            let query = self.queries[row + r];
            let Query { log_sum, mask, first_key, .. } = query;
            each_part!(cols, part => {
                let mut p = load(&acc[part.clone()]);
                if self.biases.is_empty() {
                    p = lanes::map(p, |s| exp_nonpositive::<I>(mul_add::<I>(s, self.factor, -log_sum)));
                } else {
                    // The padding has no distances.
                    let at = (self.first_distance + col + part.start).saturating_sub(row + r).min(self.biases.len());
                    let biases = &self.biases[at..self.biases.len().min(at + LANES)];
                    let scores = lanes::zip(p, load(biases), |s, bias| mul_add::<I>(s, self.factor, bias));
                    p = lanes::map(scores, |s| exp_nonpositive::<I>(s - log_sum));
                }
                if mask.is_active() {
                    let factors = lanes::dropout_factors(mask, first_key + col + part.start);
                    p = lanes::zip(p, factors, |p, factor| if factor > 0.0 { p } else { -p });
                }
                store::<I, _>(query.mask_lanes(col + part.start, p, 0.0), &mut y[part]);
            });
        }
    }
}

/// Computes up to sixteen rows of dropped-out weights before division by their sum. Also computes the reciprocals of
/// the sums and the queries' log-sum-exps.
struct Softmax<'a, E> {
    scores: &'a [f32],
    weights: &'a mut [E],
    stride: usize,
    queries: &'a mut [Query],
    inverse_sums: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for Softmax<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Softmax { scores, weights, stride, queries, inverse_sums } = self;
        let mut sums = [1.0; LANES];
        let rows = scores.chunks_exact(stride).zip(weights.chunks_exact_mut(stride));
        for (((scores, weights), query), sum) in rows.zip(&mut *queries).zip(&mut sums) {
            // Vectors of keys, of which some are visible.
            let (begin, end) = (query.first / LANES * LANES, query.visible.next_multiple_of(LANES));
            weights[..begin].fill(E::from_f32(0.0));
            weights[end..].fill(E::from_f32(0.0));
            let (weights, scores) = (&mut weights[begin..end], &scores[begin..end]);
            let max = lane_max!(I, end - begin, part => {
                query.mask_lanes(begin + part.start, load(&scores[part.clone()]), f32::NEG_INFINITY)
            });
            // The sum includes the weights that are dropped.
            *sum = lane_sum!(I, end - begin, part => {
                let w = lanes::map(load(&scores[part.clone()]), |w| exp_nonpositive::<I>(w - max));
                let w = query.mask_lanes(begin + part.start, w, 0.0);
                let dropped = if query.mask.is_active() {
                    let first = query.first_key + begin + part.start;
                    lanes::zip(w, lanes::dropout_factors(query.mask, first), |w, factor| w * factor)
                } else {
                    w
                };
                store::<I, _>(dropped, &mut weights[part]);
                w
            });
            query.log_sum = max;
        }
        let logs = lanes::map(sums, ln::<I>);
        for ((query, inverse_sum), (sum, log)) in queries.iter_mut().zip(inverse_sums).zip(sums.into_iter().zip(logs)) {
            query.log_sum += log;
            *inverse_sum = 1.0 / sum;
        }
    }
}

/// Computes P̃ and dS from up to sixteen rows of signed P and of dO Vᵀ.
struct SoftmaxBackward<'a, E> {
    signed: &'a [f32],
    dp: &'a [f32],
    dropped: &'a mut [E],
    ds: &'a mut [E],
    stride: usize,
    /// The factor of weights that dropout keeps.
    dropout_scale: f32,
    scale: f32,
    /// The sums of dS by distance, the place of the first row's distance from the first key, and the number of keys.
    bias: Option<(&'a mut [f32], usize, usize)>,
}

impl<E: VectorElement> Vectorized for SoftmaxBackward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let SoftmaxBackward { signed, dp, dropped, ds, stride, dropout_scale, scale, mut bias } = self;
        let inputs = signed.chunks_exact(stride).zip(dp.chunks_exact(stride));
        let outputs = dropped.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride));
        for (row, ((signed, dp), (dropped, ds))) in inputs.zip(outputs).enumerate() {
            // δ is computed from this row's f32 numbers, not from O. O was rounded to bf16; if the softmax is peaked,
            // dP − δ is a difference of nearly equal numbers and would consist only of that rounding error.
            let delta = dropout_scale
                * lane_sum!(I, signed.len(), part => {
                    lanes::zip(load(&signed[part.clone()]), load(&dp[part]), |p, d| if p > 0.0 { p * d } else { 0.0 })
                });
            each_part!(signed.len(), part => {
                let p = load(&signed[part.clone()]);
                let ds_part = lanes::zip(p, load(&dp[part.clone()]), |p, d| {
                    p.abs() * (if p > 0.0 { d * dropout_scale } else { 0.0 } - delta)
                });
                if let Some((sums, first, keys)) = &mut bias {
                    // The padding has no distances.
                    let end = part.end.min(*keys).max(part.start);
                    lanes::add_to(&mut sums[*first + part.start - row..*first + end - row], ds_part);
                }
                store::<I, _>(lanes::map(ds_part, |ds| ds * scale), &mut ds[part.clone()]);
                store::<I, _>(lanes::map(p, |p| p.max(0.0) * dropout_scale), &mut dropped[part]);
            });
        }
    }
}
