use super::{Decoder, VocabLoss};
use crate::cpu::gemm::{Mat, Slice, TileSink, product};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::math::{exp, lane_max, lane_sum};
use crate::cpu::rows::Parts;
use crate::cpu::{Cpu, mat, mat_part, precision_of};
use crate::ops::LossSum;
use crate::ops::linear::{AddTo, StoreSum};
use crate::tensor::with_real;
use crate::{DType, Gradients, Parameters, Tensor};

/// Logits held at a time, in elements (64 MB). Fewer would pack the vocabulary's weights more often.
const LOGITS: usize = 1 << 24;
/// Rows held at least.
const LEAST_ROWS: usize = 64;

impl VocabLoss for Cpu {
    fn vocab_loss(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        labels: &Tensor,
        mut train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        let (rows, hidden) = x.matrix("vocab_loss");
        let [vocab, inner] = *params.shape(decoder.weight) else { panic!("vocab_loss: a decoder is a matrix") };
        assert_eq!(inner, hidden, "vocab_loss: {} against {x:?}", params.name(decoder.weight));
        let labels = labels.slice::<i32>();
        assert_eq!(labels.len(), rows, "vocab_loss: labels of {rows} rows");
        if let Some(bad) = labels.iter().find(|l| !(0..vocab as i32).contains(*l)) {
            panic!("vocab_loss: label {bad} of a vocabulary of {vocab}");
        }
        let precision = precision_of(x.dtype());
        let weight = Mat::new(Slice::F32(params.values(decoder.weight)), vocab, hidden, hidden);
        let bias = params.values(decoder.bias);
        let mut dx = train.is_some().then(|| Tensor::host(&[rows, hidden], x.dtype()));
        let mut total = LossSum::default();
        let block = (LOGITS / vocab).max(LEAST_ROWS).min(rows.max(1));
        let mut first = 0;
        while first < rows {
            let range = first..rows.min(first + block);
            let x_block = mat_part(x, range.clone(), 0..hidden);
            let mut logits = Tensor::host(&[range.len(), vocab], DType::F32);
            let sink = Logits { z: Parts::new(logits.slice_mut::<f32>()), bias, vocab };
            product(self.level, &self.pool, precision, x_block, weight.t(), &sink);
            let scale = train.as_ref().map(|(_, scale)| *scale);
            total += self.softmax_rows(logits.slice_mut::<f32>(), vocab, &labels[range.clone()], scale);
            if let (Some((grads, _)), Some(dx)) = (&mut train, &mut dx) {
                with_real!(x.dtype(), E => {
                    let rows = &mut dx.slice_mut::<E>()[range.start * hidden..range.end * hidden];
                    let sink = StoreSum { y: Parts::new(rows), prior: None, columns: hidden };
                    product(self.level, &self.pool, precision, mat(&logits), weight, &sink);
                });
                let dw =
                    AddTo { sum: Parts::new(&mut grads.flat_mut()[params.range(decoder.weight)]), columns: hidden };
                product(self.level, &self.pool, precision, mat(&logits).t(), x_block, &dw);
                self.add_column_sums(&logits, &mut grads.flat_mut()[params.range(decoder.bias)]);
            }
            first = range.end;
        }
        (total, dx)
    }
}

impl Cpu {
    /// The loss of rows of logits; with a scale, the rows become their gradients.
    fn softmax_rows(&self, logits: &mut [f32], vocab: usize, labels: &[i32], scale: Option<f32>) -> LossSum {
        let mut losses = vec![(0f64, false); labels.len()];
        let (rows, outcome) = (Parts::new(logits), Parts::new(&mut losses));
        self.pool.run(labels.len(), &|m| {
            // SAFETY: each row is one task's.
            let (z, outcome) = unsafe { (rows.part(m * vocab..(m + 1) * vocab), outcome.part(m..m + 1)) };
            outcome[0] = self.level.run(SoftmaxRow { z, label: labels[m] as usize, scale });
        });
        losses.iter().fold(LossSum::default(), |mut total, (loss, correct)| {
            total += LossSum { sum: *loss, count: 1, correct: usize::from(*correct) };
            total
        })
    }
}

struct Logits<'a> {
    z: Parts<'a, f32>,
    bias: &'a [f32],
    vocab: usize,
}

impl TileSink for Logits<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let bias = &self.bias[col..col + cols];
        for r in 0..rows {
            let at = (row + r) * self.vocab + col;
            // SAFETY: tiles are disjoint.
            let z = unsafe { self.z.part(at..at + cols) };
            for ((z, a), b) in z.iter_mut().zip(&acc[r * stride..r * stride + cols]).zip(bias) {
                *z = a + b;
            }
        }
    }
}

struct SoftmaxRow<'a> {
    z: &'a mut [f32],
    label: usize,
    scale: Option<f32>,
}

impl Vectorized for SoftmaxRow<'_> {
    type Output = (f64, bool);
    #[inline(always)]
    fn call<I: Isa>(self) -> (f64, bool) {
        let SoftmaxRow { z, label, scale } = self;
        let greatest = lane_max(z.len(), |i| z[i]);
        let at_label = z[label];
        let sum = match scale {
            None => lane_sum(z.len(), |i| exp::<I>(z[i] - greatest)),
            Some(_) => {
                for z in z.iter_mut() {
                    *z = exp::<I>(*z - greatest);
                }
                lane_sum(z.len(), |i| z[i])
            }
        };
        if let Some(scale) = scale {
            let factor = scale / sum;
            for z in z.iter_mut() {
                *z *= factor;
            }
            z[label] -= scale;
        }
        (f64::from(sum).ln() + f64::from(greatest) - f64::from(at_label), at_label >= greatest)
    }
}
