use super::Glu;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, VectorElement, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::with_real;
use crate::ops::linear::{Activate, Activation};

/// Rows per task.
const BLOCK: usize = 32;

impl Glu for Cpu {
    fn glu(&self, x: &Tensor, activation: Activation) -> Tensor {
        let (tokens, columns) = x.matrix("glu");
        assert!(columns.is_multiple_of(2), "glu: {x:?}");
        let mut y = Tensor::host(&[tokens, columns / 2], x.dtype());
        with_real!(x.dtype(), E => {
            let (x, parts) = (x.slice::<E>(), DisjointSlice::new(y.slice_mut::<E>()));
            self.for_blocks(tokens, BLOCK, |range| {
                // SAFETY: blocks are disjoint.
                let y = unsafe { parts.part(range.start * columns / 2..range.end * columns / 2) };
                let x = &x[range.start * columns..range.end * columns];
                self.level.run(Forward { x, y, width: columns / 2, activation });
            });
        });
        y
    }

    fn glu_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Tensor {
        let (tokens, columns) = x.matrix("glu_backward");
        let mut dx = Tensor::host(&[tokens, columns], x.dtype());
        with_real!(x.dtype(), E => {
            let (x, dy, parts) = (x.slice::<E>(), dy.slice::<E>(), DisjointSlice::new(dx.slice_mut::<E>()));
            self.for_blocks(tokens, BLOCK, |range| {
                let elements = range.start * columns..range.end * columns;
                // SAFETY: blocks are disjoint.
                let dx = unsafe { parts.part(elements.clone()) };
                let dy = &dy[range.start * columns / 2..range.end * columns / 2];
                self.level.run(Backward { x: &x[elements], dy, dx, width: columns / 2, activation });
            });
        });
        dx
    }
}

struct Forward<'a, E> {
    x: &'a [E],
    y: &'a mut [E],
    width: usize,
    activation: Activation,
}

impl<E: VectorElement> Vectorized for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Forward { x, y, width, activation } = self;
        let mut f = vec![0.0; width];
        for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
            let (u, g) = x.split_at(width);
            each_part!(width, part => store::<I, _>(load(&u[part.clone()]), &mut f[part]));
            Activate { activation, u: &mut f, derivatives: &mut [] }.call::<I>();
            each_part!(width, part => {
                let gated = lanes::zip(load(&f[part.clone()]), load(&g[part.clone()]), |f, g| f * g);
                store::<I, _>(gated, &mut y[part]);
            });
        }
    }
}

struct Backward<'a, E> {
    x: &'a [E],
    dy: &'a [E],
    dx: &'a mut [E],
    width: usize,
    activation: Activation,
}

impl<E: VectorElement> Vectorized for Backward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Backward { x, dy, dx, width, activation } = self;
        let (mut f, mut derivatives) = (vec![0.0; width], vec![0.0; width]);
        let rows = x.chunks_exact(2 * width).zip(dx.chunks_exact_mut(2 * width));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact(width)) {
            let ((u, g), (du, dg)) = (x.split_at(width), dx.split_at_mut(width));
            each_part!(width, part => store::<I, _>(load(&u[part.clone()]), &mut f[part]));
            Activate { activation, u: &mut f, derivatives: &mut derivatives }.call::<I>();
            each_part!(width, part => {
                let dy = load(&dy[part.clone()]);
                store::<I, _>(lanes::zip(dy, load(&f[part.clone()]), |dy, f| dy * f), &mut dg[part.clone()]);
                let slope = lanes::zip(load(&g[part.clone()]), load(&derivatives[part.clone()]), |g, d| g * d);
                store::<I, _>(lanes::zip(dy, slope, |dy, slope| dy * slope), &mut du[part]);
            });
        }
    }
}
