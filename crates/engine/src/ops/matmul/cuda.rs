use super::MatMul;
use crate::cuda::{Cuda, Operand, Product};
use crate::device::Memory;
use crate::{DType, Tensor};

impl MatMul for Cuda {
    fn matmul(&self, a: &Tensor, b: &Tensor, transposed: [bool; 2]) -> Tensor {
        assert_eq!(a.dtype(), b.dtype(), "matmul: types");
        let operand = |x: &Tensor, transposed: bool| {
            let (rows, columns) = x.matrix("matmul");
            if transposed { (columns, rows, Operand::of(x).t()) } else { (rows, columns, Operand::of(x)) }
        };
        let (rows, inner, a) = operand(a, transposed[0]);
        let (b_inner, columns, b) = operand(b, transposed[1]);
        assert_eq!(inner, b_inner, "matmul: inner dimensions");
        if inner == 0 {
            return self.zeros(&[rows, columns], DType::F32);
        }
        let mut c = self.empty(&[rows, columns], DType::F32);
        let product = Product { rows, columns, inner, a, b, c: Operand::of_mut(&mut c), addend: None, bias: None };
        // SAFETY: A is [M, K], B is [K, N] and C is [M, N], with the strides of their tensors.
        unsafe { self.product(&product) };
        c
    }
}
