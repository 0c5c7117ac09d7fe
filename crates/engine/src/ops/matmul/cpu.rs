use super::MatMul;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{self, Epilogue, Precision};
use crate::cpu::level::Isa;
use crate::cpu::{Cpu, mat};
use crate::{DType, Tensor};

impl MatMul for Cpu {
    fn matmul(&self, a: &Tensor, b: &Tensor, transposed: [bool; 2]) -> Tensor {
        let a = if transposed[0] { mat(a).t() } else { mat(a) };
        let b = if transposed[1] { mat(b).t() } else { mat(b) };
        let mut c = Tensor::host(&[a.rows(), b.cols()], DType::F32);
        let epilogue = Rows { columns: b.cols(), c: DisjointSlice::new(c.slice_mut()) };
        gemm::product(self.level, &self.pool, Precision::F32, a, b, &epilogue);
        c
    }
}

/// Stores tiles in a matrix without padding.
struct Rows<'a> {
    c: DisjointSlice<'a, f32>,
    columns: usize,
}

impl Epilogue for Rows<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            // SAFETY: tiles are disjoint.
            let c = unsafe { self.c.part(at..at + cols) };
            c.copy_from_slice(&acc[r * stride..r * stride + cols]);
        }
    }
}
