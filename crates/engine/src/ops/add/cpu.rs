use super::Add;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, VectorElement, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::with_real;
use crate::random::Mask;

/// Numbers per task.
const BLOCK: usize = 1 << 14;

impl Add for Cpu {
    fn add(&self, x: &Tensor, residual: &Tensor, mask: Mask) -> Tensor {
        assert_eq!((x.shape(), x.dtype()), (residual.shape(), residual.dtype()), "add: residual");
        let mut y = Tensor::host(x.shape(), x.dtype());
        with_real!(x.dtype(), E => {
            let (x, residual, parts) = (x.slice::<E>(), residual.slice::<E>(), DisjointSlice::new(y.slice_mut::<E>()));
            self.for_blocks(x.len(), BLOCK, |range| {
                // SAFETY: blocks are disjoint.
                let y = unsafe { parts.part(range.clone()) };
                let (x, residual, first) = (&x[range.clone()], &residual[range.clone()], range.start);
                self.level.run(Sum { x, residual, y, first, mask });
            });
        });
        y
    }
}

struct Sum<'a, E> {
    x: &'a [E],
    residual: &'a [E],
    y: &'a mut [E],
    first: usize,
    mask: Mask,
}

impl<E: VectorElement> Vectorized for Sum<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Sum { x, residual, y, first, mask } = self;
        each_part!(y.len(), part => {
            let mut sum = load(&x[part.clone()]);
            if mask.is_active() {
                sum = lanes::zip(sum, lanes::dropout_factors(mask, first + part.start), |x, factor| x * factor);
            }
            sum = lanes::zip(sum, load(&residual[part.clone()]), |x, r| x + r);
            store::<I, _>(sum, &mut y[part]);
        });
    }
}
