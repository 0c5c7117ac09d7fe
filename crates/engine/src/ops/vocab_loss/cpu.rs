//! Two sweeps over the vocabulary, neither of which holds the logits. The first leaves of each tile's rows a maximum and a
//! sum of exponentials, from which each row's log Σ exp z follows. The second computes the logits again, a block of words at
//! a time, turns each tile into dz while it is in L1, and multiplies the block by W and by x while it is in cache.
//! Computing logits twice costs a third more arithmetic; writing and reading them costs more time than that.

use std::ops::Range;

use super::{Decoder, VocabLoss};
use crate::cpu::gemm::{Mat, Slice, TileSink, product};
use crate::cpu::lanes::{self, LANES, each_part, lane_max, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized, madd};
use crate::cpu::math::exp_down;
use crate::cpu::rows::Parts;
use crate::cpu::{Cpu, mat, mat_part, precision_of};
use crate::dtype::Real;
use crate::ops::LossSum;
use crate::ops::linear::Accumulate;
use crate::tensor::with_real;
use crate::{DType, Gradients, Parameters, Tensor};

/// Rows of the first sweep at a time: their maxima and sums take V/2 bytes each.
const ROWS: usize = 1024;
/// Elements of dz that the second sweep holds, and the fewest words of a block: below that, packing x anew costs too much.
const BLOCK: usize = 1 << 20;
const LEAST_WORDS: usize = 512;

impl VocabLoss for Cpu {
    fn vocab_loss(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        labels: &Tensor,
        train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        let (rows, hidden) = x.matrix("vocab_loss");
        let [vocab, inner] = *params.shape(decoder.weight) else { panic!("vocab_loss: a decoder is a matrix") };
        assert_eq!(inner, hidden, "vocab_loss: {} against {x:?}", params.name(decoder.weight));
        let labels = labels.slice::<i32>();
        assert_eq!(labels.len(), rows, "vocab_loss: labels of {rows} rows");
        if let Some(bad) = labels.iter().find(|l| !(0..vocab as i32).contains(*l)) {
            panic!("vocab_loss: label {bad} of a vocabulary of {vocab}");
        }
        let words = Words { params, decoder };
        let outcomes = self.log_sums(x, &words, labels);
        let loss = outcomes.iter().fold(LossSum::default(), |mut total, row| {
            total += row.loss();
            total
        });
        let dx = train.map(|(grads, scale)| {
            with_real!(x.dtype(), E => self.logit_gradients::<E>(x, &words, labels, &outcomes, grads, scale))
        });
        (loss, dx)
    }
}

/// The decoder: a row and a bias a word.
struct Words<'a> {
    params: &'a Parameters,
    decoder: Decoder,
}

impl<'a> Words<'a> {
    fn bias(&self) -> &'a [f32] {
        self.params.values(self.decoder.bias)
    }

    fn count(&self) -> usize {
        self.bias().len()
    }

    /// Some words' rows.
    fn rows(&self, words: &Range<usize>, hidden: usize) -> Mat<'a> {
        let weight = self.params.values(self.decoder.weight);
        Mat::new(Slice::F32(&weight[words.start * hidden..words.end * hidden]), words.len(), hidden, hidden)
    }
}

/// What the first sweep finds of a row.
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

impl Cpu {
    /// The first sweep.
    fn log_sums(&self, x: &Tensor, words: &Words, labels: &[i32]) -> Vec<Outcome> {
        let (rows, hidden) = x.matrix("vocab_loss");
        let precision = precision_of(x.dtype());
        let mut outcomes = vec![Outcome::default(); rows];
        let slots = words.count().div_ceil(LANES);
        for first in (0..rows).step_by(ROWS) {
            let block = first..rows.min(first + ROWS);
            let count = block.len().next_multiple_of(LANES);
            let mut greatest = Tensor::host(&[slots, count], DType::F32);
            let mut sums = Tensor::host(&[slots, count], DType::F32);
            let outcomes = Parts::new(&mut outcomes[block.clone()]);
            let sink = Statistics {
                greatest: Parts::new(greatest.slice_mut::<f32>()),
                sums: Parts::new(sums.slice_mut::<f32>()),
                outcomes: &outcomes,
                bias: words.bias(),
                labels: &labels[block.clone()],
                count,
            };
            let (x, all) = (mat_part(x, block.clone(), 0..hidden), words.rows(&(0..words.count()), hidden));
            product(self.level, &self.pool, precision, x, all.t(), &sink);
            let (greatest, sums) = (greatest.slice::<f32>(), sums.slice::<f32>());
            self.for_blocks(block.len(), LANES, |rows| {
                // SAFETY: blocks of rows are disjoint.
                let outcomes = unsafe { outcomes.part(rows.clone()) };
                self.level.run(Combine { greatest, sums, count, first: rows.start, outcomes });
            });
        }
        outcomes
    }

    /// The second sweep: → scale · dx; the decoder's gradients are added to.
    fn logit_gradients<E: Real>(
        &self,
        x: &Tensor,
        words: &Words,
        labels: &[i32],
        outcomes: &[Outcome],
        grads: &mut Gradients,
        scale: f32,
    ) -> Tensor {
        let (rows, hidden) = x.matrix("vocab_loss");
        let precision = precision_of(x.dtype());
        let log_sums: Vec<f32> = outcomes.iter().map(|outcome| outcome.log_sum() as f32).collect();
        let mut sums = Tensor::host(&[rows, hidden], DType::F32);
        let [weight, bias] = [words.decoder.weight, words.decoder.bias].map(|id| words.params.range(id));
        let adds = grads.adds(weight.clone());
        let each = (BLOCK / rows.max(1)).max(LEAST_WORDS).next_multiple_of(LEAST_WORDS);
        for first in (0..words.count()).step_by(each) {
            let block = first..words.count().min(first + each);
            let mut dz = Tensor::host(&[rows, block.len()], x.dtype());
            let sink = Slopes {
                dz: Parts::new(dz.slice_mut::<E>()),
                bias: &words.bias()[block.clone()],
                first: block.start,
                labels,
                log_sums: &log_sums,
                scale,
            };
            product(self.level, &self.pool, precision, mat(x), words.rows(&block, hidden).t(), &sink);
            let dx =
                Accumulate { sum: Parts::new(sums.slice_mut::<f32>()), columns: hidden, adds: first > 0, far: false };
            product(self.level, &self.pool, precision, mat(&dz), words.rows(&block, hidden), &dx);
            let dw = grads.part(weight.start + block.start * hidden..weight.start + block.end * hidden);
            let dw = Accumulate { sum: Parts::new(dw), columns: hidden, adds, far: true };
            product(self.level, &self.pool, precision, mat(&dz).t(), mat(x), &dw);
            self.add_column_sums(&dz, &mut grads.sums(bias.clone())[block.clone()]);
        }
        let mut dx = Tensor::host(&[rows, hidden], x.dtype());
        self.level.run(lanes::Narrow { from: sums.slice(), to: dx.slice_mut::<E>() });
        dx
    }
}

/// Leaves of each tile's rows the maximum and Σ exp(z − maximum), and the label's logit where it is among them.
///
/// They lie in slots of sixteen columns, row by row (of which a slot has room for a multiple of sixteen): a wider tile fills the
/// first of its slots.
struct Statistics<'a> {
    greatest: Parts<'a, f32>,
    sums: Parts<'a, f32>,
    outcomes: &'a Parts<'a, Outcome>,
    bias: &'a [f32],
    labels: &'a [i32],
    /// Rows in a slot.
    count: usize,
}

impl TileSink for Statistics<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let bias = &self.bias[col..col + cols];
        let slot = |slot: usize| {
            let start = slot * self.count + row;
            // SAFETY: tiles are disjoint, and start at multiples of sixteen columns.
            unsafe { (self.greatest.part(start..start + rows), self.sums.part(start..start + rows)) }
        };
        let (greatest, sums) = slot(col / LANES);
        for r in 0..rows {
            let z = &mut acc[r * stride..r * stride + cols];
            greatest[r] = lane_max!(I, cols, part => {
                let logits = lanes::zip(load(&z[part.clone()]), load(&bias[part.clone()]), |z, b| z + b);
                store::<I, _>(logits, &mut z[part]);
                logits
            });
            sums[r] = lane_sum!(I, cols, part => lanes::map(load(&z[part]), |z| exp_down::<I>(z - greatest[r])));
            if let Some(z) = z.get((self.labels[row + r] as usize).wrapping_sub(col)) {
                // SAFETY: only one tile holds the label's column.
                unsafe { self.outcomes.part(row + r..row + r + 1)[0].at_label = *z };
            }
        }
        for rest in 1..cols.div_ceil(LANES) {
            let (greatest, sums) = slot(col / LANES + rest);
            greatest.fill(f32::NEG_INFINITY);
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
            let scales = lanes::zip(*slot, greatest, |z, most| exp_down::<I>(z - most));
            sums = lanes::zip3(scales, *sum, sums, |scale, sum, sums| madd::<I>(scale, sum, sums));
        }
        for (outcome, (greatest, sum)) in self.outcomes.iter_mut().zip(greatest.into_iter().zip(sums)) {
            (outcome.greatest, outcome.sum) = (greatest, sum);
        }
    }
}

/// Turns logits into scale (p − onehot).
struct Slopes<'a, E> {
    dz: Parts<'a, E>,
    bias: &'a [f32],
    /// The block's first word.
    first: usize,
    labels: &'a [i32],
    log_sums: &'a [f32],
    scale: f32,
}

impl<E: Real> TileSink for Slopes<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        // SAFETY: a sink runs at a level that the machine has.
        unsafe { I::vectorize(TileSlopes { slopes: self, row, col, rows, cols, logits: acc, stride }) };
    }
}

/// One tile of them. Apart from the sink, where the compiler takes them number by number at some levels.
struct TileSlopes<'a, E> {
    slopes: &'a Slopes<'a, E>,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
    logits: &'a [f32],
    stride: usize,
}

impl<E: Real> Vectorized for TileSlopes<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let TileSlopes { slopes, row, col, rows, cols, logits, stride } = self;
        let bias = &slopes.bias[col..col + cols];
        for r in 0..rows {
            let z = &logits[r * stride..r * stride + cols];
            let at = (row + r) * slopes.bias.len() + col;
            let (log_sum, scale) = (slopes.log_sums[row + r], slopes.scale);
            // SAFETY: tiles are disjoint.
            let dz = unsafe { slopes.dz.part(at..at + cols) };
            each_part!(cols, part => {
                let p = lanes::zip(load(&z[part.clone()]), load(&bias[part.clone()]), |z, b| exp_down::<I>(z + b - log_sum));
                store::<I, _>(lanes::map(p, |p| p * scale), &mut dz[part]);
            });
            let label = (slopes.labels[row + r] as usize).wrapping_sub(slopes.first + col);
            if let Some(dz) = dz.get_mut(label) {
                *dz = E::from_f32((exp_down::<I>(z[label] + bias[label] - log_sum) - 1.0) * scale);
            }
        }
    }
}
