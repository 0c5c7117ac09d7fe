//! Matrix products of an activation and a weight in int8: y = x Wᵀ.
//!
//! Each row r of x (a token) and of W (an output feature) becomes int8 q with one scale s, without an offset: s = max|r|/127,
//! q = r/s, rounded to the nearest integer, ties to even. Then y = s_x s_W Σ q_x q_W. The sum is exact in i32, so every kernel
//! computes the same bits; the rest has one order of operations, in f32:
//!
//! - m = max|r|; s = m/127; q = round(r · (127/m));
//! - y = f32(Σ q_x q_W) · (s_x · s_W).
//!
//! This is the scheme of dynamic quantization in PyTorch and ONNX Runtime with scales per token and per feature (Dettmers et
//! al. 2022, "LLM.int8()", section 2.1: vector-wise quantization).

use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, PackedB, Slice, int8_offset};
use crate::cpu::lanes::{LANES, each_part, load};
use crate::cpu::level::{Isa, Level, Vectorized};
use crate::cpu::pool::Pool;
use crate::dtype::Real;
use crate::host::Buffer;

/// The largest magnitude of q.
const MAX: f32 = 127.0;
/// Rows are padded to whole cache lines, so that kernels can read them in place.
const LINE: usize = 64;
/// Elements that a task quantizes at least.
const TASK: usize = 16 << 10;

/// 1.5·2²³: a float of this magnitude has no bits for fractions, so adding it rounds to an integer, ties to even. The
/// integer is then in the lowest bits. Unlike `round_ties_even`, it is an instruction at every level.
const ROUND: f32 = 12_582_912.0;

/// The factor 127/m by which a row with this largest magnitude is multiplied, and its scale m/127. A row with a number that
/// is not finite has a scale of NaN, so that all results from it are NaN. A row of zeros (or of numbers so small that the
/// factor is not finite) has scale 0.
fn factor_and_scale(largest: f32) -> (f32, f32) {
    let factor = MAX / largest;
    match (largest.is_finite(), factor.is_finite()) {
        (true, true) => (factor, largest / MAX),
        (true, false) => (0.0, 0.0),
        (false, _) => (0.0, f32::NAN),
    }
}

/// Quantizes consecutive rows of `columns` elements.
struct Quantize<'a, E> {
    from: &'a [E],
    columns: usize,
    /// Is added to each q, modulo 256.
    offset: u8,
    /// Rows of `stride` bytes; those from `columns` are not written.
    to: &'a mut [i8],
    stride: usize,
    scales: &'a mut [f32],
}

impl<E: Real> Vectorized for Quantize<'_, E> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self) {
        let Quantize { from, columns, offset, to, stride, scales } = self;
        for ((from, to), scale) in from.chunks_exact(columns).zip(to.chunks_exact_mut(stride)).zip(scales) {
            // The bits of a magnitude have the order of the magnitude, and those of NaN are the largest.
            let mut largest = [0i32; LANES];
            each_part!(columns, part => {
                let x = load(&from[part]);
                for (largest, x) in largest.iter_mut().zip(x) {
                    *largest = (*largest).max((x.to_bits() & 0x7fff_ffff) as i32);
                }
            });
            let largest = largest.into_iter().fold(0, i32::max);
            let (factor, own) = factor_and_scale(f32::from_bits(largest as u32));
            *scale = own;
            if own > 0.0 {
                each_part!(columns, part => {
                    let x = load(&from[part.clone()]);
                    let mut q = [0i8; LANES];
                    for (q, x) in q.iter_mut().zip(x) {
                        *q = (x * factor + ROUND).to_bits().wrapping_add(u32::from(offset)) as i8;
                    }
                    match <&mut [i8; LANES]>::try_from(&mut to[part.clone()]) {
                        Ok(full) => *full = q,
                        Err(_) => to[part.clone()].copy_from_slice(&q[..part.len()]),
                    }
                });
            } else {
                to[..columns].fill(offset as i8);
            }
        }
    }
}

/// A matrix of int8 with a scale for each row.
struct Int8Rows {
    bytes: Buffer,
    rows: usize,
    /// Columns with padding, whose contents are arbitrary.
    stride: usize,
    scales: Buffer,
}

impl Int8Rows {
    /// Quantizes a matrix of `columns` columns on all threads of `pool`, and adds `offset` to each int8.
    fn new<E: Real>(level: Level, pool: &Pool, from: &[E], columns: usize, offset: u8) -> Int8Rows {
        let (rows, stride) = (from.len() / columns.max(1), columns.next_multiple_of(LINE));
        let mut quantized =
            Int8Rows { bytes: Buffer::new(rows * stride), rows, stride, scales: Buffer::new(rows * size_of::<f32>()) };
        let (to, scales) = quantized.parts_mut();
        let (to, scales) = (DisjointSlice::new(to), DisjointSlice::new(scales));
        let each = (TASK / columns.max(1)).max(1);
        pool.run(rows.div_ceil(each), &|task| {
            let rows = task * each..rows.min((task + 1) * each);
            // SAFETY: the rows of tasks are disjoint.
            let (to, scales) = unsafe { (to.part(rows.start * stride..rows.end * stride), scales.part(rows.clone())) };
            let from = &from[rows.start * columns..rows.end * columns];
            level.run(Quantize { from, columns, offset, to, stride, scales });
        });
        quantized
    }

    fn bytes(&self) -> &[i8] {
        self.bytes.slice(self.rows * self.stride)
    }

    fn scales(&self) -> &[f32] {
        self.scales.slice(self.rows)
    }

    fn parts_mut(&mut self) -> (&mut [i8], &mut [f32]) {
        (self.bytes.slice_mut(self.rows * self.stride), self.scales.slice_mut(self.rows))
    }

    /// The matrix, with its padding.
    fn mat(&self) -> Mat<'_> {
        Mat::new(Slice::Int8(self.bytes()), self.rows, self.stride, self.stride)
    }
}

/// The transpose of a weight in int8, packed for products at a level.
pub(crate) struct Int8Weights {
    packed: PackedB,
    /// Of each output feature; both are padded to whole vectors.
    scales: Vec<f32>,
    /// What the offset of the kernel's other operand adds to the sums of each output feature.
    excess: Vec<i32>,
}

impl Int8Weights {
    /// Quantizes and packs `matrix`, Wᵀ of f32, on all threads of `pool`.
    ///
    /// # Panics
    /// Its columns are not contiguous.
    pub(crate) fn new(level: Level, pool: &Pool, matrix: Mat<'_>) -> Int8Weights {
        let (columns, weight) = matrix.t().contiguous_f32();
        let mut rows = Int8Rows::new(level, pool, weight, columns, 0);
        let (count, stride) = (rows.rows, rows.stride);
        let offset = i32::from(int8_offset(level));
        let mut excess = vec![0; count.next_multiple_of(LANES)];
        for (row, excess) in rows.parts_mut().0.chunks_exact_mut(stride).zip(&mut excess) {
            row[columns..].fill(0);
            *excess = offset * row.iter().map(|q| i32::from(*q)).sum::<i32>();
        }
        let mut scales = rows.scales().to_vec();
        scales.resize(excess.len(), 0.0);
        Int8Weights { packed: PackedB::int8(level, pool, rows.mat().t()), scales, excess }
    }

    /// x Wᵀ in f32, for `epilogue`; x has contiguous rows of `columns` elements.
    pub(crate) fn product<E: Real, S: Epilogue>(
        &self,
        level: Level,
        pool: &Pool,
        x: &[E],
        columns: usize,
        epilogue: &S,
    ) {
        let rows = Int8Rows::new(level, pool, x, columns, int8_offset(level));
        let epilogue =
            Dequantize { row_scales: rows.scales(), scales: &self.scales, excess: &self.excess, then: epilogue };
        self.packed.product(pool, rows.mat(), &epilogue);
    }
}

/// Replaces the i32 sums of a tile by f32 numbers for the next epilogue.
struct Dequantize<'a, S> {
    row_scales: &'a [f32],
    scales: &'a [f32],
    excess: &'a [i32],
    then: &'a S,
}

impl<S: Epilogue> Epilogue for Dequantize<'_, S> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        let columns = col..col + cols.next_multiple_of(LANES);
        let scale = Scale {
            row_scales: &self.row_scales[row..row + rows],
            scales: &self.scales[columns.clone()],
            excess: &self.excess[columns],
            acc: &mut *acc,
            stride,
        };
        // SAFETY: an epilogue runs at a level that the machine has.
        unsafe { I::vectorize(scale) };
        self.then.tile::<I>(row, col, rows, cols, acc, stride);
    }
}

/// The body of [`Dequantize`]. A separate function: the epilogue as one function would be too large for the compiler to
/// vectorise.
struct Scale<'a> {
    row_scales: &'a [f32],
    scales: &'a [f32],
    excess: &'a [i32],
    acc: &'a mut [f32],
    stride: usize,
}

impl Vectorized for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self) {
        let Scale { row_scales, scales, excess, acc, stride } = self;
        for (row_scale, acc) in row_scales.iter().zip(acc.chunks_exact_mut(stride)) {
            let vectors = acc.as_chunks_mut::<LANES>().0.iter_mut();
            for ((acc, scales), excess) in vectors.zip(scales.as_chunks::<LANES>().0).zip(excess.as_chunks::<LANES>().0)
            {
                let mut y = [0.0; LANES];
                for lane in 0..LANES {
                    let sum = (acc[lane].to_bits() as i32).wrapping_sub(excess[lane]);
                    y[lane] = sum as f32 * (row_scale * scales[lane]);
                }
                *acc = y;
            }
        }
    }
}
