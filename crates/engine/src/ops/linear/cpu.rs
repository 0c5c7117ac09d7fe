use super::{Activation, Layer, Linear, LinearBack};
use crate::cpu::gemm::{Mat, Slice, TileSink, product};
use crate::cpu::lanes::{self, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::rows::Parts;
use crate::cpu::{Cpu, mat, math, precision_of};
use crate::dtype::Real;
use crate::tensor::with_real;
use crate::{DType, Gradients, Parameters, Tensor};

/// Elements a task of an element-wise pass takes.
const BLOCK: usize = 1 << 14;
/// Rows a task of the bias gradient takes. Part of the result's definition: sums of blocks are added in order.
const ROWS: usize = 64;

impl Linear for Cpu {
    fn linear(&self, x: &Tensor, params: &Parameters, layer: Layer, keep_input: bool) -> (Tensor, Option<Tensor>) {
        let (tokens, inner) = x.matrix("linear");
        let [outer, weight_inner] = *params.shape(layer.weight) else { panic!("linear: a weight is a matrix") };
        assert_eq!(weight_inner, inner, "linear: {} against {x:?}", params.name(layer.weight));
        let weight = Mat::new(Slice::F32(params.values(layer.weight)), outer, inner, inner);
        let mut y = Tensor::host(&[tokens, outer], x.dtype());
        let mut kept =
            (keep_input && layer.activation.keeps_input()).then(|| Tensor::host(&[tokens, outer], x.dtype()));
        with_real!(x.dtype(), E => {
            let sink = Forward {
                y: Parts::new(y.slice_mut::<E>()),
                input: kept.as_mut().map(|u| Parts::new(u.slice_mut::<E>())),
                bias: layer.bias.map(|b| params.values(b)),
                outer,
                activation: layer.activation,
            };
            product(self.level, &self.pool, precision_of(x.dtype()), mat(x), weight.t(), &sink);
        });
        (y, kept)
    }

    fn linear_back(&self, args: LinearBack<'_>, grads: &mut Gradients) -> Option<Tensor> {
        let LinearBack { x, kept, dy, prior, wants_dx, params, layer } = args;
        let du = match kept {
            Some(kept) => self.activation_back(layer.activation, kept, dy),
            None => dy,
        };
        let (tokens, inner) = x.matrix("linear_back");
        let (_, outer) = du.matrix("linear_back");
        let precision = precision_of(x.dtype());
        let range = params.range(layer.weight);
        let adds = grads.adds(range.clone());
        let dw = Accumulate { sum: Parts::new(grads.part(range)), columns: inner, adds };
        product(self.level, &self.pool, precision, mat(&du).t(), mat(x), &dw);
        if let Some(bias) = layer.bias {
            self.add_column_sums(&du, grads.sums(params.range(bias)));
        }
        if !wants_dx {
            return None;
        }
        let weight = Mat::new(Slice::F32(params.values(layer.weight)), outer, inner, inner);
        let mut dx = Tensor::host(&[tokens, inner], x.dtype());
        with_real!(x.dtype(), E => {
            let prior = prior.as_ref().map(Tensor::slice::<E>);
            let sink = StoreSum { y: Parts::new(dx.slice_mut::<E>()), prior, columns: inner };
            product(self.level, &self.pool, precision, mat(&du), weight, &sink);
        });
        Some(dx)
    }
}

impl Cpu {
    /// dy f′, in dy's memory where nobody else holds it.
    fn activation_back(&self, activation: Activation, kept: &Tensor, dy: Tensor) -> Tensor {
        let mut du = dy.into_unique();
        with_real!(kept.dtype(), E => {
            let kept = kept.slice::<E>();
            let parts = Parts::new(du.slice_mut::<E>());
            self.for_blocks(kept.len(), BLOCK, |range| {
                // SAFETY: blocks are disjoint.
                let d = unsafe { parts.part(range.clone()) };
                self.level.run(ActivationBack { activation, kept: &kept[range], d });
            });
        });
        du
    }

    /// Adds Σ over rows of `d` [T, C] to `sums` [C].
    pub(crate) fn add_column_sums(&self, d: &Tensor, sums: &mut [f32]) {
        let (rows, columns) = d.matrix("add_column_sums");
        assert_eq!(columns, sums.len(), "add_column_sums");
        let mut partial = Tensor::host(&[rows.div_ceil(ROWS), columns], DType::F32);
        with_real!(d.dtype(), E => {
            let (d, partial) = (d.slice::<E>(), Parts::new(partial.slice_mut::<f32>()));
            self.for_blocks(rows, ROWS, |range| {
                let block = range.start / ROWS;
                // SAFETY: each block of rows has its own sums.
                let sums = unsafe { partial.part(block * columns..(block + 1) * columns) };
                sums.fill(0.0);
                self.level.run(ColumnSums { d: &d[range.start * columns..range.end * columns], sums });
            });
        });
        self.level.run(ColumnSums { d: partial.slice::<f32>(), sums });
    }
}

struct Forward<'a, E> {
    y: Parts<'a, E>,
    input: Option<Parts<'a, E>>,
    bias: Option<&'a [f32]>,
    outer: usize,
    activation: Activation,
}

impl<E: Real> TileSink for Forward<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        // Chosen once a tile, not once a vector.
        macro_rules! store_rows {
            ($f:expr) => {
                for r in 0..rows {
                    self.row::<I>((row + r) * self.outer + col, col, &acc[r * stride..r * stride + cols], $f);
                }
            };
        }
        match self.activation {
            Activation::None => store_rows!(std::convert::identity),
            Activation::Gelu => store_rows!(math::gelu::<I>),
            Activation::GeluTanh => store_rows!(math::gelu_tanh::<I>),
            Activation::Relu => store_rows!(math::relu),
            Activation::Silu => store_rows!(math::silu::<I>),
            Activation::Tanh => store_rows!(math::tanh::<I>),
        }
    }
}

impl<E: Real> Forward<'_, E> {
    /// One row of a tile, from column `col` on, which is the element `at` of y.
    #[inline(always)]
    fn row<I: Isa>(&self, at: usize, col: usize, acc: &[f32], f: impl Fn(f32) -> f32) {
        let elements = at..at + acc.len();
        // SAFETY: tiles are disjoint.
        let (y, mut input) =
            unsafe { (self.y.part(elements.clone()), self.input.as_ref().map(|u| u.part(elements.clone()))) };
        let bias = self.bias.map(|bias| &bias[col..col + acc.len()]);
        each_part!(acc.len(), part => {
            let mut u = load(&acc[part.clone()]);
            if let Some(bias) = bias {
                u = lanes::zip(u, load(&bias[part.clone()]), |u, b| u + b);
            }
            if let Some(input) = &mut input {
                store::<I, _>(u, &mut input[part.clone()]);
            }
            store::<I, _>(lanes::map(u, &f), &mut y[part]);
        });
    }
}

/// Stores a product in an f32 matrix, or adds it: a weight's gradient.
pub(crate) struct Accumulate<'a> {
    pub(crate) sum: Parts<'a, f32>,
    pub(crate) columns: usize,
    pub(crate) adds: bool,
}

impl TileSink for Accumulate<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            // SAFETY: tiles are disjoint.
            let sum = unsafe { self.sum.part(at..at + cols) };
            let acc = &acc[r * stride..r * stride + cols];
            if self.adds {
                each_part!(cols, part => lanes::add_to(&mut sum[part.clone()], load(&acc[part])));
            } else {
                sum.copy_from_slice(acc);
            }
        }
    }
}

/// Stores a product plus what was there before: an input's gradient.
struct StoreSum<'a, E> {
    y: Parts<'a, E>,
    prior: Option<&'a [E]>,
    columns: usize,
}

impl<E: Real> TileSink for StoreSum<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            let acc = &acc[r * stride..r * stride + cols];
            // SAFETY: tiles are disjoint.
            let y = unsafe { self.y.part(at..at + cols) };
            let prior = self.prior.map(|prior| &prior[at..at + cols]);
            each_part!(cols, part => {
                let mut sum = load(&acc[part.clone()]);
                if let Some(prior) = prior {
                    sum = lanes::zip(sum, load(&prior[part.clone()]), |a, p| a + p);
                }
                store::<I, _>(sum, &mut y[part]);
            });
        }
    }
}

struct ActivationBack<'a, E> {
    activation: Activation,
    kept: &'a [E],
    d: &'a mut [E],
}

impl<E: Real> ActivationBack<'_, E> {
    #[inline(always)]
    fn multiply<I: Isa>(self, slope: impl Fn(f32) -> f32) {
        let ActivationBack { d, kept, .. } = self;
        each_part!(kept.len(), part => {
            let du = lanes::zip(load(&d[part.clone()]), load(&kept[part.clone()]), |d, kept| d * slope(kept));
            store::<I, _>(du, &mut d[part]);
        });
    }
}

impl<E: Real> Vectorized for ActivationBack<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        match self.activation {
            Activation::None => (),
            Activation::Gelu => self.multiply::<I>(math::gelu_back::<I>),
            Activation::GeluTanh => self.multiply::<I>(math::gelu_tanh_back::<I>),
            Activation::Relu => self.multiply::<I>(math::relu_back),
            Activation::Silu => self.multiply::<I>(math::silu_back::<I>),
            Activation::Tanh => self.multiply::<I>(math::tanh_back),
        }
    }
}

/// Adds rows to `sums`, one after the other.
struct ColumnSums<'a, E> {
    d: &'a [E],
    sums: &'a mut [f32],
}

impl<E: Real> Vectorized for ColumnSums<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let ColumnSums { d, sums } = self;
        for row in d.chunks_exact(sums.len().max(1)) {
            each_part!(row.len(), part => lanes::add_to(&mut sums[part.clone()], load(&row[part])));
        }
    }
}
