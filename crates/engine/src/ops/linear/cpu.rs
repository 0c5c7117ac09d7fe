use super::{Activation, Layer, Linear, LinearBack};
use crate::cpu::gemm::{Mat, Slice, TileSink, product};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::rows::Parts;
use crate::cpu::{Cpu, mat, math, precision_of};
use crate::dtype::Real;
use crate::tensor::with_real;
use crate::{Gradients, Parameters, Tensor};

/// Elements a task of an element-wise pass takes.
const BLOCK: usize = 1 << 14;
/// Columns a task of the bias gradient takes; it walks all rows in order, so the sum never changes its order.
const COLUMNS: usize = 64;

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
        let dw = AddTo { sum: Parts::new(&mut grads.flat_mut()[params.range(layer.weight)]), columns: inner };
        product(self.level, &self.pool, precision, mat(&du).t(), mat(x), &dw);
        if let Some(bias) = layer.bias {
            self.add_column_sums(&du, &mut grads.flat_mut()[params.range(bias)]);
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
        let (_, columns) = d.matrix("add_column_sums");
        assert_eq!(columns, sums.len(), "add_column_sums");
        let sums = Parts::new(sums);
        with_real!(d.dtype(), E => {
            let d = d.slice::<E>();
            self.for_blocks(columns, COLUMNS, |range| {
                // SAFETY: column blocks are disjoint.
                let sums = unsafe { sums.part(range.clone()) };
                self.level.run(ColumnSums { d, columns, first: range.start, sums });
            });
        });
    }
}

struct Forward<'a, E> {
    y: Parts<'a, E>,
    input: Option<Parts<'a, E>>,
    bias: Option<&'a [f32]>,
    outer: usize,
    activation: Activation,
}

impl<E: Real> Forward<'_, E> {
    #[inline(always)]
    fn store(&self, row: usize, col: usize, acc: &[f32], f: impl Fn(f32) -> f32) {
        let at = row * self.outer + col;
        // SAFETY: tiles are disjoint.
        let y = unsafe { self.y.part(at..at + acc.len()) };
        for (y, u) in y.iter_mut().zip(acc) {
            *y = E::from_f32(f(*u));
        }
    }
}

impl<E: Real> TileSink for Forward<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let acc = &mut acc[r * stride..r * stride + cols];
            if let Some(bias) = self.bias {
                for (u, b) in acc.iter_mut().zip(&bias[col..col + cols]) {
                    *u += b;
                }
            }
            if let Some(input) = &self.input {
                let at = (row + r) * self.outer + col;
                // SAFETY: tiles are disjoint.
                let input = unsafe { input.part(at..at + cols) };
                for (kept, u) in input.iter_mut().zip(acc.iter()) {
                    *kept = E::from_f32(*u);
                }
            }
            match self.activation {
                Activation::None => self.store(row + r, col, acc, |u| u),
                Activation::Gelu => self.store(row + r, col, acc, math::gelu::<I>),
                Activation::GeluTanh => self.store(row + r, col, acc, math::gelu_tanh::<I>),
                Activation::Relu => self.store(row + r, col, acc, |u| if u > 0.0 { u } else { 0.0 }),
                Activation::Silu => self.store(row + r, col, acc, |u| u * math::sigmoid::<I>(u)),
                Activation::Tanh => self.store(row + r, col, acc, math::tanh::<I>),
            }
        }
    }
}

/// Adds a product to an f32 matrix: a weight's gradient.
pub(crate) struct AddTo<'a> {
    pub(crate) sum: Parts<'a, f32>,
    pub(crate) columns: usize,
}

impl TileSink for AddTo<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            // SAFETY: tiles are disjoint.
            let sum = unsafe { self.sum.part(at..at + cols) };
            for (sum, a) in sum.iter_mut().zip(&acc[r * stride..r * stride + cols]) {
                *sum += a;
            }
        }
    }
}

/// Stores a product plus what was there before: an input's gradient.
pub(crate) struct StoreSum<'a, E> {
    pub(crate) y: Parts<'a, E>,
    pub(crate) prior: Option<&'a [E]>,
    pub(crate) columns: usize,
}

impl<E: Real> TileSink for StoreSum<'_, E> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for r in 0..rows {
            let at = (row + r) * self.columns + col;
            let acc = &acc[r * stride..r * stride + cols];
            // SAFETY: tiles are disjoint.
            let y = unsafe { self.y.part(at..at + cols) };
            match self.prior {
                Some(prior) => {
                    for ((y, a), p) in y.iter_mut().zip(acc).zip(&prior[at..at + cols]) {
                        *y = E::from_f32(a + p.to_f32());
                    }
                }
                None => {
                    for (y, a) in y.iter_mut().zip(acc) {
                        *y = E::from_f32(*a);
                    }
                }
            }
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
    fn multiply(self, slope: impl Fn(f32) -> f32) {
        for (d, kept) in self.d.iter_mut().zip(self.kept) {
            *d = E::from_f32(d.to_f32() * slope(kept.to_f32()));
        }
    }
}

impl<E: Real> Vectorized for ActivationBack<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        match self.activation {
            Activation::None => (),
            Activation::Gelu => self.multiply(math::gelu_back::<I>),
            Activation::GeluTanh => self.multiply(math::gelu_tanh_back::<I>),
            Activation::Relu => self.multiply(|y| if y > 0.0 { 1.0 } else { 0.0 }),
            Activation::Silu => self.multiply(|u| {
                let s = math::sigmoid::<I>(u);
                s * (1.0 + u * (1.0 - s))
            }),
            Activation::Tanh => self.multiply(|y| 1.0 - y * y),
        }
    }
}

struct ColumnSums<'a, E> {
    d: &'a [E],
    columns: usize,
    first: usize,
    sums: &'a mut [f32],
}

impl<E: Real> Vectorized for ColumnSums<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let width = self.sums.len();
        let mut partial = [0f32; COLUMNS];
        for row in self.d.chunks_exact(self.columns) {
            for (p, d) in partial.iter_mut().zip(&row[self.first..self.first + width]) {
                *p += d.to_f32();
            }
        }
        for (sum, p) in self.sums.iter_mut().zip(&partial) {
            *sum += p;
        }
    }
}
