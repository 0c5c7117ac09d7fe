//! Tracks when the gradient of each parameter is complete during a backward pass.

use crate::{Gradients, ParamId, Parameters};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// Takes the place of the number of contributions: the parameter has been reported.
const REPORTED: u32 = u32::MAX;

/// Counts the pending contributions to each parameter's gradient, and reports the parameter after the last one.
pub(crate) struct Completion<'a> {
    /// For each parameter in arena order: its range, and the number of contributions still expected.
    expected: Rc<[(Range<usize>, Cell<u32>)]>,
    report: &'a mut (dyn FnMut(Range<usize>, &mut Gradients) + 'a),
    /// Whether recorded ops add to the expected contributions. Ops that are recorded again during recomputation were
    /// already counted.
    counts: bool,
}

impl<'a> Completion<'a> {
    pub(crate) fn new(params: &Parameters, report: &'a mut (dyn FnMut(Range<usize>, &mut Gradients) + 'a)) -> Self {
        let expected = params.ids().map(|id| (params.range(id), Cell::new(0))).collect();
        Completion { expected, report, counts: true }
    }

    /// For the inner pass that recomputes a checkpoint during the backward pass: its ops were already counted.
    pub(crate) fn share(&mut self) -> Completion<'_> {
        Completion { expected: Rc::clone(&self.expected), report: &mut *self.report, counts: false }
    }

    /// An op was recorded that will contribute to the gradient of `id`.
    pub(crate) fn expect(&mut self, params: &Parameters, id: ParamId) {
        if self.counts {
            for (_, expected) in &self.expected[params.parts(id)] {
                expected.set(expected.get() + 1);
            }
        }
    }

    /// An op has added its contribution to the gradient of `id`, or had none.
    pub(crate) fn contributed(&mut self, params: &Parameters, id: ParamId, grads: &mut Gradients) {
        for (range, expected) in &self.expected[params.parts(id)] {
            expected.set(expected.get() - 1);
            if expected.get() == 0 {
                expected.set(REPORTED);
                grads.zero_untouched(range);
                (self.report)(range.clone(), grads);
            }
        }
    }

    /// Ends the backward pass: reports the remaining parameters.
    pub(crate) fn finish(self, grads: &mut Gradients) {
        for (range, _) in self.expected.iter().filter(|(_, expected)| expected.get() != REPORTED) {
            (self.report)(range.clone(), grads);
        }
    }
}
