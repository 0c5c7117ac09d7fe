//! The tape: one backward closure per op, run in reverse order.
//!
//! Gradients of activations add up over the uses of an activation. Gradients of parameters add up over micro-batches,
//! until [`Gradients::zero`].

use crate::completion::Completion;
use crate::profile::{Cost, Profile, Stopwatch};
use crate::random::{Key, Mask};
use crate::{DType, Device, DropoutKey, Gradients, ParamId, Parameters, Tensor};
use std::ops::Range;

/// An activation, and its slot on the tape if the pass computes its gradient.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    slot: Option<usize>,
}

impl Var {
    /// The activation's tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    pub(crate) fn slot(&self) -> Option<usize> {
        self.slot
    }
}

type Rule = Box<dyn FnOnce(&mut Backward<'_>)>;

/// The parameters that an op uses; four at most.
type Uses = [Option<ParamId>; 4];

/// One op on the tape, for the backward pass.
struct Step {
    label: Label,
    uses: Uses,
    rule: Rule,
}

/// How a profile identifies an op, by its name and its output's width, and the cost of either direction.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) op: &'static str,
    pub(crate) width: usize,
    pub(crate) forward: Cost,
    pub(crate) backward: Cost,
}

impl Label {
    fn end(self, stopwatch: &mut Stopwatch, direction: &str) {
        let Label { op, width, forward, backward } = self;
        stopwatch.end(format!("{op} {width}{direction}"), if direction.is_empty() { forward } else { backward });
    }
}

struct Tape<'a> {
    steps: Vec<Step>,
    slots: Vec<Option<Tensor>>,
    grads: &'a mut Gradients,
}

/// A forward pass, recorded for a backward pass or not.
pub struct Pass<'a> {
    device: Device,
    params: &'a Parameters,
    precision: DType,
    tape: Option<Tape<'a>>,
    dropout: Option<DropoutKey>,
    sites: u32,
    checkpoints: bool,
    stopwatch: Option<Stopwatch<'a>>,
    completion: Option<Completion<'a>>,
    /// The cost of the current op, forward and backward.
    costs: (Cost, Cost),
    /// The parameters that the current op uses.
    uses: Uses,
}

impl<'a> Pass<'a> {
    /// A pass that records its ops for a backward pass. `dropout` is the key of its dropout masks; with `None` nothing
    /// is dropped, as in evaluation mode. `precision` (F32 or BF16) is the type of activations and of the operands of
    /// matrix products.
    pub fn recording(
        device: &Device,
        params: &'a Parameters,
        grads: &'a mut Gradients,
        precision: DType,
        dropout: Option<DropoutKey>,
    ) -> Pass<'a> {
        let tape = Tape { steps: Vec::new(), slots: Vec::new(), grads };
        Pass { tape: Some(tape), dropout, ..Pass::inference(device, params, precision) }
    }

    /// A pass without recording and without dropout.
    pub fn inference(device: &Device, params: &'a Parameters, precision: DType) -> Pass<'a> {
        assert_ne!(precision, DType::I32, "activations are real numbers");
        Pass {
            device: device.clone(),
            params,
            precision,
            tape: None,
            dropout: None,
            sites: 0,
            checkpoints: false,
            stopwatch: None,
            completion: None,
            costs: Default::default(),
            uses: Default::default(),
        }
    }

    /// The same pass with the dropout masks of this key. A pass that does not record then has the activations of the
    /// recording pass with the same key.
    pub fn dropping(self, dropout: DropoutKey) -> Pass<'a> {
        Pass { dropout: Some(dropout), ..self }
    }

    /// The same pass with activation checkpointing: of each [`Pass::checkpoint`] only the input is kept, and the rest
    /// is recomputed in the backward pass (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    pub fn checkpointing(self, checkpoints: bool) -> Pass<'a> {
        Pass { checkpoints, ..self }
    }

    /// The same pass with the time of every op added to `profile`.
    pub fn profiled(self, profile: &'a mut Profile) -> Pass<'a> {
        Pass { stopwatch: Some(Stopwatch::start(profile)), ..self }
    }

    /// The same pass, which reports during its backward pass when a parameter's gradient is complete. `report` gets the
    /// parameter's range in the arena (see [`Parameters::range`]); this pass does not change the gradients of that
    /// range any more. A parameter that is used several times is complete after its last contribution. Parameters that
    /// the pass does not use are reported at the end, so each parameter is reported exactly once. This is for
    /// communication that overlaps with the rest of the backward pass: if a step has several micro-batches, only the
    /// last one should report.
    ///
    /// Call it before the first op. Panics if the pass does not record.
    pub fn reporting(self, report: &'a mut (dyn FnMut(Range<usize>, &mut Gradients) + 'a)) -> Pass<'a> {
        assert!(self.tape.as_ref().is_some_and(|tape| tape.steps.is_empty()), "a recording pass before its first op");
        let completion = Some(Completion::new(self.params, report));
        Pass { completion, ..self }
    }

    /// Whether every op's time is measured.
    pub(crate) fn is_profiled(&self) -> bool {
        self.stopwatch.is_some()
    }

    /// Whether a backward pass will follow.
    pub fn is_recording(&self) -> bool {
        self.tape.is_some()
    }

    /// The model's weights.
    pub fn parameters(&self) -> &'a Parameters {
        self.params
    }

    /// The device on which ops run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of activations.
    pub fn precision(&self) -> DType {
        self.precision
    }

    /// The mask of the next dropout site with probability `p`: no dropout if the pass has none. Each call is a new
    /// site.
    pub(crate) fn dropout_site(&mut self, p: f32) -> Mask {
        self.sites += 1;
        match self.dropout {
            Some(key) => Mask::new(key.site(self.sites), p),
            None => Mask::new(Key::new(0), 0.0),
        }
    }

    /// Wraps `value`, the output of `op`, in a [`Var`]. If the pass records, `rule` makes the op's backward rule from
    /// the output's slot.
    pub(crate) fn record(&mut self, op: &'static str, value: Tensor, rule: impl FnOnce(usize) -> Rule) -> Var {
        let width = value.shape().last().copied().unwrap_or(0);
        let (forward, backward) = std::mem::take(&mut self.costs);
        let label = Label { op, width, forward, backward };
        self.lap(label);
        let uses = self.take_uses();
        let slot = self.tape.as_mut().map(|tape| {
            tape.slots.push(None);
            let slot = tape.slots.len() - 1;
            tape.steps.push(Step { label, uses, rule: rule(slot) });
            slot
        });
        Var { value, slot }
    }

    /// Runs `run(x)`. In a pass with activation checkpointing, its activations are not kept but recomputed when the
    /// backward pass needs them. The results are identical: dropout masks depend only on the site.
    pub fn checkpoint(&mut self, x: &Var, run: impl Fn(&mut Pass<'_>, &Var) -> Var + 'static) -> Var {
        if !self.checkpoints || self.tape.is_none() {
            return run(self, x);
        }
        // The ops in `run` count their uses of parameters now; the recomputation in the backward pass makes the
        // contributions.
        let tape = self.tape.take();
        let (precision, dropout, first_site) = (self.precision, self.dropout, self.sites);
        let value = run(self, &Var { value: x.value.clone(), slot: None }).value;
        self.tape = tape;
        let (x_value, x_slot) = (x.value.clone(), x.slot);
        self.record("checkpoint", value, |slot| {
            Box::new(move |backward| {
                let Some(dy) = backward.finish(slot) else { return };
                let stopwatch = backward.stopwatch.as_mut().map(Stopwatch::share);
                let completion = backward.completion.as_mut().map(Completion::share);
                let recording = Pass::recording(backward.device, backward.params, backward.grads, precision, dropout);
                let mut pass = Pass { sites: first_site, stopwatch, completion, ..recording };
                let x = pass.input(x_value);
                let y = run(&mut pass, &x);
                pass.seed_gradient(&y, dy);
                let dx = pass.run_backward(&[&x]).0.pop().flatten();
                if let Some(stopwatch) = &mut backward.stopwatch {
                    stopwatch.restart();
                }
                if let Some(dx) = dx {
                    backward.add(x_slot, dx);
                }
            })
        })
    }

    /// Runs `run` without recording and without dropout; its result is a constant, which gradients do not pass. Frozen
    /// layers then cost only their forward pass.
    pub fn no_grad(&mut self, run: impl FnOnce(&mut Pass<'a>) -> Var) -> Var {
        let (tape, dropout, completion) = (self.tape.take(), self.dropout.take(), self.completion.take());
        let value = run(self).value;
        (self.tape, self.dropout, self.completion) = (tape, dropout, completion);
        Var { value, slot: None }
    }

    /// Records a loss: a step with gradients for its inputs but no output on the tape.
    fn record_loss(&mut self, label: Label, rule: impl FnOnce() -> Rule) {
        let uses = self.take_uses();
        if let Some(tape) = &mut self.tape {
            tape.steps.push(Step { label, uses, rule: rule() });
        }
    }

    /// Takes the parameters of the current op, and registers its contributions to their gradients.
    fn take_uses(&mut self) -> Uses {
        let uses = std::mem::take(&mut self.uses);
        if let Some(completion) = &mut self.completion {
            uses.iter().flatten().for_each(|id| completion.expect(self.params, *id));
        }
        uses
    }

    /// Sets the parameters to whose gradients the next recorded op contributes: four at most.
    pub(crate) fn uses(&mut self, ids: &[ParamId]) {
        for (place, id) in self.uses.iter_mut().zip(ids) {
            *place = Some(*id);
        }
    }

    /// Sets the cost of the next recorded op, for the profile.
    pub(crate) fn costs(&mut self, forward: Cost, backward: Cost) {
        self.costs = (forward, backward);
    }

    /// Ends an op in the profile, if the pass is profiled.
    pub(crate) fn lap(&mut self, op: Label) {
        if let Some(stopwatch) = &mut self.stopwatch {
            self.device.synchronize();
            op.end(stopwatch, "");
        }
    }

    /// The gradients, if the pass records: a loss may add to them during the forward pass.
    pub(crate) fn gradients(&mut self) -> Option<&mut Gradients> {
        self.tape.as_mut().map(|tape| &mut *tape.grads)
    }

    /// An external activation whose gradient [`Pass::backward_to`] can return: for tests and input features.
    pub fn input(&mut self, value: Tensor) -> Var {
        self.record("input", value, |_| Box::new(|_| ()))
    }

    /// Adds `gradient` to the gradient of `var`: for a loss that is computed elsewhere.
    pub fn seed_gradient(&mut self, var: &Var, gradient: Tensor) {
        assert_eq!(var.value.shape(), gradient.shape(), "a gradient has its activation's shape");
        let slot = var.slot;
        let (width, none) = (gradient.shape()[1], Cost::default());
        let label = Label { op: "loss", width, forward: none, backward: none };
        self.record_loss(label, || Box::new(move |backward| backward.add(slot, gradient)));
    }

    /// Runs the tape in reverse and adds the parameters' gradients to the pass's [`Gradients`].
    ///
    /// Panics if the pass does not record.
    pub fn backward(self) {
        self.backward_to(&[]);
    }

    /// As [`Pass::backward`], and returns the gradients of the activations `vars` (`None` for those that received
    /// none).
    pub fn backward_to(self, vars: &[&Var]) -> Vec<Option<Tensor>> {
        let (gradients, grads, completion) = self.run_backward(vars);
        grads.finish();
        if let Some(completion) = completion {
            completion.finish(grads);
        }
        gradients
    }

    /// Runs the tape in reverse. In the returned [`Gradients`], parameters without a contribution may still hold
    /// gradients of an earlier step.
    fn run_backward(self, vars: &[&Var]) -> (Vec<Option<Tensor>>, &'a mut Gradients, Option<Completion<'a>>) {
        let Tape { steps, slots, grads } = self.tape.expect("backward of a pass that records");
        let mut completion = self.completion;
        let mut backward = Backward {
            device: &self.device,
            params: self.params,
            grads,
            slots,
            keep: vars.iter().filter_map(|v| v.slot).collect(),
            stopwatch: self.stopwatch,
            completion: completion.as_mut().map(Completion::share),
        };
        for Step { label, uses, rule } in steps.into_iter().rev() {
            rule(&mut backward);
            if let Some(stopwatch) = &mut backward.stopwatch {
                backward.device.synchronize();
                label.end(stopwatch, " back");
            }
            if let Some(completion) = &mut backward.completion {
                uses.iter().flatten().for_each(|id| completion.contributed(backward.params, *id, backward.grads));
            }
        }
        let gradients = vars.iter().map(|var| var.slot.and_then(|slot| backward.slots[slot].take())).collect();
        (gradients, grads, completion)
    }
}

/// The state of a running backward pass, as backward rules use it.
pub(crate) struct Backward<'a> {
    pub(crate) device: &'a Device,
    pub(crate) params: &'a Parameters,
    pub(crate) grads: &'a mut Gradients,
    slots: Vec<Option<Tensor>>,
    /// Slots whose gradients the caller will read.
    keep: Vec<usize>,
    stopwatch: Option<Stopwatch<'a>>,
    completion: Option<Completion<'a>>,
}

impl Backward<'_> {
    /// Returns the complete gradient of an op's output; `None` if no later op used it.
    pub(crate) fn finish(&mut self, slot: usize) -> Option<Tensor> {
        if self.keep.contains(&slot) { self.slots[slot].clone() } else { self.slots[slot].take() }
    }

    /// Takes the current gradient sum of an input, so that an op can add to it in place and return it with
    /// [`Backward::add`].
    pub(crate) fn take(&mut self, slot: Option<usize>) -> Option<Tensor> {
        slot.and_then(|slot| self.slots[slot].take())
    }

    /// Adds to the gradient of an input; does nothing for an input without a slot.
    pub(crate) fn add(&mut self, slot: Option<usize>, gradient: Tensor) {
        let Some(slot) = slot else { return };
        self.slots[slot] = Some(match self.slots[slot].take() {
            None => gradient,
            Some(sum) => self.device.backend().sum(sum, &gradient),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Init;
    use crate::ops::check::devices;
    use crate::ops::{Activation, EmbedTables, Norm, add_norm, embed, linear, linear_cross_entropy};

    const NAMES: [&str; 11] =
        ["word", "position", "segment", "unused", "shared", "gamma", "beta", "query", "key", "frozen", "bias"];

    fn model(device: &Device) -> (Parameters, [ParamId; 11], ParamId) {
        let shapes: [&[usize]; 11] =
            [&[12, 8], &[5, 8], &[1, 8], &[3], &[8, 8], &[8], &[8], &[4, 8], &[4, 8], &[8, 8], &[12]];
        let mut builder = Parameters::builder();
        let ids: Vec<ParamId> = NAMES
            .iter()
            .zip(shapes)
            .map(|(name, shape)| builder.declare(name, shape, Init::TruncatedNormal { std: 0.5 }, true))
            .collect();
        let stack = builder.stack(&ids[7..9]);
        (builder.build(device, 5), ids.try_into().expect("eleven"), stack)
    }

    /// Tied word embeddings; a layer and a norm that are used twice, in checkpoints; a frozen layer; an unused
    /// parameter.
    fn forward(pass: &mut Pass<'_>, ids: [ParamId; 11], stack: ParamId) {
        let [word, position, segment, _, shared, gamma, beta, _, _, frozen, bias] = ids;
        let tensor = |pass: &Pass<'_>, values: [i32; 5]| pass.device().tensor_i32(&values, &[5]);
        let indices = [[1, 7, 7, 2, 0], [0, 1, 2, 3, 4], [0; 5]].map(|values| tensor(pass, values));
        let mut x =
            embed(pass, &indices[0], &indices[1], &indices[2], EmbedTables::new(word, Some(position), Some(segment)));
        pass.no_grad(|pass| linear(pass, &x, frozen, None, Activation::None));
        for _ in 0..2 {
            x = pass.checkpoint(&x, move |pass, x| {
                let y = linear(pass, x, shared, None, Activation::Gelu);
                add_norm(pass, &y, Some(x), Norm { gamma, beta: Some(beta), eps: 1e-6 }, 0.1)
            });
        }
        let x = linear(pass, &x, stack, None, Activation::None);
        let labels = tensor(pass, [1, 2, 3, 4, 0]);
        linear_cross_entropy(pass, &x, word, bias, &labels, 0.2);
    }

    #[test]
    fn a_gradient_is_reported_once_when_it_is_complete() {
        for device in devices() {
            let (params, ids, stack) = model(&device);
            let plain = {
                let mut grads = Gradients::zeros_like(&params);
                let mut pass = Pass::recording(&device, &params, &mut grads, DType::F32, Some(DropoutKey::default()));
                forward(&mut pass, ids, stack);
                pass.backward();
                grads.read_all().to_vec()
            };
            for checkpoints in [false, true] {
                let mut grads = Gradients::zeros_like(&params);
                for micro_batches in 1..3 {
                    let mut reports: Vec<(Range<usize>, Vec<f32>)> = Vec::new();
                    let mut report = |range: Range<usize>, grads: &mut Gradients| {
                        let complete = grads.read_range(range.clone()).to_vec();
                        reports.push((range, complete));
                    };
                    if micro_batches == 1 {
                        grads.zero();
                    }
                    let pass = Pass::recording(&device, &params, &mut grads, DType::F32, Some(DropoutKey::default()));
                    let mut pass = pass.checkpointing(checkpoints).reporting(&mut report);
                    forward(&mut pass, ids, stack);
                    pass.backward();
                    let name = |range: &Range<usize>| {
                        params.ids().find(|id| params.range(*id) == *range).map(|id| params.name(id))
                    };
                    let order: Vec<&str> = reports.iter().filter_map(|(range, _)| name(range)).collect();
                    assert_eq!(
                        order,
                        // The decoder's bias with the loss; the word embeddings after the lookup; at the end the parameters
                        // without gradient.
                        [
                            "bias", "query", "key", "gamma", "beta", "shared", "word", "position", "segment", "unused",
                            "frozen"
                        ],
                    );
                    for (range, complete) in &reports {
                        assert_eq!(*complete, grads.read_range(range.clone())[..], "{:?} was complete", name(range));
                    }
                    if micro_batches == 1 {
                        assert_eq!(grads.read_all()[..], plain);
                    }
                }
            }
        }
    }

    /// A report may change the gradient in place, as an all-reduce over several machines would.
    #[test]
    fn a_report_may_change_the_gradient() {
        for device in devices() {
            let (params, ids, stack) = model(&device);
            let run = |factor: f32| {
                let mut grads = Gradients::zeros_like(&params);
                let mut report = |range: Range<usize>, grads: &mut Gradients| {
                    grads.edit_range(range, |grads| grads.iter_mut().for_each(|g| *g *= factor));
                };
                let pass = Pass::recording(&device, &params, &mut grads, DType::F32, None);
                let mut pass = pass.reporting(&mut report);
                forward(&mut pass, ids, stack);
                pass.backward();
                grads.read_all().to_vec()
            };
            let twice: Vec<f32> = run(1.0).iter().map(|g| 2.0 * g).collect();
            assert_eq!(run(2.0), twice);
        }
    }
}
