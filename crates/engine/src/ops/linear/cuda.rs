use super::{Activation, Layer, Linear, LinearBackward};
use crate::cuda::{Cuda, Grid, Operand, Product, args};
use crate::device::Memory;
use crate::{DType, Gradients, Parameters, Tensor};

impl Linear for Cuda {
    /// The second tensor is u, from which the backward pass computes f′(u) again.
    fn linear(&self, x: &Tensor, params: &Parameters, layer: Layer, keep_derivative: bool) -> (Tensor, Option<Tensor>) {
        let (tokens, inner) = x.matrix("linear");
        let [outer, weight_inner] = *params.shape(layer.weight) else { panic!("linear: a weight is a matrix") };
        assert_eq!(weight_inner, inner, "linear: {} against {x:?}", params.name(layer.weight));
        let mut u = self.empty(&[tokens, outer], x.dtype());
        let product = Product {
            rows: tokens,
            columns: outer,
            inner,
            a: Operand::of(x),
            b: self.matrix(params, layer.weight, x.dtype()).t(),
            c: Operand::of_mut(&mut u),
            addend: None,
            bias: layer.bias.map(|bias| self.weights_as(params, bias, x.dtype())),
        };
        // SAFETY: x is [T, in], the weight is [out, in], the bias has `out` numbers, and u is [T, out].
        unsafe { self.product(&product) };
        if layer.activation == Activation::None {
            return (u, None);
        }
        if keep_derivative {
            let mut y = self.empty(&[tokens, outer], x.dtype());
            let (u_at, y_at) = (u.device_ptr(), y.device_ptr_mut());
            // SAFETY: u and y are [T, out].
            unsafe {
                let mut args = args![u_at, y_at, u.count(), activation_code(layer.activation)];
                self.launch_of("activate_all", x.dtype(), Grid::each_vector(&u), &mut args);
            }
            return (y, Some(u));
        }
        self.activate(&mut u, layer.activation);
        (u, None)
    }

    fn linear_backward(&self, args: LinearBackward<'_>, grads: &mut Gradients) -> Option<Tensor> {
        let LinearBackward { x, derivative, dy, prior, needs_dx, params, layer } = args;
        let du = match derivative {
            Some(u) => self.activate_backward(u, dy, layer.activation),
            None => dy,
        };
        if let Some(bias) = layer.bias {
            self.add_column_sums(&du, grads, params.range(bias));
        }
        let (tokens, inner) = x.matrix("linear_backward");
        let (_, outer) = du.matrix("linear_backward");
        let (dw, adds) = self.gradients(grads, params.range(layer.weight));
        let product = Product {
            rows: outer,
            columns: inner,
            inner: tokens,
            a: Operand::of(&du).t(),
            b: Operand::of(x),
            c: Operand { at: dw, dtype: DType::F32, stride: inner, transposed: false },
            addend: adds.then_some(dw),
            bias: None,
        };
        // SAFETY: du is [T, out], x is [T, in], and the gradient of the weight is [out, in].
        unsafe { self.product(&product) };
        if !needs_dx {
            return None;
        }
        let mut dx = self.empty(&[tokens, inner], x.dtype());
        let product = Product {
            rows: tokens,
            columns: inner,
            inner: outer,
            a: Operand::of(&du),
            b: self.matrix(params, layer.weight, x.dtype()),
            c: Operand::of_mut(&mut dx),
            addend: prior.as_ref().map(Tensor::device_ptr),
            bias: None,
        };
        // SAFETY: du is [T, out], the weight is [out, in]; dx and the prior gradient are [T, in].
        unsafe { self.product(&product) };
        Some(dx)
    }
}

impl Cuda {
    /// f(u), in u's memory.
    pub(crate) fn activate(&self, u: &mut Tensor, activation: Activation) {
        let (grid, count, dtype, at) = (Grid::each_vector(u), u.count(), u.dtype(), u.device_ptr_mut());
        // SAFETY: each thread reads and writes its own elements of u.
        unsafe {
            self.launch_of("activate_all", dtype, grid, &mut args![at, at, count, activation_code(activation)]);
        }
    }

    /// dy f′(u), in dy's memory if it is not shared.
    pub(crate) fn activate_backward(&self, u: &Tensor, dy: Tensor, activation: Activation) -> Tensor {
        let mut du = dy.into_unique();
        let mut args = args![u.device_ptr(), du.device_ptr_mut(), u.count(), activation_code(activation)];
        // SAFETY: u and du have the same shape and type.
        unsafe { self.launch_of("activate_backward", u.dtype(), Grid::each_vector(u), &mut args) };
        du
    }
}

/// The number of an activation function in the kernels.
pub(crate) fn activation_code(activation: Activation) -> i32 {
    match activation {
        Activation::None => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
        Activation::Silu => 4,
        Activation::Tanh => 5,
    }
}
