//! A linear layer over the vocabulary whose logits exist only for a chunk of rows at a time: its products, for the losses that are fused with it.

use std::ops::Range;

use super::{Cuda, DevicePtr, Operand, Product};
use crate::device::Memory;
use crate::ops::linear_cross_entropy::Decoder;
use crate::{DType, Gradients, Parameters, Tensor};

/// x [M, H] and the decoder.
pub(crate) struct Vocabulary<'a> {
    pub(crate) cuda: &'a Cuda,
    pub(crate) x: &'a Tensor,
    pub(crate) params: &'a Parameters,
    pub(crate) decoder: Decoder,
}

impl Vocabulary<'_> {
    /// M, H and V. Panics if the decoder does not fit x.
    pub(crate) fn sizes(&self, op: &str) -> [usize; 3] {
        let (rows, hidden) = self.x.matrix(op);
        let [words, inner] = *self.params.shape(self.decoder.weight) else { panic!("{op}: a decoder is a matrix") };
        assert_eq!(inner, hidden, "{op}: {} against {:?}", self.params.name(self.decoder.weight), self.x);
        assert_eq!(self.params.size(self.decoder.bias), words, "{op}: size of the bias");
        [rows, hidden, words]
    }

    /// Numbers from a row of logits to the next: rows of whole 16 bytes, as products and kernels want them.
    pub(crate) fn stride(&self) -> usize {
        self.params.size(self.decoder.bias).next_multiple_of(8)
    }

    /// Ranges of all rows with at most `max_logits` logits each, or of one row.
    pub(crate) fn chunks(&self, max_logits: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, _) = self.x.matrix("chunks");
        let chunks = rows.div_ceil((max_logits / self.stride()).max(1));
        (0..chunks).map(move |i| rows * i / chunks..rows * (i + 1) / chunks)
    }

    /// The logits of a range of rows: f32 [rows, stride], of which the first V columns are written.
    pub(crate) fn logits(&self, range: &Range<usize>) -> Tensor {
        let [_, hidden, words] = self.sizes("logits");
        let mut z = self.cuda.empty(&[range.len(), self.stride()], DType::F32);
        let product = Product {
            rows: range.len(),
            columns: words,
            inner: hidden,
            a: self.rows(range),
            b: self.weight().t(),
            c: Operand::of_mut(&mut z),
            addend: None,
            bias: Some(self.cuda.weights(self.params, self.decoder.bias)),
        };
        // SAFETY: x has these rows, the weight is [V, H], the bias has V numbers, and the rows of z at least V.
        unsafe { self.cuda.product(&product) };
        z
    }

    /// Where the gradients of logits z are written, if they are needed: in f32, they take the place of the logits; otherwise, in a tensor of
    /// their own of x's type.
    pub(crate) fn gradients(&self, z: &mut Tensor, is_needed: bool) -> (DevicePtr, Option<Tensor>) {
        match self.x.dtype() {
            _ if !is_needed => (DevicePtr::NULL, None),
            DType::F32 => (z.device_ptr_mut(), None),
            dtype => {
                let mut dz = self.cuda.empty(z.shape(), dtype);
                (dz.device_ptr_mut(), Some(dz))
            }
        }
    }

    /// The backward pass of a range of rows: dz [rows, stride] → the rows of dx; adds to the gradients of the decoder.
    pub(crate) fn backward(&self, range: &Range<usize>, dz: &Tensor, grads: &mut Gradients, dx: &mut Tensor) {
        let [_, hidden, words] = self.sizes("vocabulary");
        self.cuda.add_column_sums(dz, grads, self.params.range(self.decoder.bias));
        let (dw, adds) = self.cuda.gradients(grads, self.params.range(self.decoder.weight));
        let of_weight = Product {
            rows: words,
            columns: hidden,
            inner: range.len(),
            a: Operand::of(dz).t(),
            b: self.rows(range),
            c: Operand { at: dw, dtype: DType::F32, stride: hidden, transposed: false },
            addend: adds.then_some(dw),
            bias: None,
        };
        let dtype = dx.dtype();
        let of_rows = Product {
            rows: range.len(),
            columns: hidden,
            inner: words,
            a: Operand::of(dz),
            b: self.weight(),
            c: Operand { at: dx.device_ptr_mut().element(range.start * hidden, dtype), ..Operand::of(self.x) },
            addend: None,
            bias: None,
        };
        // SAFETY: dz has V columns, x and dx have these rows, and the weight and its gradient are [V, H].
        unsafe {
            self.cuda.product(&of_weight);
            self.cuda.product(&of_rows);
        }
    }

    /// A range of x's rows.
    fn rows(&self, range: &Range<usize>) -> Operand {
        let all = Operand::of(self.x);
        Operand { at: all.at.element(range.start * all.stride, all.dtype), ..all }
    }

    /// W [V, H], in x's type.
    fn weight(&self) -> Operand {
        self.cuda.matrix(self.params, self.decoder.weight, self.x.dtype())
    }
}
