//! Computes the loss in one product with the vocabulary per chunk of rows. Each tile of logits stores e = exp(z − the
//! maximum of its row in the tile), rounded to the activations' type, and for each row that maximum and the sum. From
//! these follows log Σ exp z of each row. Then, a block of words at a time, e is scaled to dz in place, and multiplied
//! by W and by x while it is in cache.
//!
//! Writing e and reading it takes the time of about 70 multiply-adds with AMX, and of fewer at other levels. That is
//! less than recomputing its logit, which takes one multiply-add per column of x.

use std::ops::Range;

use super::{Decoder, LinearCrossEntropy};
use crate::cpu::arena::{gradient_sums, gradients, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, Precision, Slice, product};
use crate::cpu::lanes::{self, LANES, VectorElement, each_part, lane_max, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized, mul_add};
use crate::cpu::math::exp_nonpositive;
use crate::cpu::sums::{Accumulate, BlockSums};
use crate::cpu::{Cpu, mat_part, precision_of};
use crate::dtype::with_real;
use crate::gradients::Write;
use crate::ops::LossSum;
use crate::{DType, Gradients, Parameters, Tensor};

/// Maximum number of exponentials for a chunk of rows; but a chunk has at least MIN_ROWS rows, because with fewer,
/// packing W for each chunk costs too much.
const MAX_EXPONENTIALS: usize = 1 << 25;
const MIN_ROWS: usize = 256;
/// Approximate number of exponentials in a block. Its number of words is a multiple of MIN_WORDS, which all tile widths
/// and the cache line divide; with fewer words, packing x for each block costs too much.
const BLOCK: usize = 1 << 20;
const MIN_WORDS: usize = 480;

impl LinearCrossEntropy for Cpu {
    fn linear_cross_entropy(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        labels: &Tensor,
        mut train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        let (rows, hidden) = x.matrix("linear_cross_entropy");
        let [vocab, inner] = *params.shape(decoder.weight) else {
            panic!("linear_cross_entropy: a decoder is a matrix")
        };
        assert_eq!(inner, hidden, "linear_cross_entropy: {} against {x:?}", params.name(decoder.weight));
        let labels = labels.slice::<i32>();
        assert_eq!(labels.len(), rows, "linear_cross_entropy: labels of {rows} rows");
        if let Some(bad) = labels.iter().find(|l| !(0..vocab as i32).contains(*l)) {
            panic!("linear_cross_entropy: label {bad} of a vocabulary of {vocab}");
        }
        let mut loss = LossSum::default();
        let mut dx = train.is_some().then(|| Tensor::host(&[rows, hidden], x.dtype()));
        let chunks = rows.div_ceil((MAX_EXPONENTIALS / vocab).max(MIN_ROWS));
        for range in (0..chunks).map(|i| rows * i / chunks..rows * (i + 1) / chunks) {
            let chunk = Chunk {
                cpu: self,
                precision: precision_of(x.dtype()),
                x: mat_part(x, range.clone(), 0..hidden),
                labels: &labels[range.clone()],
                params,
                decoder,
            };
            with_real!(x.dtype(), E => {
                let mut exponentials = train.is_some().then(|| Exponentials::new(range.len(), vocab, x.dtype()));
                let statistics = chunk.statistics::<E>(exponentials.as_mut());
                for row in &statistics.rows {
                    loss += row.loss();
                }
                if let (Some((grads, scale)), Some(exponentials), Some(dx)) = (&mut train, exponentials, &mut dx) {
                    let dx = &mut dx.slice_mut::<E>()[range.start * hidden..range.end * hidden];
                    chunk.gradients(&statistics, exponentials, grads, *scale, dx);
                }
            });
        }
        (loss, dx)
    }
}

/// Some rows of x with their labels, and the decoder.
struct Chunk<'a> {
    cpu: &'a Cpu,
    precision: Precision,
    x: Mat<'a>,
    labels: &'a [i32],
    params: &'a Parameters,
    decoder: Decoder,
}

/// The exponentials e of a chunk, later overwritten by dz. Block after block of `block_words` words; in each block, row
/// after row.
struct Exponentials {
    numbers: Tensor,
    rows: usize,
    block_words: usize,
}

impl Exponentials {
    fn new(rows: usize, vocab: usize, dtype: DType) -> Exponentials {
        let block_words = (BLOCK / rows).min(vocab).next_multiple_of(MIN_WORDS);
        Exponentials {
            numbers: Tensor::host(&[vocab.div_ceil(block_words) * rows, block_words], dtype),
            rows,
            block_words,
        }
    }

    /// The rows of `numbers` that contain a block.
    fn block_rows(&self, number: usize) -> Range<usize> {
        number * self.rows..(number + 1) * self.rows
    }
}

/// Statistics of a chunk's logits.
struct Statistics {
    rows: Vec<RowStatistics>,
    /// For each group of sixteen words and each row, the maximum logit of the tile that contains them: [groups, padded
    /// rows], where the number of the chunk's rows is rounded up to a multiple of sixteen.
    max: Tensor,
}

/// Statistics of a row's logits.
#[derive(Clone, Copy, Default)]
struct RowStatistics {
    /// The maximum logit, and Σ exp(z − max).
    max: f32,
    sum: f32,
    label_logit: f32,
}

impl RowStatistics {
    fn log_sum_exp(&self) -> f64 {
        f64::from(self.sum).ln() + f64::from(self.max)
    }

    fn loss(&self) -> LossSum {
        let correct = usize::from(self.label_logit >= self.max);
        LossSum { sum: self.log_sum_exp() - f64::from(self.label_logit), weight: 1.0, count: 1, correct }
    }
}

impl<'a> Chunk<'a> {
    fn bias(&self) -> &'a [f32] {
        weights(self.params, self.decoder.bias)
    }

    /// The rows of W of some words.
    fn words(&self, words: &Range<usize>) -> Mat<'a> {
        let (weight, hidden) = (weights(self.params, self.decoder.weight), self.x.cols());
        Mat::new(Slice::F32(&weight[words.start * hidden..words.end * hidden]), words.len(), hidden, hidden)
    }

    /// Computes the statistics of the rows' logits; also the exponentials, if `exponentials` is given.
    fn statistics<E: VectorElement>(&self, exponentials: Option<&mut Exponentials>) -> Statistics {
        let Cpu { level, pool, .. } = self.cpu;
        let (rows, vocab) = (self.labels.len(), self.bias().len());
        let (groups, padded_rows) = (vocab.div_ceil(LANES), rows.next_multiple_of(LANES));
        let mut max = Tensor::host(&[groups, padded_rows], DType::F32);
        let mut sums = Tensor::host(&[groups, padded_rows], DType::F32);
        let mut row_statistics = vec![RowStatistics::default(); rows];
        let parts = DisjointSlice::new(&mut row_statistics);
        let epilogue = TileStatistics {
            max: DisjointSlice::new(max.slice_mut::<f32>()),
            sums: DisjointSlice::new(sums.slice_mut::<f32>()),
            padded_rows,
            row_statistics: &parts,
            bias: self.bias(),
            labels: self.labels,
            block_words: exponentials.as_ref().map_or(vocab, |exponentials| exponentials.block_words),
            rows,
            exponentials: exponentials.map(|exponentials| DisjointSlice::new(exponentials.numbers.slice_mut::<E>())),
        };
        product(*level, pool, self.precision, self.x, self.words(&(0..vocab)).t(), &epilogue);
        let (tile_max, sums) = (max.slice::<f32>(), sums.slice::<f32>());
        self.cpu.for_blocks(rows, LANES, |rows| {
            // SAFETY: blocks of rows are disjoint.
            let row_statistics = unsafe { parts.part(rows.clone()) };
            level.run(CombineTiles { max: tile_max, sums, padded_rows, first: rows.start, row_statistics });
        });
        Statistics { rows: row_statistics, max }
    }

    /// Writes scale · dx, and adds to the gradients of the decoder.
    fn gradients<E: VectorElement>(
        &self,
        statistics: &Statistics,
        mut exponentials: Exponentials,
        grads: &mut Gradients,
        scale: f32,
        dx: &mut [E],
    ) {
        let Cpu { level, pool, .. } = self.cpu;
        let (rows, hidden, block_words) = (self.labels.len(), self.x.cols(), exponentials.block_words);
        let (_, padded_rows) = statistics.max.matrix("linear_cross_entropy");
        let log_sums: Vec<f32> = statistics.rows.iter().map(|row| row.log_sum_exp() as f32).collect();
        let mut sums = Tensor::host(&[rows, hidden], DType::F32);
        let [weight, bias] = [self.decoder.weight, self.decoder.bias].map(|id| self.params.range(id));
        let write = grads.begin_write(weight.clone());
        for (number, first) in (0..self.bias().len()).step_by(block_words).enumerate() {
            let words = first..self.bias().len().min(first + block_words);
            let block = exponentials.block_rows(number);
            let mut block_sums = BlockSums::new(rows, words.len());
            let numbers = DisjointSlice::new(
                &mut exponentials.numbers.slice_mut::<E>()[block.start * block_words..block.end * block_words],
            );
            block_sums.fill(self.cpu, rows, |rows, sums| {
                level.run(LogitGradients {
                    // SAFETY: blocks of rows are disjoint.
                    numbers: unsafe { numbers.part(rows.start * block_words..rows.end * block_words) },
                    block_words,
                    words: words.clone(),
                    max: statistics.max.slice(),
                    padded_rows,
                    first: rows.start,
                    row_statistics: &statistics.rows[rows.clone()],
                    log_sums: &log_sums[rows.clone()],
                    labels: &self.labels[rows],
                    scale,
                    sums,
                });
            });
            block_sums.add_to(self.cpu, &mut gradient_sums(grads, bias.clone())[words.clone()]);

            let dz = mat_part(&exponentials.numbers, block, 0..words.len());
            let to = DisjointSlice::new(sums.slice_mut::<f32>());
            let dx_write = if first > 0 { Write::Add } else { Write::Store };
            let dx = Accumulate { sum: to, columns: hidden, write: dx_write, non_temporal: false };
            product(*level, pool, self.precision, dz, self.words(&words), &dx);
            let dw = gradients(grads, weight.start + words.start * hidden..weight.start + words.end * hidden);
            let dw = Accumulate { sum: DisjointSlice::new(dw), columns: hidden, write, non_temporal: true };
            product(*level, pool, self.precision, dz.t(), self.x, &dw);
        }
        level.run(lanes::Convert { from: sums.slice(), to: dx });
    }
}

/// The epilogue of the product with W: for each row of a tile, computes the maximum, the terms exp(z − maximum) and
/// their sum, and the label's logit if it is in the tile.
///
/// Maxima and sums are stored per group of sixteen columns, row by row (padded to a multiple of sixteen rows). A wider
/// tile stores its maxima in all of its groups, and its sums in the first group, with zeros in the others.
struct TileStatistics<'a, E> {
    max: DisjointSlice<'a, f32>,
    sums: DisjointSlice<'a, f32>,
    /// Rows per group.
    padded_rows: usize,
    row_statistics: &'a DisjointSlice<'a, RowStatistics>,
    bias: &'a [f32],
    labels: &'a [i32],
    /// Words in a block, and the number of rows.
    block_words: usize,
    rows: usize,
    exponentials: Option<DisjointSlice<'a, E>>,
}

impl<E: VectorElement> Epilogue for TileStatistics<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let bias = &self.bias[col..col + cols];
        let group = |group: usize| {
            let start = (col / LANES + group) * self.padded_rows + row;
            // SAFETY: tiles are disjoint, and start at multiples of sixteen columns.
            unsafe { (self.max.part(start..start + rows), self.sums.part(start..start + rows)) }
        };
        let (max, sums) = group(0);
        for r in 0..rows {
            let z = &mut acc[r * stride..r * stride + cols];
            max[r] = lane_max!(I, cols, part => {
                let logits = lanes::zip(load(&z[part.clone()]), load(&bias[part.clone()]), |z, b| z + b);
                store::<I, _>(logits, &mut z[part]);
                logits
            });
            if let Some(z) = z.get((self.labels[row + r] as usize).wrapping_sub(col)) {
                // SAFETY: only one tile contains the label's column.
                unsafe { self.row_statistics.part(row + r..row + r + 1)[0].label_logit = *z };
            }
            sums[r] = lane_sum!(I, cols, part => {
                let e = lanes::map(load(&z[part.clone()]), |z| exp_nonpositive::<I>(z - max[r]));
                store::<I, _>(e, &mut z[part]);
                e
            });
            if let Some(exponentials) = &self.exponentials {
                // The number of words in a block is a multiple of any tile's width.
                let at = (col / self.block_words * self.rows + row + r) * self.block_words + col % self.block_words;
                // SAFETY: tiles are disjoint.
                lanes::stream::<I, _>(z, unsafe { exponentials.part(at..at + cols) });
            }
        }
        for other in 1..cols.div_ceil(LANES) {
            let (other_max, sums) = group(other);
            other_max.copy_from_slice(max);
            sums.fill(0.0);
        }
    }
}

/// Computes maxima and sums of up to sixteen rows from those of their tiles.
struct CombineTiles<'a> {
    max: &'a [f32],
    sums: &'a [f32],
    /// Rows per group.
    padded_rows: usize,
    first: usize,
    row_statistics: &'a mut [RowStatistics],
}

impl<'a> Vectorized for CombineTiles<'a> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let lanes_of = |all: &'a [f32]| {
            all.chunks_exact(self.padded_rows).filter_map(|group| group[self.first..].first_chunk::<LANES>())
        };
        let mut max = [f32::NEG_INFINITY; LANES];
        for group in lanes_of(self.max) {
            // SAFETY: code that is generic over a level only runs at that level.
            max = unsafe { I::max(group, &max) };
        }
        let mut sums = [0.0; LANES];
        for (group, sum) in lanes_of(self.max).zip(lanes_of(self.sums)) {
            let scales = lanes::zip(*group, max, |group_max, max| exp_nonpositive::<I>(group_max - max));
            sums = lanes::zip3(scales, *sum, sums, |scale, sum, sums| mul_add::<I>(scale, sum, sums));
        }
        for (row, (max, sum)) in self.row_statistics.iter_mut().zip(max.into_iter().zip(sums)) {
            (row.max, row.sum) = (max, sum);
        }
    }
}

/// Converts some rows of a block of exponentials to dz = scale (p − onehot), and adds them to `sums`.
struct LogitGradients<'a, E> {
    numbers: &'a mut [E],
    /// Numbers per row; the block has `words.len()` of them.
    block_words: usize,
    words: Range<usize>,
    /// As in [`Statistics`].
    max: &'a [f32],
    padded_rows: usize,
    /// The first row.
    first: usize,
    row_statistics: &'a [RowStatistics],
    log_sums: &'a [f32],
    labels: &'a [i32],
    scale: f32,
    sums: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for LogitGradients<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let LogitGradients {
            numbers,
            block_words,
            words,
            max,
            padded_rows,
            first,
            row_statistics,
            log_sums,
            labels,
            scale,
            sums,
        } = self;
        let groups = numbers.chunks_mut(LANES * block_words).zip(log_sums.chunks(LANES));
        for (group, (numbers, log_sums)) in groups.enumerate() {
            let log_sums = load(log_sums);
            each_part!(words.len(), part => {
                let at = (words.start + part.start) / LANES * padded_rows + first + group * LANES;
                // p = e exp(max − log Σ exp z)
                let factors = lanes::zip(load(&max[at..at + LANES]), log_sums, |z, sum| exp_nonpositive::<I>(z - sum) * scale);
                let mut total = load(&sums[part.clone()]);
                for (row, factor) in numbers.chunks_exact_mut(block_words).zip(factors) {
                    let row = &mut row[part.clone()];
                    let p = lanes::map(load(row), |e| e * factor);
                    total = lanes::zip(total, p, |total, p| total + p);
                    store::<I, _>(p, row);
                }
                store::<I, _>(total, &mut sums[part]);
            });
        }
        let rows = numbers.chunks_exact_mut(block_words).zip(row_statistics.iter().zip(log_sums)).zip(labels);
        for ((row, (statistics, log_sum)), label) in rows {
            let label = (*label as usize).wrapping_sub(words.start);
            if label < words.len() {
                row[label] = E::from_f32((exp_nonpositive::<I>(statistics.label_logit - log_sum) - 1.0) * scale);
                sums[label] -= scale;
            }
        }
    }
}
