//! When each parameter's gradient is complete in a backward pass.

use crate::{Gradients, ParamId, Parameters};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// In place of a number of contributions: the parameter has been reported.
const REPORTED: u32 = u32::MAX;

/// Counts the contributions to parameters' gradients that are still to come, and reports each parameter after its last.
pub(crate) struct Completion<'a> {
    /// By parameter, in arena order: its range, and how many contributions are expected.
    expected: Rc<[(Range<usize>, Cell<u32>)]>,
    report: &'a mut (dyn FnMut(Range<usize>, &mut Gradients) + 'a),
    /// Whether the ops that are recorded announce contributions. Those that are recorded again in a recomputation have been counted.
    counts: bool,
}

impl<'a> Completion<'a> {
    pub(crate) fn new(params: &Parameters, report: &'a mut (dyn FnMut(Range<usize>, &mut Gradients) + 'a)) -> Self {
        let expected = params.ids().map(|id| (params.range(id), Cell::new(0))).collect();
        Completion { expected, report, counts: true }
    }

    /// For a pass within the backward pass, that computes again what has been counted.
    pub(crate) fn share(&mut self) -> Completion<'_> {
        Completion { expected: Rc::clone(&self.expected), report: &mut *self.report, counts: false }
    }

    /// An op was run that will contribute to the gradient of `id`.
    pub(crate) fn expect(&mut self, params: &Parameters, id: ParamId) {
        if self.counts {
            for (_, expected) in &self.expected[params.parts(id)] {
                expected.set(expected.get() + 1);
            }
        }
    }

    /// An op has made its contribution to the gradient of `id`, or had none to make.
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

    /// The backward pass is over: reports the parameters that remain.
    pub(crate) fn finish(self, grads: &mut Gradients) {
        for (range, _) in self.expected.iter().filter(|(_, expected)| expected.get() != REPORTED) {
            (self.report)(range.clone(), grads);
        }
    }
}
