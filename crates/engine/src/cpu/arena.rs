//! The arenas of weights and gradients, for the CPU's kernels.

use std::ops::Range;

use crate::gradients::Write;
use crate::{Gradients, ParamId, Parameters};

/// One parameter's weights.
pub(crate) fn weights(params: &Parameters, id: ParamId) -> &[f32] {
    &params.arena().slice()[params.range(id)]
}

/// The gradients at `range`, to be written as [`Gradients::begin_write`] returned.
pub(crate) fn gradients(grads: &mut Gradients, range: Range<usize>) -> &mut [f32] {
    &mut grads.arena_mut().slice_mut()[range]
}

/// The gradients of the parameters in `range`, ready to be added to.
pub(crate) fn gradient_sums(grads: &mut Gradients, range: Range<usize>) -> &mut [f32] {
    let write = grads.begin_write(range.clone());
    let sums = gradients(grads, range);
    if write == Write::Store {
        sums.fill(0.0);
    }
    sums
}
