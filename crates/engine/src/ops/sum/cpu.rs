use super::Sum;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::{Real, with_real};
use std::ops::Range;

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

    fn sum_ranges(&self, addends: &[&Tensor], ranges: &[Range<usize>], to: &mut [f32]) {
        let (last, others) = addends.split_last().expect("something to add");
        let (last, others): (&[f32], Vec<&[f32]>) =
            (last.slice(), others.iter().map(|addend| addend.slice()).collect());
        let mut end = 0;
        let places = ranges.iter().map(|range| {
            end += range.len();
            end - range.len()
        });
        let places: Vec<usize> = places.collect();
        assert_eq!(end, to.len(), "room for the ranges");
        let to = DisjointSlice::new(to);
        self.pool.run(ranges.len(), &|i| {
            // SAFETY: the places of ranges are disjoint.
            let sum = unsafe { to.part(places[i]..places[i] + ranges[i].len()) };
            sum.copy_from_slice(&last[ranges[i].clone()]);
            for other in others.iter().rev() {
                self.level.run(Add { sum: &mut *sum, b: &other[ranges[i].clone()] });
            }
        });
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
