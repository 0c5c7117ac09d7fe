use super::{Activation, Layer, Linear, LinearBackward};
use crate::cpu::arena::{gradient_sums, gradients, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Epilogue, Mat, Precision, Slice, product};
use crate::cpu::lanes::{self, VectorElement, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::packed::{Packed, packed};
use crate::cpu::sums::{Accumulate, BlockSums, ColumnSums, StoreSum};
use crate::cpu::{Cpu, mat, math, precision_of};
use crate::dtype::with_real;
use crate::{Gradients, Parameters, Tensor};

/// Rows of a tile that are processed together, and the maximum number of columns of a tile.
const ROWS_PER_STEP: usize = 4;
const MAX_COLUMNS: usize = 64;

impl Linear for Cpu {
    fn linear(&self, x: &Tensor, params: &Parameters, layer: Layer, keep_derivative: bool) -> (Tensor, Option<Tensor>) {
        let (tokens, inner) = x.matrix("linear");
        let [outer, weight_inner] = *params.shape(layer.weight) else { panic!("linear: a weight is a matrix") };
        assert_eq!(weight_inner, inner, "linear: {} against {x:?}", params.name(layer.weight));
        let weight = Mat::new(Slice::F32(weights(params, layer.weight)), outer, inner, inner);
        let mut y = Tensor::host(&[tokens, outer], x.dtype());
        let precision = precision_of(x.dtype());
        let packed_weight = match keep_derivative {
            false => packed(params, layer.weight, self.level, &self.pool, weight.t(), precision == Precision::BF16),
            true => None,
        };
        let keep_derivative = keep_derivative && layer.activation != Activation::None;
        let mut derivative = keep_derivative.then(|| Tensor::host(&[tokens, outer], x.dtype()));
        with_real!(x.dtype(), E => {
            let epilogue = Forward {
                y: DisjointSlice::new(y.slice_mut::<E>()),
                derivative: derivative.as_mut().map(|derivative| DisjointSlice::new(derivative.slice_mut::<E>())),
                bias: layer.bias.map(|bias| weights(params, bias)),
                outer,
                activation: layer.activation,
            };
            match packed_weight {
                Some(Packed::BF16(packed)) => packed.product(&self.pool, mat(x), &epilogue),
                Some(Packed::Int8(weights)) => {
                    weights.product(self.level, &self.pool, x.slice::<E>(), inner, &epilogue)
                }
                None => product(self.level, &self.pool, precision, mat(x), weight.t(), &epilogue),
            }
        });
        (y, derivative)
    }

    fn linear_backward(&self, args: LinearBackward<'_>, grads: &mut Gradients) -> Option<Tensor> {
        let LinearBackward { x, derivative, dy, prior, needs_dx, params, layer } = args;
        let bias_gradient = layer.bias.map(|bias| gradient_sums(grads, params.range(bias)));
        let du = self.activation_backward(derivative, dy, bias_gradient);
        let (tokens, inner) = x.matrix("linear_backward");
        let (_, outer) = du.matrix("linear_backward");
        let precision = precision_of(x.dtype());
        let range = params.range(layer.weight);
        let write = grads.begin_write(range.clone());
        let dw =
            Accumulate { sum: DisjointSlice::new(gradients(grads, range)), columns: inner, write, non_temporal: true };
        product(self.level, &self.pool, precision, mat(&du).t(), mat(x), &dw);
        if !needs_dx {
            return None;
        }
        let weight = Mat::new(Slice::F32(weights(params, layer.weight)), outer, inner, inner);
        let mut dx = Tensor::host(&[tokens, inner], x.dtype());
        with_real!(x.dtype(), E => {
            let prior = prior.as_ref().map(Tensor::slice::<E>);
            let epilogue = StoreSum { y: DisjointSlice::new(dx.slice_mut::<E>()), prior, columns: inner };
            product(self.level, &self.pool, precision, mat(&du), weight, &epilogue);
        });
        Some(dx)
    }
}

impl Cpu {
    /// du = dy f′, in dy's memory if it is not shared; also adds the sum over its rows to `sums`.
    fn activation_backward(&self, derivative: Option<&Tensor>, dy: Tensor, sums: Option<&mut [f32]>) -> Tensor {
        let Some(derivative) = derivative else {
            sums.into_iter().for_each(|sums| self.add_column_sums(&dy, sums));
            return dy;
        };
        let (rows, columns) = derivative.matrix("linear_backward");
        let mut du = dy.into_unique();
        let mut block_sums = BlockSums::new(rows, columns);
        with_real!(derivative.dtype(), E => {
            let (derivative, du) = (derivative.slice::<E>(), DisjointSlice::new(du.slice_mut::<E>()));
            block_sums.fill(self, rows, |range, sums| {
                let elements = range.start * columns..range.end * columns;
                // SAFETY: blocks are disjoint.
                let d = unsafe { du.part(elements.clone()) };
                self.level.run(Multiply { d, by: &derivative[elements] });
                self.level.run(ColumnSums { d, sums });
            });
        });
        if let Some(sums) = sums {
            block_sums.add_to(self, sums);
        }
        du
    }
}

struct Forward<'a, E> {
    y: DisjointSlice<'a, E>,
    derivative: Option<DisjointSlice<'a, E>>,
    bias: Option<&'a [f32]>,
    outer: usize,
    activation: Activation,
}

impl<E: VectorElement> Epilogue for Forward<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        // A few rows at a time: a burst of stores would have to wait for memory.
        for (step, acc) in acc[..rows * stride].chunks_mut(ROWS_PER_STEP * stride).enumerate() {
            let row = row + step * ROWS_PER_STEP;
            if let Some(bias) = self.bias {
                let bias = &bias[col..col + cols];
                for acc in acc.chunks_exact_mut(stride) {
                    each_part!(cols, part => lanes::add_to(&mut acc[part.clone()], load(&bias[part])));
                }
            }
            if self.activation != Activation::None {
                let mut derivatives = [0.0; ROWS_PER_STEP * MAX_COLUMNS];
                let derivatives = &mut derivatives[..if self.derivative.is_some() { acc.len() } else { 0 }];
                // SAFETY: an epilogue runs at a level that the machine has.
                unsafe { I::vectorize(Activate { activation: self.activation, u: acc, derivatives }) };
                if let Some(derivative) = &self.derivative {
                    self.store::<I>(derivative, row, col, cols, derivatives, stride);
                }
            }
            self.store::<I>(&self.y, row, col, cols, acc, stride);
        }
    }
}

impl<E: VectorElement> Forward<'_, E> {
    #[inline(always)]
    fn store<I: Isa>(
        &self,
        to: &DisjointSlice<'_, E>,
        row: usize,
        col: usize,
        cols: usize,
        tile: &[f32],
        stride: usize,
    ) {
        for (r, values) in tile.chunks_exact(stride).enumerate() {
            let at = (row + r) * self.outer + col;
            // SAFETY: tiles are disjoint.
            lanes::stream::<I, _>(&values[..cols], unsafe { to.part(at..at + cols) });
        }
    }
}

/// Replaces u by f(u), and writes f′(u) if `derivatives` is not empty. A separate function: the epilogue as one
/// function would be too large for the compiler to vectorise.
pub(crate) struct Activate<'a> {
    pub(crate) activation: Activation,
    pub(crate) u: &'a mut [f32],
    pub(crate) derivatives: &'a mut [f32],
}

impl Vectorized for Activate<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Activate { activation, u, derivatives } = self;
        macro_rules! each {
            ($f:expr, $derivative:expr) => {
                if derivatives.is_empty() {
                    each_part!(u.len(), part => store::<I, _>(lanes::map(load(&u[part.clone()]), $f), &mut u[part]));
                } else {
                    each_part!(u.len(), part => {
                        let x = load(&u[part.clone()]);
                        store::<I, _>(lanes::map(x, $derivative), &mut derivatives[part.clone()]);
                        store::<I, _>(lanes::map(x, $f), &mut u[part]);
                    });
                }
            };
        }
        match activation {
            Activation::None => derivatives.fill(1.0),
            Activation::Gelu => each!(math::gelu::<I>, math::gelu_backward::<I>),
            Activation::GeluTanh => each!(math::gelu_tanh::<I>, math::gelu_tanh_backward::<I>),
            Activation::Relu => each!(math::relu, math::relu_backward),
            Activation::Silu => each!(math::silu::<I>, math::silu_backward::<I>),
            Activation::Tanh => each!(math::tanh::<I>, math::tanh_backward::<I>),
        }
    }
}

/// d ← d · by.
struct Multiply<'a, E> {
    d: &'a mut [E],
    by: &'a [E],
}

impl<E: VectorElement> Vectorized for Multiply<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Multiply { d, by } = self;
        each_part!(d.len(), part => {
            let product = lanes::zip(load(&d[part.clone()]), load(&by[part.clone()]), |d, by| d * by);
            store::<I, _>(product, &mut d[part]);
        });
    }
}
