use super::Sum;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::{DType, Tensor, host};
use std::ops::Range;

impl Sum for Cuda {
    fn sum(&self, a: Tensor, b: &Tensor) -> Tensor {
        let mut a = a.into_unique();
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "sum of two tensors");
        let (grid, count, dtype, at) = (Grid::each_vector(&a), a.count(), a.dtype(), a.device_ptr_mut());
        // SAFETY: a and b have the same shape and type; each thread writes the elements of a that it has read.
        unsafe { self.launch_of("sum_pairs", dtype, grid, &mut args![at, b.device_ptr(), at, count]) };
        a
    }

    fn sum_ranges(&self, addends: &[&Tensor], ranges: &[Range<usize>], to: &mut [f32]) {
        let (last, others) = addends.split_last().expect("something to add");
        let within = |addend: &&Tensor| ranges.iter().all(|range| range.end <= addend.count());
        assert!(addends.iter().all(within), "ranges {ranges:?} of {last:?}");
        assert_eq!(ranges.iter().map(ExactSizeIterator::len).sum::<usize>(), to.len(), "room for the ranges");
        if others.is_empty() {
            let mut rest = to;
            for range in ranges {
                let part = rest.split_off_mut(..range.len()).expect("room for the range");
                last.device_buffer().download(range.start * DType::F32.size(), host::bytes_mut(part));
            }
            return;
        }
        let mut sums = self.empty(&[to.len()], DType::F32);
        let mut place = sums.device_ptr_mut();
        for range in ranges {
            let mut sum = last.device_ptr().element(range.start, DType::F32);
            let count = range.len();
            for other in others.iter().rev() {
                let other = other.device_ptr().element(range.start, DType::F32);
                let grid = Grid::each(count.div_ceil(4));
                // SAFETY: the addends have the range, and there is room for the sums of all ranges.
                unsafe { self.launch_of("sum_pairs", DType::F32, grid, &mut args![sum, other, place, count]) };
                sum = place;
            }
            place = place.element(count, DType::F32);
        }
        sums.device_buffer().download(0, host::bytes_mut(to));
    }
}
