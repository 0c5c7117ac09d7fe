use super::{BiLstm, BiLstmBackward, Lstm, States};
use crate::cuda::{Cuda, DevicePtr, Grid, Operand, Product, args};
use crate::device::Memory;
use crate::ops::assert_segments;
use crate::{DType, Gradients, Parameters, Tensor};

/// Threads of a block, which computes a sequence in a direction: as many as the units of a step keep busy.
fn grid(sequences: usize, hidden: usize, floats: usize) -> Grid {
    let threads = (hidden * 32).clamp(32, 512) as u32;
    Grid::of([sequences, 2, 1], threads).with_shared(floats * DType::F32.size())
}

impl Lstm for Cuda {
    fn bilstm(&self, x: &Tensor, cu_seqlens: &Tensor, params: &Parameters, layer: BiLstm) -> (Tensor, States) {
        let (tokens, inner) = x.matrix("bilstm");
        let hidden = layer.hidden(params, inner);
        assert_segments("bilstm", cu_seqlens.slice(), tokens);
        // The inputs' part of the gates, of all tokens and both directions in one product.
        let mut gates = self.empty(&[tokens, 8 * hidden], DType::F32);
        let product = Product {
            rows: tokens,
            columns: 8 * hidden,
            inner,
            a: Operand::of(x),
            b: self.matrix(params, layer.weight_ih, x.dtype()).t(),
            c: Operand::of_mut(&mut gates),
            addend: None,
            bias: None,
        };
        // SAFETY: x is [T, I], W_ih is [8H, I], and the gates are [T, 8H].
        unsafe { self.product(&product) };
        let mut cells = self.empty(&[tokens, 2 * hidden], DType::F32);
        let mut y = self.empty(&[tokens, 2 * hidden], x.dtype());
        let [bias_ih, bias_hh] = [layer.bias_ih, layer.bias_hh].map(|bias| self.weights(params, bias));
        let mut args = args![
            gates.device_ptr_mut(),
            self.weights_as(params, layer.weight_hh, x.dtype()),
            bias_ih,
            bias_hh,
            cu_seqlens.device_ptr(),
            cells.device_ptr_mut(),
            y.device_ptr_mut(),
            hidden as i32
        ];
        // SAFETY: W_hh is [8H, H], both biases have 8H numbers, the cells and y are [T, 2H], and the lengths add up to T. The shared memory
        // holds three numbers for each unit.
        unsafe {
            self.launch_of("lstm_forward", x.dtype(), grid(cu_seqlens.count() - 1, hidden, 3 * hidden), &mut args)
        };
        (y, States { gates, cells })
    }

    fn bilstm_backward(&self, args: BiLstmBackward<'_>, grads: &mut Gradients) -> Option<Tensor> {
        let BiLstmBackward { x, cu_seqlens, y, states, dy, prior, needs_dx, params, layer } = args;
        let (tokens, inner) = x.matrix("bilstm_backward");
        let (hidden, dtype) = (layer.hidden(params, inner), x.dtype());
        let mut transposed = self.empty(&[2, hidden, 4 * hidden], dtype);
        let (weight_hh, weight_t) = (self.weights_as(params, layer.weight_hh, dtype), transposed.device_ptr_mut());
        let mut args = args![weight_hh, weight_t, 2usize, 4 * hidden, hidden];
        // SAFETY: W_hh has two matrices [4H, H].
        unsafe { self.launch_of("lstm_transpose", dtype, Grid::each(transposed.count()), &mut args) };
        let mut da = self.empty(&[tokens, 8 * hidden], dtype);
        let mut previous = self.empty(&[tokens, 2 * hidden], dtype);
        let mut args = args![
            states.gates.device_ptr(),
            states.cells.device_ptr(),
            y.device_ptr(),
            dy.device_ptr(),
            weight_t,
            cu_seqlens.device_ptr(),
            da.device_ptr_mut(),
            previous.device_ptr_mut(),
            hidden as i32
        ];
        // SAFETY: the gates and da are [T, 8H]; the cells, y, dy and the previous states are [T, 2H]; the lengths add up to T. The shared
        // memory holds nine numbers for each unit.
        unsafe { self.launch_of("lstm_backward", dtype, grid(cu_seqlens.count() - 1, hidden, 9 * hidden), &mut args) };

        for bias in [layer.bias_ih, layer.bias_hh] {
            self.add_column_sums(&da, grads, params.range(bias));
        }
        let all = Operand::of(&da);
        let (dw, adds) = self.gradients(grads, params.range(layer.weight_ih));
        // SAFETY: da is [T, 8H], x is [T, I], and the gradient is [8H, I].
        unsafe { add_weight_gradient(self, [8 * hidden, inner, tokens], all, Operand::of(x), dw, adds) };
        let (dw, adds) = self.gradients(grads, params.range(layer.weight_hh));
        let states = Operand::of(&previous);
        for direction in 0..2 {
            let part = |of: Operand, width: usize| Operand { at: of.at.element(direction * width, dtype), ..of };
            let (da, states) = (part(all, 4 * hidden), part(states, hidden));
            let dw = dw.element(direction * 4 * hidden * hidden, DType::F32);
            // SAFETY: these columns of da are [T, 4H], and those of the previous states [T, H]; the gradient of a direction is [4H, H].
            unsafe { add_weight_gradient(self, [4 * hidden, hidden, tokens], da, states, dw, adds) };
        }
        if !needs_dx {
            return None;
        }
        let mut dx = self.empty(&[tokens, inner], dtype);
        let product = Product {
            rows: tokens,
            columns: inner,
            inner: 8 * hidden,
            a: all,
            b: self.matrix(params, layer.weight_ih, dtype),
            c: Operand::of_mut(&mut dx),
            addend: prior.as_ref().map(Tensor::device_ptr),
            bias: None,
        };
        // SAFETY: da is [T, 8H], W_ih is [8H, I]; dx and the prior gradient are [T, I].
        unsafe { self.product(&product) };
        Some(dx)
    }
}

/// dW = daᵀ x, added to dW if `adds`. The sizes are those of dW, and T.
///
/// # Safety
/// The matrices have these sizes.
unsafe fn add_weight_gradient(
    cuda: &Cuda,
    [rows, columns, tokens]: [usize; 3],
    da: Operand,
    x: Operand,
    dw: DevicePtr,
    adds: bool,
) {
    let c = Operand { at: dw, dtype: DType::F32, stride: columns, transposed: false };
    let product = Product { rows, columns, inner: tokens, a: da.t(), b: x, c, addend: adds.then_some(dw), bias: None };
    // SAFETY: the caller's.
    unsafe { cuda.product(&product) };
}
