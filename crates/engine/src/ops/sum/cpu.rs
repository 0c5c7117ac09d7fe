use super::Sum;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::{Real, with_real};

const BLOCK: usize = 1 << 14;

impl Sum for Cpu {
    fn sum(&self, a: Tensor, b: &Tensor) -> Tensor {
        let mut a = a.into_unique();
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "sum of two tensors");
        with_real!(a.dtype(), E => {
            let count = a.count();
            let (sum, b) = (DisjointSlice::new(a.slice_mut::<E>()), b.slice::<E>());
            self.for_blocks(count, BLOCK, |range| {
                // SAFETY: blocks are disjoint.
                let sum = unsafe { sum.part(range.clone()) };
                self.level.run(Add { sum, b: &b[range] });
            });
        });
        a
    }
}

struct Add<'a, E> {
    sum: &'a mut [E],
    b: &'a [E],
}

impl<E: Real> Vectorized for Add<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        for (a, b) in self.sum.iter_mut().zip(self.b) {
            *a = E::from_f32(a.to_f32() + b.to_f32());
        }
    }
}
