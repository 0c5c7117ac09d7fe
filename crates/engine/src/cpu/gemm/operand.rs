//! The operands of a product: views of matrices in memory, and the precision to which their elements are rounded.

use half::bf16;

/// The elements of an operand.
#[derive(Clone, Copy)]
pub enum Slice<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    BF16(&'a [bf16]),
    /// Signed bytes, only for products of two such operands ([`Precision::Int8`]).
    Int8(&'a [i8]),
}

impl Slice<'_> {
    fn len(&self) -> usize {
        match self {
            Slice::F32(data) => data.len(),
            Slice::BF16(data) => data.len(),
            Slice::Int8(data) => data.len(),
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

    /// The size of a matrix whose elements are packed already.
    pub(super) fn without_elements(rows: usize, cols: usize) -> Mat<'a> {
        Mat { data: Slice::F32(&[]), rows, cols, stride: 0, transposed: false }
    }

    /// The transpose: a view of the same elements.
    pub fn t(self) -> Mat<'a> {
        Mat { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// The number of columns and the elements, in the order of the rows, of a contiguous f32 matrix.
    ///
    /// # Panics
    /// It is not.
    pub(crate) fn contiguous_f32(self) -> (usize, &'a [f32]) {
        match self.data {
            Slice::F32(data) if !self.transposed && self.stride == self.cols => {
                (self.cols, &data[..self.rows * self.cols])
            }
            _ => panic!("expected a contiguous f32 matrix of {}×{}", self.rows, self.cols),
        }
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

/// The precision to which operands are rounded before they are multiplied. Sums are f32, or i32 if the operands are int8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// f32 products, without rounding.
    F32,
    /// Operands are rounded to the nearest bf16 (ties to even); their products are exact.
    BF16,
    /// Both operands are int8 already. Sums are exact modulo 2³²; an epilogue receives them as the bits of its f32. The
    /// kernel of a level may expect an offset in A: see [`int8_offset`](super::int8_offset).
    Int8,
}
