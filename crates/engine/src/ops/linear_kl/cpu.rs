use std::ops::Range;

use super::{LinearKl, TargetLogits};
use crate::cpu::arena::{gradient_sums, gradients, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, Slice, product};
use crate::cpu::lanes::{self, LANES, each_part, load};
use crate::cpu::level::Isa;
use crate::cpu::scores::KlDivergence;
use crate::cpu::sums::{Accumulate, StoreSum};
use crate::cpu::{Cpu, mat, mat_part, precision_of};
use crate::dtype::with_real;
use crate::ops::LossSum;
use crate::ops::linear_cross_entropy::Decoder;
use crate::{DType, Gradients, Parameters, Tensor};

/// Maximum number of the student's logits for a chunk of rows; but a chunk has at least MIN_ROWS rows, because with fewer,
/// packing W for each chunk costs too much. Tests have several chunks.
const MAX_LOGITS: usize = if cfg!(test) { 1 << 12 } else { 1 << 24 };
const MIN_ROWS: usize = if cfg!(test) { 16 } else { 128 };

impl LinearKl for Cpu {
    fn linear_kl(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        targets: TargetLogits<'_>,
        temperature: f32,
        mut train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        let (rows, hidden) = x.matrix("linear_kl");
        let [vocab, inner] = *params.shape(decoder.weight) else { panic!("linear_kl: a decoder is a matrix") };
        assert_eq!(inner, hidden, "linear_kl: {} against {x:?}", params.name(decoder.weight));
        let (level, pool, precision) = (self.level, &self.pool, precision_of(x.dtype()));
        let weight = Mat::new(Slice::F32(weights(params, decoder.weight)), vocab, hidden, hidden);
        let bias = weights(params, decoder.bias);
        let mut loss = LossSum::default();
        let mut dx = train.is_some().then(|| Tensor::host(&[rows, hidden], x.dtype()));
        let chunks = rows.div_ceil((MAX_LOGITS / vocab).max(MIN_ROWS));
        for range in (0..chunks).map(|i| rows * i / chunks..rows * (i + 1) / chunks) {
            let u = targets(range.clone());
            assert_eq!(u.shape(), [range.len(), vocab], "linear_kl: the teacher's logits of {range:?}");
            let x = mat_part(x, range.clone(), 0..hidden);
            let mut z = Tensor::host(&[range.len(), vocab], DType::F32);
            let logits = StoreLogits { y: DisjointSlice::new(z.slice_mut()), columns: vocab, bias };
            product(level, pool, precision, x, weight.t(), &logits);
            // dz = scale T (p − q)
            let scale = train.as_ref().map(|(_, scale)| scale * temperature);
            loss += self.kl_divergence(&mut z, &u, temperature, scale);
            let (Some((grads, _)), Some(dx)) = (&mut train, &mut dx) else { continue };
            self.add_column_sums(&z, gradient_sums(grads, params.range(decoder.bias)));
            let of_weight = params.range(decoder.weight);
            let write = grads.begin_write(of_weight.clone());
            let dw = DisjointSlice::new(gradients(grads, of_weight));
            let dw = Accumulate { sum: dw, columns: hidden, write, non_temporal: true };
            product(level, pool, precision, mat(&z).t(), x, &dw);
            with_real!(dx.dtype(), E => {
                let y = DisjointSlice::new(&mut dx.slice_mut::<E>()[range.start * hidden..range.end * hidden]);
                product(level, pool, precision, mat(&z), weight, &StoreSum { y, prior: None, columns: hidden });
            });
        }
        loss.sum *= f64::from(temperature).powi(2);
        (loss, dx)
    }
}

impl Cpu {
    /// Runs [`KlDivergence`] on the rows of two matrices of equal shapes.
    fn kl_divergence(&self, z: &mut Tensor, u: &Tensor, temperature: f32, scale: Option<f32>) -> LossSum {
        let (rows, columns) = z.matrix("kl_divergence");
        let mut losses = vec![LossSum::default(); rows.div_ceil(LANES)];
        let (parts, z) = (DisjointSlice::new(&mut losses), DisjointSlice::new(z.slice_mut::<f32>()));
        with_real!(u.dtype(), E => self.for_blocks(rows, LANES, |rows: Range<usize>| {
            let elements = rows.start * columns..rows.end * columns;
            // SAFETY: blocks of rows are disjoint.
            let (loss, logits) = unsafe { (parts.part(rows.start / LANES..rows.start / LANES + 1), z.part(elements.clone())) };
            let targets = &u.slice::<E>()[elements];
            loss[0] = self.level.run(KlDivergence { logits, targets, stride: columns, columns, temperature, scale });
        }));
        let mut sum = LossSum::default();
        losses.into_iter().for_each(|loss| sum += loss);
        sum
    }
}

/// Stores C + bias as f32.
struct StoreLogits<'a> {
    y: DisjointSlice<'a, f32>,
    columns: usize,
    bias: &'a [f32],
}

impl Epilogue for StoreLogits<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let bias = &self.bias[col..col + cols];
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            let acc = &mut acc[r * stride..r * stride + cols];
            each_part!(cols, part => lanes::add_to(&mut acc[part.clone()], load(&bias[part])));
            // SAFETY: tiles are disjoint.
            lanes::stream::<I, _>(acc, unsafe { self.y.part(at..at + cols) });
        }
    }
}
