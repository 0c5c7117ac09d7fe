//! Sums of the gradients of several micro-batches, in the order of pairwise summation.
//!
//! Each micro-batch has gradients of its own. They are added as a binary counter adds: two sums of equally many micro-batches become one
//! sum. So the order depends only on the number of micro-batches (it is that of `cloze_comm::Tree`), and at most log₂ of them are in memory.

use std::ops::Range;

use crate::{DType, Device, Gradients, Tensor};

/// Sums of the gradients of earlier micro-batches of a step.
#[derive(Default)]
pub struct GradientSums {
    /// Sums of the current range of micro-batches, in their order: how many, and their arena.
    pending: Vec<(usize, Tensor)>,
    /// The complete sums of earlier ranges.
    complete: Vec<Tensor>,
    free: Vec<Tensor>,
}

impl GradientSums {
    /// Begins a step.
    pub fn begin(&mut self) {
        self.free.append(&mut self.complete);
        self.free.extend(self.pending.drain(..).map(|(_, arena)| arena));
    }

    /// Takes the gradients of a micro-batch that others of its range follow.
    pub fn push(&mut self, device: &Device, grads: &mut Gradients) {
        let mut count = 1;
        while self.pending.last().is_some_and(|(other, _)| *other == count) {
            self.add_last(device, grads);
            count *= 2;
        }
        let arena = self.take(device, grads);
        self.pending.push((count, arena));
    }

    /// Ends a range of micro-batches: the gradients become their sum.
    pub fn finish(&mut self, device: &Device, grads: &mut Gradients) {
        while !self.pending.is_empty() {
            self.add_last(device, grads);
        }
    }

    /// Ends a range of micro-batches, and keeps their sum. Others follow.
    pub fn keep(&mut self, device: &Device, grads: &mut Gradients) {
        self.finish(device, grads);
        let arena = self.take(device, grads);
        self.complete.push(arena);
    }

    /// The number of complete sums.
    pub fn kept(&self) -> usize {
        self.complete.len()
    }

    /// Writes ranges of a sum, one after another: of the complete one with this number, or, if there is none, of the last range of
    /// micro-batches, whose last gradients are `grads`. These ranges of the gradients must be complete.
    pub fn read(&self, device: &Device, grads: &Gradients, sum: usize, ranges: &[Range<usize>], to: &mut [f32]) {
        let addends: Vec<&Tensor> = match self.complete.get(sum) {
            Some(complete) => vec![complete],
            None => self.pending.iter().map(|(_, arena)| arena).chain([grads.arena_while_written()]).collect(),
        };
        device.backend().sum_ranges(&addends, ranges, to);
    }

    /// Adds the last pending sum to the gradients.
    fn add_last(&mut self, device: &Device, grads: &mut Gradients) {
        let Some((_, earlier)) = self.pending.pop() else { return };
        grads.add_arena(device, &earlier);
        self.free.push(earlier);
    }

    /// Takes the arena of the gradients, which get another one. Its contents are arbitrary: a step begins each micro-batch with
    /// [`Gradients::zero`].
    fn take(&mut self, device: &Device, grads: &mut Gradients) -> Tensor {
        let free =
            self.free.pop().unwrap_or_else(|| device.backend().empty(grads.arena_while_written().shape(), DType::F32));
        grads.swap_arena(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::devices;
    use crate::{Init, Parameters};

    /// The order of additions is that of the tree, whatever ranges the micro-batches are divided into; and a sum can be read in parts.
    #[test]
    fn sums_have_the_order_of_pairwise_summation() {
        for device in devices() {
            let mut builder = Parameters::builder();
            builder.declare("w", &[100, 3], Init::Zeros, true);
            let params = builder.build(&device, 0);
            let value = |micro: usize, i: usize| ((micro * 7 + i) as f32).sin() * 10f32.powi(micro as i32 % 5);
            fn expected(range: Range<usize>, value: &impl Fn(usize) -> f32) -> f32 {
                if range.len() == 1 {
                    return value(range.start);
                }
                let middle = range.start + (1 << (range.len() - 1).ilog2());
                expected(range.start..middle, value) + expected(middle..range.end, value)
            }
            let mut sums = GradientSums::default();
            let mut grads = Gradients::zeros_like(&params);
            // Where ranges of micro-batches end.
            for ends in [&[1][..], &[2], &[5], &[7], &[4, 6, 7], &[1, 3]] {
                let starts = [0].into_iter().chain(ends.iter().copied());
                let ranges: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..*end).collect();
                sums.begin();
                let last = ranges.len() - 1;
                for (number, range) in ranges.iter().enumerate() {
                    for micro in range.clone() {
                        grads.zero();
                        grads.edit_all(|grads| grads.iter_mut().enumerate().for_each(|(i, g)| *g = value(micro, i)));
                        match micro + 1 < range.end {
                            true => sums.push(&device, &mut grads),
                            false if number < last => sums.keep(&device, &mut grads),
                            false => {}
                        }
                    }
                }
                assert_eq!(sums.kept(), last);
                for (number, range) in ranges.iter().enumerate() {
                    let parts = [5..30, 90..300];
                    let mut read = vec![0.0; 235];
                    sums.read(&device, &grads, number, &parts, &mut read);
                    let sum = |i: usize| expected(range.clone(), &|micro| value(micro, i));
                    assert!(read.iter().zip(parts.into_iter().flatten()).all(|(x, i)| *x == sum(i)), "{range:?}");
                    if number == last {
                        sums.finish(&device, &mut grads);
                        assert!(grads.read_all().iter().enumerate().all(|(i, x)| *x == sum(i)), "{range:?}");
                    }
                }
            }
        }
    }
}
