use super::Dropout;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::{Real, with_real};
use crate::random::Mask;

const BLOCK: usize = 1 << 14;

impl Dropout for Cpu {
    fn dropout(&self, x: Tensor, mask: Mask) -> Tensor {
        let mut y = Tensor::host(x.shape(), x.dtype());
        with_real!(x.dtype(), E => {
            let (x, parts) = (x.slice::<E>(), DisjointSlice::new(y.slice_mut::<E>()));
            self.for_blocks(x.len(), BLOCK, |range| {
                // SAFETY: blocks are disjoint.
                let y = unsafe { parts.part(range.clone()) };
                self.level.run(Multiply { x: &x[range.clone()], y, first: range.start, mask });
            });
        });
        y
    }
}

struct Multiply<'a, E> {
    x: &'a [E],
    y: &'a mut [E],
    first: usize,
    mask: Mask,
}

impl<E: Real> Vectorized for Multiply<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        for (i, (y, x)) in self.y.iter_mut().zip(self.x).enumerate() {
            *y = E::from_f32(x.to_f32() * self.mask.factor(self.first + i));
        }
    }
}
