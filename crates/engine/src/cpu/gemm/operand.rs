//! What a product multiplies: matrices in place, and what their elements are rounded to.

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

/// A read-only matrix: rows of contiguous elements, `row_stride` apart; or the transpose of such a one.
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
