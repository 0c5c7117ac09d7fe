//! Gradients in one flat `f32` arena with the layout of the parameters, in the memory of their device.

use crate::{DType, Device, ParamId, Parameters, Share, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// How a backward rule must write a gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Write {
    /// Overwrite the memory.
    Store,
    /// Add to the memory.
    Add,
}

/// The gradient of every weight, with the layout of its [`Parameters`]; or that of the weights of a [`Share`], in their order.
pub struct Gradients {
    share: Share,
    ranges: Vec<Range<usize>>,
    arena: Tensor,
    /// Parameters whose gradient counts as zero, although their memory was not written. The first contribution of a
    /// step is stored instead of added, which saves one pass over the arena.
    cleared: Vec<bool>,
}

impl Gradients {
    /// Zero gradients for `params`, on their device.
    pub fn zeros_like(params: &Parameters) -> Gradients {
        let arena = params.device().zeros(params.count());
        let ranges: Vec<_> = params.ids().map(|id| params.range(id)).collect();
        Gradients { share: Share::WHOLE, cleared: vec![false; ranges.len()], ranges, arena }
    }

    /// Zero gradients for the weights of a share. Only [`edit_part`](Self::edit_part) and the optimizer use them.
    pub fn zeros_of(params: &Parameters, share: Share) -> Gradients {
        let arena = params.device().zeros(share.count(params.count()));
        Gradients { share, cleared: Vec::new(), ranges: Vec::new(), arena }
    }

    /// Lets `edit` change the gradients of a part of the arena, in consecutive blocks of the share.
    pub fn edit_part<T>(&mut self, part: Range<usize>, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        self.arena.edit(self.share.place(part), edit)
    }

    /// The weights whose gradients these are.
    pub(crate) fn share(&self) -> Share {
        self.share
    }

    /// Sets every gradient to zero, before the first micro-batch of a step. They cannot be read until the next backward
    /// pass has ended.
    pub fn zero(&mut self) {
        self.cleared.fill(true);
    }

    /// One parameter's gradient, row-major: borrowed if the device uses host memory, otherwise copied.
    pub fn read(&self, id: ParamId) -> Cow<'_, [f32]> {
        self.read_range(self.ranges[id.0].clone())
    }

    /// The gradients of all parameters in the order of [`Parameters::ids`], borrowed or copied as in
    /// [`Gradients::read`].
    pub fn read_all(&self) -> Cow<'_, [f32]> {
        self.arena().read(0..self.arena.count())
    }

    /// A range of [`Gradients::read_all`] that covers complete parameters. Panics if one of them has no gradient yet.
    pub fn read_range(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        assert!(!self.cleared[self.parts(&range)].contains(&true), "gradients are read after a backward pass");
        self.arena.read(range)
    }

    /// Lets `edit` change the gradients of a range of complete parameters, in place or in a copy that is then written
    /// back.
    pub fn edit_range<T>(&mut self, range: Range<usize>, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        self.zero_untouched(&range);
        self.arena.edit(range, edit)
    }

    /// [`Gradients::edit_range`] over all parameters.
    pub fn edit_all<T>(&mut self, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        self.edit_range(0..self.arena.count(), edit)
    }

    /// The indices of the parameters in a range.
    fn parts(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.ranges.partition_point(|part| part.start < range.start);
        first..first + self.ranges[first..].partition_point(|part| part.start < range.end)
    }

    /// Writes zeros for those parameters in a range that have not received a gradient.
    pub(crate) fn zero_untouched(&mut self, range: &Range<usize>) {
        for part in self.parts(range) {
            if std::mem::take(&mut self.cleared[part]) {
                self.arena.zero(self.ranges[part].clone());
            }
        }
    }

    /// Ends a backward pass: parameters that have not received a gradient get zeros.
    pub(crate) fn finish(&mut self) {
        self.zero_untouched(&(0..self.arena.count()));
    }

    /// Starts a contribution to the gradients of the parameters in `range`, and returns how it must be written. From
    /// now on, they count as written.
    pub(crate) fn begin_write(&mut self, range: Range<usize>) -> Write {
        let parts = self.parts(&range);
        if self.cleared[parts.clone()].iter().all(|cleared| *cleared) {
            self.cleared[parts].fill(false);
            return Write::Store;
        }
        self.zero_untouched(&range);
        Write::Add
    }

    /// The complete arena, for backends, after a backward pass.
    pub(crate) fn arena(&self) -> &Tensor {
        assert!(!self.cleared.contains(&true), "gradients are read after a backward pass");
        &self.arena
    }

    /// The complete arena, some of whose gradients may not be written yet.
    pub(crate) fn arena_while_written(&self) -> &Tensor {
        &self.arena
    }

    /// Adds other gradients to all of these.
    pub(crate) fn add_arena(&mut self, device: &Device, other: &Tensor) {
        self.finish();
        let arena = std::mem::replace(&mut self.arena, device.backend().empty(&[0], DType::F32));
        self.arena = device.backend().sum(arena, other);
    }

    /// Replaces the arena, and returns the one before.
    pub(crate) fn swap_arena(&mut self, arena: Tensor) -> Tensor {
        self.finish();
        std::mem::replace(&mut self.arena, arena)
    }

    /// The complete arena, mutable, for backends. Write only where [`Gradients::begin_write`] allowed it.
    pub(crate) fn arena_mut(&mut self) -> &mut Tensor {
        &mut self.arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Init;
    use crate::ops::check::devices;

    #[test]
    fn a_cleared_gradient_is_stored_then_added_to() {
        for device in devices() {
            let mut builder = Parameters::builder();
            let parts = ["a", "b", "c"].map(|name| builder.declare(name, &[2, 3], Init::Ones, true));
            let stack = builder.stack(&parts[..2]);
            let params = builder.build(&device, 0);
            let mut grads = Gradients::zeros_like(&params);
            grads.edit_all(|grads| grads.fill(7.0));
            grads.zero();
            let [a, b, both, c] = [parts[0], parts[1], stack, parts[2]].map(|id| params.range(id));
            assert_eq!(grads.begin_write(a.clone()), Write::Store);
            assert_eq!(grads.begin_write(a.clone()), Write::Add);
            grads.arena_mut().write(a, &[1.0; 6]);
            // Only one part of the stack has a gradient: zeros are written for the other.
            assert_eq!(grads.begin_write(both), Write::Add);
            assert_eq!(grads.begin_write(b), Write::Add);
            grads.edit_range(c, |grads| grads[0] = 2.0);
            assert_eq!(grads.read_all()[..], [1., 1., 1., 1., 1., 1., 0., 0., 0., 0., 0., 0., 2., 0., 0., 0., 0., 0.]);
            grads.zero();
            grads.finish();
            assert!(grads.read_all().iter().all(|g| *g == 0.0));
        }
    }
}
