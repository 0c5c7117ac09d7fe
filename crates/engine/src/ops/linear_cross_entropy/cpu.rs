//! One sweep over the vocabulary for a chunk of rows. Each tile of logits leaves behind e = exp(z − the greatest of its row's),
//! rounded to the activations' type, and that maximum and the sum a row, from which each row's log Σ exp z follows. Then, a block
//! of words at a time, e is scaled to dz where it lies, and multiplied by W and by x while it is in cache.
//!
//! Writing e and reading it takes the time of some 70 multiply-adds by AMX, and of fewer by any other level: less than computing
//! its logit again, which takes as many as x has columns.

use std::ops::Range;

use super::{Decoder, LinearCrossEntropy};
use crate::cpu::arena::{gradient_sums, gradients, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, Precision, Slice, product};
use crate::cpu::lanes::{self, LANES, VectorElement, each_part, lane_max, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized, mul_add};
use crate::cpu::math::exp_nonpositive;
use crate::cpu::sums::{Accumulate, Partial};
use crate::cpu::{Cpu, mat_part, precision_of};
use crate::dtype::with_real;
use crate::gradients::Write;
use crate::ops::LossSum;
use crate::{DType, Gradients, Parameters, Tensor};

/// Numbers that a chunk of rows holds at most, and its fewest rows all the same: below that, packing W anew costs too much.
const HELD: usize = 1 << 25;
const LEAST_ROWS: usize = 256;
/// About so many of them make a block. Its words are a multiple of what whole tiles of any width, and whole cache lines, fill;
/// the fewest are those below which packing x anew costs too much.
const BLOCK: usize = 1 << 20;
const LEAST_WORDS: usize = 480;

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
        let chunks = rows.div_ceil((HELD / vocab).max(LEAST_ROWS));
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
                let mut held = train.is_some().then(|| Held::new(range.len(), vocab, x.dtype()));
                let found = chunk.sweep::<E>(held.as_mut());
                for row in &found.outcomes {
                    loss += row.loss();
                }
                if let (Some((grads, scale)), Some(held), Some(dx)) = (&mut train, held, &mut dx) {
                    let dx = &mut dx.slice_mut::<E>()[range.start * hidden..range.end * hidden];
                    chunk.gradients(&found, held, grads, *scale, dx);
                }
            });
        }
        (loss, dx)
    }
}

/// Some rows of x, and what they are multiplied by and held against.
struct Chunk<'a> {
    cpu: &'a Cpu,
    precision: Precision,
    x: Mat<'a>,
    labels: &'a [i32],
    params: &'a Parameters,
    decoder: Decoder,
}

/// e, and then dz, of a chunk: block after block of `each` words, within it row after row.
struct Held {
    numbers: Tensor,
    rows: usize,
    each: usize,
}

impl Held {
    fn new(rows: usize, vocab: usize, dtype: DType) -> Held {
        let each = (BLOCK / rows).min(vocab).next_multiple_of(LEAST_WORDS);
        Held { numbers: Tensor::host(&[vocab.div_ceil(each) * rows, each], dtype), rows, each }
    }

    /// Those rows of `numbers` that are a block.
    fn block(&self, number: usize) -> Range<usize> {
        number * self.rows..(number + 1) * self.rows
    }
}

/// What the sweep finds.
struct Found {
    outcomes: Vec<Outcome>,
    /// For each slot of sixteen words, for each row the greatest logit of the tile that they are in: [slots, count], where count
    /// is the chunk's rows, rounded up to a multiple of sixteen.
    greatest: Tensor,
}

/// What the sweep finds of a row.
#[derive(Clone, Copy, Default)]
struct Outcome {
    /// The greatest logit, and Σ exp(z − greatest).
    greatest: f32,
    sum: f32,
    at_label: f32,
}

impl Outcome {
    fn log_sum(&self) -> f64 {
        f64::from(self.sum).ln() + f64::from(self.greatest)
    }

    fn loss(&self) -> LossSum {
        let correct = usize::from(self.at_label >= self.greatest);
        LossSum { sum: self.log_sum() - f64::from(self.at_label), weight: 1.0, count: 1, correct }
    }
}

impl<'a> Chunk<'a> {
    fn bias(&self) -> &'a [f32] {
        weights(self.params, self.decoder.bias)
    }

    /// Some words' rows of W.
    fn words(&self, words: &Range<usize>) -> Mat<'a> {
        let (weight, hidden) = (weights(self.params, self.decoder.weight), self.x.cols());
        Mat::new(Slice::F32(&weight[words.start * hidden..words.end * hidden]), words.len(), hidden, hidden)
    }

    /// Each row's log Σ exp z and what it takes to know it; e, if there is where to hold it.
    fn sweep<E: VectorElement>(&self, held: Option<&mut Held>) -> Found {
        let Cpu { level, pool, .. } = self.cpu;
        let (rows, vocab) = (self.labels.len(), self.bias().len());
        let (slots, count) = (vocab.div_ceil(LANES), rows.next_multiple_of(LANES));
        let mut greatest = Tensor::host(&[slots, count], DType::F32);
        let mut sums = Tensor::host(&[slots, count], DType::F32);
        let mut outcomes = vec![Outcome::default(); rows];
        let parts = DisjointSlice::new(&mut outcomes);
        let sink = Statistics {
            greatest: DisjointSlice::new(greatest.slice_mut::<f32>()),
            sums: DisjointSlice::new(sums.slice_mut::<f32>()),
            count,
            outcomes: &parts,
            bias: self.bias(),
            labels: self.labels,
            each: held.as_ref().map_or(vocab, |held| held.each),
            rows,
            held: held.map(|held| DisjointSlice::new(held.numbers.slice_mut::<E>())),
        };
        product(*level, pool, self.precision, self.x, self.words(&(0..vocab)).t(), &sink);
        let (all, sums) = (greatest.slice::<f32>(), sums.slice::<f32>());
        self.cpu.for_blocks(rows, LANES, |rows| {
            // SAFETY: blocks of rows are disjoint.
            let outcomes = unsafe { parts.part(rows.clone()) };
            level.run(Combine { greatest: all, sums, count, first: rows.start, outcomes });
        });
        Found { outcomes, greatest }
    }

    /// scale · dx; the decoder's gradients are added to.
    fn gradients<E: VectorElement>(
        &self,
        found: &Found,
        mut held: Held,
        grads: &mut Gradients,
        scale: f32,
        dx: &mut [E],
    ) {
        let Cpu { level, pool, .. } = self.cpu;
        let (rows, hidden, each) = (self.labels.len(), self.x.cols(), held.each);
        let (_, count) = found.greatest.matrix("linear_cross_entropy");
        let log_sums: Vec<f32> = found.outcomes.iter().map(|outcome| outcome.log_sum() as f32).collect();
        let mut sums = Tensor::host(&[rows, hidden], DType::F32);
        let [weight, bias] = [self.decoder.weight, self.decoder.bias].map(|id| self.params.range(id));
        let write = grads.begin_write(weight.clone());
        for (number, first) in (0..self.bias().len()).step_by(each).enumerate() {
            let words = first..self.bias().len().min(first + each);
            let block = held.block(number);
            let mut partial = Partial::new(rows, words.len());
            let numbers = DisjointSlice::new(&mut held.numbers.slice_mut::<E>()[block.start * each..block.end * each]);
            partial.fill(self.cpu, rows, |rows, sums| {
                level.run(Slopes {
                    // SAFETY: blocks of rows are disjoint.
                    numbers: unsafe { numbers.part(rows.start * each..rows.end * each) },
                    each,
                    words: words.clone(),
                    greatest: found.greatest.slice(),
                    count,
                    first: rows.start,
                    outcomes: &found.outcomes[rows.clone()],
                    log_sums: &log_sums[rows.clone()],
                    labels: &self.labels[rows],
                    scale,
                    sums,
                });
            });
            partial.add_to(self.cpu, &mut gradient_sums(grads, bias.clone())[words.clone()]);

            let dz = mat_part(&held.numbers, block, 0..words.len());
            let to = DisjointSlice::new(sums.slice_mut::<f32>());
            let dx_write = if first > 0 { Write::Add } else { Write::Store };
            let dx = Accumulate { sum: to, columns: hidden, write: dx_write, far: false };
            product(*level, pool, self.precision, dz, self.words(&words), &dx);
            let dw = gradients(grads, weight.start + words.start * hidden..weight.start + words.end * hidden);
            let dw = Accumulate { sum: DisjointSlice::new(dw), columns: hidden, write, far: true };
            product(*level, pool, self.precision, dz.t(), self.x, &dw);
        }
        level.run(lanes::Narrow { from: sums.slice(), to: dx });
    }
}

/// Leaves of each tile's rows the maximum, Σ exp(z − maximum), its terms, and the label's logit where it is among them.
///
/// Maxima and sums lie in slots of sixteen columns, row by row (of which a slot has room for a multiple of sixteen): a wider tile
/// has the same maxima in all of its slots, and its sums in the first.
struct Statistics<'a, E> {
    greatest: DisjointSlice<'a, f32>,
    sums: DisjointSlice<'a, f32>,
    /// Rows in a slot.
    count: usize,
    outcomes: &'a DisjointSlice<'a, Outcome>,
    bias: &'a [f32],
    labels: &'a [i32],
    /// Words in a block, and all rows.
    each: usize,
    rows: usize,
    held: Option<DisjointSlice<'a, E>>,
}

impl<E: VectorElement> Epilogue for Statistics<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let bias = &self.bias[col..col + cols];
        let slot = |slot: usize| {
            let start = (col / LANES + slot) * self.count + row;
            // SAFETY: tiles are disjoint, and start at multiples of sixteen columns.
            unsafe { (self.greatest.part(start..start + rows), self.sums.part(start..start + rows)) }
        };
        let (greatest, sums) = slot(0);
        for r in 0..rows {
            let z = &mut acc[r * stride..r * stride + cols];
            greatest[r] = lane_max!(I, cols, part => {
                let logits = lanes::zip(load(&z[part.clone()]), load(&bias[part.clone()]), |z, b| z + b);
                store::<I, _>(logits, &mut z[part]);
                logits
            });
            if let Some(z) = z.get((self.labels[row + r] as usize).wrapping_sub(col)) {
                // SAFETY: only one tile holds the label's column.
                unsafe { self.outcomes.part(row + r..row + r + 1)[0].at_label = *z };
            }
            sums[r] = lane_sum!(I, cols, part => {
                let e = lanes::map(load(&z[part.clone()]), |z| exp_nonpositive::<I>(z - greatest[r]));
                store::<I, _>(e, &mut z[part]);
                e
            });
            if let Some(held) = &self.held {
                // A block's words are a multiple of any tile's.
                let at = (col / self.each * self.rows + row + r) * self.each + col % self.each;
                // SAFETY: tiles are disjoint.
                lanes::stream::<I, _>(z, unsafe { held.part(at..at + cols) });
            }
        }
        for rest in 1..cols.div_ceil(LANES) {
            let (maxima, sums) = slot(rest);
            maxima.copy_from_slice(greatest);
            sums.fill(0.0);
        }
    }
}

/// The maxima and sums of sixteen rows, or those that there are, from those of their tiles.
struct Combine<'a> {
    greatest: &'a [f32],
    sums: &'a [f32],
    /// Rows in a slot.
    count: usize,
    first: usize,
    outcomes: &'a mut [Outcome],
}

impl<'a> Vectorized for Combine<'a> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let of =
            |of: &'a [f32]| of.chunks_exact(self.count).filter_map(|slot| slot[self.first..].first_chunk::<LANES>());
        let mut greatest = [f32::NEG_INFINITY; LANES];
        for slot in of(self.greatest) {
            // SAFETY: code that is generic over a level runs at that level only.
            greatest = unsafe { I::greater(slot, &greatest) };
        }
        let mut sums = [0.0; LANES];
        for (slot, sum) in of(self.greatest).zip(of(self.sums)) {
            let scales = lanes::zip(*slot, greatest, |z, most| exp_nonpositive::<I>(z - most));
            sums = lanes::zip3(scales, *sum, sums, |scale, sum, sums| mul_add::<I>(scale, sum, sums));
        }
        for (outcome, (greatest, sum)) in self.outcomes.iter_mut().zip(greatest.into_iter().zip(sums)) {
            (outcome.greatest, outcome.sum) = (greatest, sum);
        }
    }
}

/// Turns some rows of a block's e into dz = scale (p − onehot), which it adds to `sums`.
struct Slopes<'a, E> {
    numbers: &'a mut [E],
    /// Numbers in a row, of which `words` are the block's.
    each: usize,
    words: Range<usize>,
    /// As in [`Found`].
    greatest: &'a [f32],
    count: usize,
    /// The first row.
    first: usize,
    outcomes: &'a [Outcome],
    log_sums: &'a [f32],
    labels: &'a [i32],
    scale: f32,
    sums: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for Slopes<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Slopes { numbers, each, words, greatest, count, first, outcomes, log_sums, labels, scale, sums } = self;
        let groups = numbers.chunks_mut(LANES * each).zip(log_sums.chunks(LANES));
        for (group, (numbers, log_sums)) in groups.enumerate() {
            let log_sums = load(log_sums);
            each_part!(words.len(), part => {
                let at = (words.start + part.start) / LANES * count + first + group * LANES;
                // e exp(greatest − log Σ) = p
                let factors = lanes::zip(load(&greatest[at..at + LANES]), log_sums, |z, sum| exp_nonpositive::<I>(z - sum) * scale);
                let mut total = load(&sums[part.clone()]);
                for (row, factor) in numbers.chunks_exact_mut(each).zip(factors) {
                    let row = &mut row[part.clone()];
                    let p = lanes::map(load(row), |e| e * factor);
                    total = lanes::zip(total, p, |total, p| total + p);
                    store::<I, _>(p, row);
                }
                store::<I, _>(total, &mut sums[part]);
            });
        }
        let rows = numbers.chunks_exact_mut(each).zip(outcomes.iter().zip(log_sums)).zip(labels);
        for ((row, (outcome, log_sum)), label) in rows {
            let label = (*label as usize).wrapping_sub(words.start);
            if label < words.len() {
                row[label] = E::from_f32((exp_nonpositive::<I>(outcome.at_label - log_sum) - 1.0) * scale);
                sums[label] -= scale;
            }
        }
    }
}
