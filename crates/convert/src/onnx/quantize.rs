//! Dynamic quantization to int8, as onnxruntime's `quantize_dynamic` with `per_channel`, in standard operators.
//!
//! ```text
//! W ≈ S·Q        one scale for each row (output), Q = round(W / s) in −127 … 127, s = max |W| / 127 of the row
//! x ≈ a (q − z)  one scale and zero point for the whole tensor, when the graph runs (DynamicQuantizeLinear, uint8)
//! x·Wᵀ ≈ a s (q − z)·Qᵀ                                                       (MatMulInteger, with sums of int32)
//! ```
//!
//! Tables of embeddings are quantized by row, too; only the rows of a batch become floats. onnxruntime fuses the four nodes of
//! a product. Without VNNI or a similar instruction, x86 CPUs may saturate sums of two products of bytes.

use std::borrow::Cow;

use super::graph::{GraphBuilder, Matrix};
use super::proto::{AttributeProto, FLOAT};

/// A matrix with fewer rows (outputs) stays f32, such as that of a classifier: it is small, and its outputs are the result.
pub(super) const SMALLEST: usize = 16;
/// The largest quantized number. −128 is not used, so that the range is symmetric.
const LARGEST: f32 = 127.0;

/// The numbers of a matrix, row-major, and the scale of each row.
fn quantized(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut scales = Vec::with_capacity(values.len() / columns.max(1));
    let mut numbers = Vec::with_capacity(values.len());
    for row in values.chunks_exact(columns.max(1)) {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / LARGEST;
        // A row of zeros, or of subnormal numbers.
        let scale = if scale >= f32::MIN_POSITIVE { scale } else { 1.0 };
        scales.push(scale);
        numbers.extend(row.iter().map(|value| (value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8));
    }
    (numbers, scales)
}

/// A matrix `[rows, columns]` as `[columns, rows]`.
fn transposed(numbers: &[i8], rows: usize, columns: usize) -> Vec<i8> {
    let mut result = vec![0; numbers.len()];
    for (row, line) in numbers.chunks_exact(columns).enumerate() {
        for (column, &number) in line.iter().enumerate() {
            result[column * rows + row] = number;
        }
    }
    result
}

impl<'a> GraphBuilder<'a> {
    /// Whether a product with this matrix is one of integers.
    pub(super) fn quantizes_product(&self, weight: &Matrix<'_>) -> bool {
        self.quantizes() && weight.rows >= SMALLEST
    }

    /// x·Wᵀ for a matrix `[out, in]`, which is stored as `[in, out]`.
    pub(super) fn integer_product(&mut self, at: String, x: &str, weight: Matrix<'a>) -> String {
        let Matrix { name, values, rows, columns } = weight;
        let [numbers, scales] = ["int8.transposed", "scale"].map(|part| format!("{name}.{part}"));
        // Layers may share a weight.
        if !self.has(&numbers) {
            let (quantized, scale) = quantized(&values, columns);
            self.bytes(numbers.clone(), [columns, rows], transposed(&quantized, rows, columns));
            self.vector(scales.clone(), Cow::Owned(scale));
        }
        self.multiply(at, x, &numbers, &scales)
    }

    /// x·Tᵀ for a table `[rows, in]` that [`integer_lookup`](Self::integer_lookup) reads, too, and which is stored once.
    pub(super) fn product_with_table(&mut self, at: String, x: &str, table: Matrix<'a>) -> String {
        let [numbers, scales] = self.quantized_table(table);
        let perm = vec![AttributeProto::ints("perm", &[1, 0])];
        let columns = self.node("Transpose", format!("{numbers}.columns"), &[&numbers], perm);
        self.multiply(at, x, &columns, &scales)
    }

    /// The rows of a table with these numbers.
    pub(super) fn integer_lookup(&mut self, at: String, table: Matrix<'a>, numbers: &str) -> String {
        let [table, scales] = self.quantized_table(table);
        let rows = self.plain_node("Gather", format!("{at}.int8"), &[&table, numbers]);
        let rows = self.cast(format!("{at}.float"), &rows);
        let scales = self.plain_node("Gather", format!("{at}.scales"), &[&scales, numbers]);
        let axis = self.ints("lookup_axis", &[-1]);
        let scales = self.plain_node("Unsqueeze", format!("{at}.scale"), &[&scales, &axis]);
        self.plain_node("Mul", at, &[&rows, &scales])
    }

    /// A table and the scales of its rows.
    fn quantized_table(&mut self, Matrix { name, values, rows, columns }: Matrix<'a>) -> [String; 2] {
        let names = ["int8", "scale"].map(|part| format!("{name}.{part}"));
        if !self.has(&names[0]) {
            let (quantized, scales) = quantized(&values, columns);
            self.bytes(names[0].clone(), [rows, columns], quantized);
            self.vector(names[1].clone(), Cow::Owned(scales));
        }
        names
    }

    /// The product of x, which is quantized first, and a quantized matrix `[in, out]` with these scales. In the order that
    /// onnxruntime fuses.
    fn multiply(&mut self, at: String, x: &str, weight: &str, scales: &str) -> String {
        let [quantized, scale, zero] = ["uint8", "scale", "zero_point"].map(|part| format!("{x}.{part}"));
        // Queries, keys and values have the same input.
        self.node_of_outputs("DynamicQuantizeLinear", &quantized, &[x], &[&quantized, &scale, &zero]);
        let sums = self.plain_node("MatMulInteger", format!("{at}.int32"), &[&quantized, weight, &zero]);
        let sums = self.cast(format!("{at}.float"), &sums);
        let scales = self.plain_node("Mul", format!("{at}.scales"), &[&scale, scales]);
        self.plain_node("Mul", at, &[&sums, &scales])
    }

    fn cast(&mut self, at: String, x: &str) -> String {
        self.node("Cast", at, &[x], vec![AttributeProto::int("to", i64::from(FLOAT))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_their_own_scale_and_halves_round_to_even() {
        let values = [127.0, -63.5, 2.5, 0.5, -254.0, 3.0, 0.0, 127.0, 0.0, 0.0, 0.0, 0.0, 1e-40, 0.0, -1e-40, 0.0];
        let (numbers, scales) = quantized(&values, 4);
        assert_eq!(numbers[..4], [127, -64, 2, 0]);
        assert_eq!(numbers[4..8], [-127, 2, 0, 64]);
        assert_eq!(numbers[8..], [0; 8], "zeros and subnormal numbers");
        assert_eq!(scales, [1.0, 2.0, 1.0, 1.0]);
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
    }
}
