//! Gradients in one flat `f32` arena, laid out as the parameters, in the memory of their device.

use crate::{ParamId, Parameters, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// How a backward rule writes a gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Write {
    /// It replaces what is there.
    Store,
    /// It is added to what is there.
    Add,
}

/// The gradient of every weight, laid out as its [`Parameters`].
pub struct Gradients {
    ranges: Vec<Range<usize>>,
    arena: Tensor,
    /// Parameters whose gradient counts as zero, whatever their memory holds: the step's first contribution is stored, not added,
    /// which saves a pass over the arena.
    cleared: Vec<bool>,
}

impl Gradients {
    /// Zeros in the layout of `params`, on their device.
    pub fn zeros_like(params: &Parameters) -> Gradients {
        let arena = params.device().zeros(params.count());
        let ranges: Vec<_> = params.ids().map(|id| params.range(id)).collect();
        Gradients { cleared: vec![false; ranges.len()], ranges, arena }
    }

    /// Sets every gradient to zero, before a step's first micro-batch. They can be read after a backward pass, not before.
    pub fn zero(&mut self) {
        self.cleared.fill(true);
    }

    /// One parameter's gradient, row-major: borrowed where the device computes in the host's memory, else copied.
    pub fn read(&self, id: ParamId) -> Cow<'_, [f32]> {
        self.read_range(self.ranges[id.0].clone())
    }

    /// The gradients of all parameters, in the order of [`Parameters::ids`]; as [`Gradients::read`].
    pub fn read_all(&self) -> Cow<'_, [f32]> {
        self.arena().read(0..self.arena.count())
    }

    /// Part of [`Gradients::read_all`]: whole parameters whose gradients are complete.
    pub fn read_range(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        assert!(!self.cleared[self.parts(&range)].contains(&true), "gradients are read after a backward pass");
        self.arena.read(range)
    }

    /// Lets `edit` change the gradients of some whole parameters: where they are, or in a copy that is then written back.
    pub fn edit_range<T>(&mut self, range: Range<usize>, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        self.zero_untouched(&range);
        self.arena.edit(range, edit)
    }

    /// As [`Gradients::edit_range`], with the gradients of all parameters.
    pub fn edit_all<T>(&mut self, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        self.edit_range(0..self.arena.count(), edit)
    }

    /// The numbers of the parameters in a range.
    fn parts(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.ranges.partition_point(|part| part.start < range.start);
        first..first + self.ranges[first..].partition_point(|part| part.start < range.end)
    }

    /// Writes the zeros of those parameters in a range that no gradient has reached.
    pub(crate) fn zero_untouched(&mut self, range: &Range<usize>) {
        for part in self.parts(range) {
            if std::mem::take(&mut self.cleared[part]) {
                self.arena.zero(self.ranges[part].clone());
            }
        }
    }

    /// Ends a backward pass: parameters that no gradient has reached have zeros.
    pub(crate) fn finish(&mut self) {
        self.zero_untouched(&(0..self.arena.count()));
    }

    /// Begins a contribution to the gradients of the parameters in `range`, and says how it must be written. It counts as written
    /// from now on.
    pub(crate) fn begin_write(&mut self, range: Range<usize>) -> Write {
        let parts = self.parts(&range);
        if self.cleared[parts.clone()].iter().all(|cleared| *cleared) {
            self.cleared[parts].fill(false);
            return Write::Store;
        }
        self.zero_untouched(&range);
        Write::Add
    }

    /// The whole arena, for backends: after a backward pass.
    pub(crate) fn arena(&self) -> &Tensor {
        assert!(!self.cleared.contains(&true), "gradients are read after a backward pass");
        &self.arena
    }

    /// The whole arena for writing, for backends: what [`Gradients::begin_write`] has allowed.
    pub(crate) fn arena_mut(&mut self) -> &mut Tensor {
        &mut self.arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Init};

    #[test]
    fn a_cleared_gradient_is_stored_then_added_to() {
        let mut builder = Parameters::builder();
        let parts = ["a", "b", "c"].map(|name| builder.declare(name, &[2, 3], Init::Ones, true));
        let stack = builder.stack(&parts[..2]);
        let params = builder.build(&Device::cpu(Some(2)).expect("a CPU device"), 0);
        let mut grads = Gradients::zeros_like(&params);
        grads.edit_all(|grads| grads.fill(7.0));
        grads.zero();
        let [a, b, both, c] = [parts[0], parts[1], stack, parts[2]].map(|id| params.range(id));
        assert_eq!(grads.begin_write(a.clone()), Write::Store);
        assert_eq!(grads.begin_write(a.clone()), Write::Add);
        grads.arena_mut().write(a, &[1.0; 6]);
        // A stack of which one part has its gradient: the other's zeros are written.
        assert_eq!(grads.begin_write(both), Write::Add);
        assert_eq!(grads.begin_write(b), Write::Add);
        grads.edit_range(c, |grads| grads[0] = 2.0);
        assert_eq!(grads.read_all()[..], [1., 1., 1., 1., 1., 1., 0., 0., 0., 0., 0., 0., 2., 0., 0., 0., 0., 0.]);
        grads.zero();
        grads.finish();
        assert!(grads.read_all().iter().all(|g| *g == 0.0));
    }
}
