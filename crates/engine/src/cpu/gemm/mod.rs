//! Matrix products `C = A·B` (A `m×k`, B `k×n`, f32 sums) whose tiles go to a sink as they get finished.
//!
//! In the order of the data: a [`Mat`] names an operand where it lies; `pack` copies it, converted, into panels as wide as
//! the micro-kernel's tile; `blocks` cuts C into blocks whose panels stay in L2 and shares them among threads; a
//! `kernel::Kernel` multiplies two panels into one tile of C held in registers; the tile, still in L1, goes to the caller's
//! [`TileSink`], which adds biases, applies functions, rounds and stores. C itself is nobody's business but the sink's.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod peak;
mod portable;
mod scratch;
#[cfg(test)]
mod tests;
mod transpose;

use half::bf16;

use super::buffer::Buffer;
use super::level::{Isa, Level};
use super::pool::Pool;
#[cfg(target_arch = "x86_64")]
pub(crate) use kernel::Rows;
pub(crate) use peak::compare_peaks;
pub use peak::peak;

/// The elements of an operand.
#[derive(Clone, Copy)]
pub enum Slice<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    BF16(&'a [bf16]),
}

impl Slice<'_> {
    fn len(&self) -> usize {
        match self {
            Slice::F32(data) => data.len(),
            Slice::BF16(data) => data.len(),
        }
    }
}

/// A read-only matrix: rows of contiguous elements, `row_stride` apart; or the transpose of such a one.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: Slice<'a>,
    rows: usize,
    cols: usize,
    stride: usize,
    transposed: bool,
}

impl<'a> Mat<'a> {
    /// The `rows × cols` matrix whose element (i, j) is `data[i·row_stride + j]`.
    ///
    /// # Panics
    /// The rows overlap, or the data are too short.
    pub fn new(data: Slice<'a>, rows: usize, cols: usize, row_stride: usize) -> Mat<'a> {
        assert!(row_stride >= cols || rows <= 1, "matrix {rows}×{cols} with rows {row_stride} apart");
        if rows > 0 && cols > 0 {
            let end = (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols));
            assert!(
                end.is_some_and(|end| end <= data.len()),
                "matrix {rows}×{cols} with rows {row_stride} apart in {} elements",
                data.len()
            );
        }
        Mat { data, rows, cols, stride: row_stride, transposed: false }
    }

    /// The transpose: the same elements, seen the other way.
    pub fn t(self) -> Mat<'a> {
        Mat { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// What operands are rounded to before they are multiplied. Sums are f32 always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Not rounded: f32 products.
    F32,
    /// Rounded to the nearest bf16 (ties to even): exact products of bf16 values.
    BF16,
}

/// Receives the tiles of C, each exactly once, from several threads, in no fixed order.
pub trait TileSink: Sync {
    /// Takes the finished `rows × cols` tile whose first element is C's (`row`, `col`): element (i, j) is
    /// `acc[i·stride + j]`; `stride` is a multiple of sixteen, and what follows a row's `cols` may be anything. `acc` may be
    /// overwritten. Implementations must be `#[inline(always)]`, so as to be compiled for the level `I`.
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize);
}

/// Multiplies `a` by `b` on all threads of `pool` and hands the tiles of the product to `sink`.
///
/// Each element is summed in an order that depends on k and on `level` alone: not on the threads, nor on m and n.
///
/// # Panics
/// `a` has not as many columns as `b` has rows, or the machine lacks `level`.
pub fn product<S: TileSink>(level: Level, pool: &Pool, precision: Precision, a: Mat, b: Mat, sink: &S) {
    dispatch(level, Some(pool), precision, a, b, None, sink);
}

/// As [`product`], on the calling thread alone: for small matrices within a task.
pub fn product_serial<S: TileSink>(level: Level, precision: Precision, a: Mat, b: Mat, sink: &S) {
    dispatch(level, None, precision, a, b, None, sink);
}

/// B, packed once for many products: at one level, for one precision.
pub(crate) struct PackedB {
    lines: Buffer,
    level: Level,
    rows: usize,
    cols: usize,
}

impl PackedB {
    /// Packs `b` for bf16 products on all threads of `pool`, if this level packs two elements into a word: where it does not, a
    /// packed copy would save little and take as much memory again.
    pub(crate) fn bf16(level: Level, pool: &Pool, b: Mat) -> Option<PackedB> {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (pool, b);
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a device's level is one that the machine has.
            Level::Amx => Some(unsafe { PackedB::of::<amx::Amx<super::tiles::Hardware>>(level, pool, b) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512BF16 => Some(unsafe { PackedB::of::<avx512::Avx512Pairs>(level, pool, b) }),
            _ => None,
        }
    }

    /// # Safety
    /// The machine has what `K` needs.
    #[cfg(target_arch = "x86_64")]
    unsafe fn of<K: kernel::Kernel>(level: Level, pool: &Pool, b: Mat) -> PackedB {
        let mut lines = Buffer::new(blocks::lines_of_b::<K>(b) * size_of::<kernel::Line>());
        // SAFETY: as the caller vouches; the buffer has the room, and is aligned to lines.
        unsafe { blocks::pack_b::<K>(pool, Precision::BF16, b, lines.as_mut_ptr().cast()) };
        PackedB { lines, level, rows: b.rows, cols: b.cols }
    }

    /// [`product`] with this as `b`.
    ///
    /// # Panics
    /// `b` is not the matrix that was packed, by its size, or `level` another.
    pub(crate) fn product<S: TileSink>(&self, level: Level, pool: &Pool, a: Mat, b: Mat, sink: &S) {
        assert_eq!((self.level, self.rows, self.cols), (level, b.rows, b.cols), "a packed matrix");
        // The product only reads it.
        let ready = self.lines.as_ptr().cast_mut().cast();
        dispatch(level, Some(pool), Precision::BF16, a, b, Some(ready), sink);
    }
}

fn dispatch<S: TileSink>(
    level: Level,
    pool: Option<&Pool>,
    precision: Precision,
    a: Mat,
    b: Mat,
    ready: Option<*mut kernel::Line>,
    sink: &S,
) {
    assert!(
        level <= Level::detect(),
        "product at level {} on a machine of level {}",
        level.name(),
        Level::detect().name()
    );
    // SAFETY: the machine has the level, hence what the kernels need.
    unsafe {
        match (level, precision) {
            #[cfg(target_arch = "x86_64")]
            (Level::Amx, Precision::BF16) => {
                blocks::multiply::<amx::Amx<super::tiles::Hardware>, S>(pool, precision, a, b, ready, sink)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512BF16, Precision::BF16) => {
                blocks::multiply::<avx512::Avx512Pairs, S>(pool, precision, a, b, ready, sink)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Amx | Level::Avx512BF16 | Level::Avx512, _) => {
                blocks::multiply::<avx512::Avx512F32, S>(pool, precision, a, b, ready, sink)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => blocks::multiply::<avx2::Avx2F32, S>(pool, precision, a, b, ready, sink),
            #[cfg(target_arch = "aarch64")]
            (Level::Neon, _) => blocks::multiply::<neon::NeonF32, S>(pool, precision, a, b, ready, sink),
            _ => blocks::multiply::<portable::PortableF32, S>(pool, precision, a, b, ready, sink),
        }
    }
}
