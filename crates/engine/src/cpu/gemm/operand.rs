//! The operands of a product: views of matrices in memory, and the precision to which their elements are rounded.

use half::bf16;

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

/// A read-only matrix with contiguous rows, `row_stride` elements apart; or the transpose of such a matrix.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub(super) data: Slice<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
    pub(super) transposed: bool,
}

impl<'a> Mat<'a> {
    /// The `rows × cols` matrix whose element (i, j) is `data[i·row_stride + j]`.
    ///
    /// # Panics
    /// The rows overlap, or the data is too short.
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

    /// The transpose: a view of the same elements.
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

/// The precision to which operands are rounded before they are multiplied. Sums are always f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// f32 products, without rounding.
    F32,
    /// Operands are rounded to the nearest bf16 (ties to even); their products are exact.
    BF16,
}
