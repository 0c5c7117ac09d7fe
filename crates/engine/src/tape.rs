//! The tape: one backward closure an op, run in reverse.
//!
//! The gradient rule: activations' gradients add over the uses of an activation; parameters' gradients add over
//! micro-batches, until [`Gradients::zero`].

use crate::completion::Completion;
use crate::profile::{Cost, Profile, Stopwatch};
use crate::random::{Key, Mask};
use crate::{DType, Device, DropoutKey, Gradients, ParamId, Parameters, Tensor};
use std::ops::Range;

/// An activation, and its slot on the tape if its gradient is wanted.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    slot: Option<usize>,
}

impl Var {
    /// The numbers.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    pub(crate) fn slot(&self) -> Option<usize> {
        self.slot
    }
}

type Rule = Box<dyn FnOnce(&mut Backward<'_>)>;

/// The parameters that one op uses.
type Uses = [Option<ParamId>; 3];

/// One op's part of the backward pass.
struct Step {
    label: Label,
    uses: Uses,
    rule: Rule,
}

/// What a profile says of an op: its name and its output's width, by which it tells ops apart, and what either direction costs.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) op: &'static str,
    pub(crate) width: usize,
    pub(crate) forward: Cost,
    pub(crate) backward: Cost,
}

impl Label {
    fn end(self, laps: &mut Stopwatch, direction: &str) {
        let Label { op, width, forward, backward } = self;
        laps.end(format!("{op} {width}{direction}"), if direction.is_empty() { forward } else { backward });
    }
}

struct Tape<'a> {
    steps: Vec<Step>,
    slots: Vec<Option<Tensor>>,
    grads: &'a mut Gradients,
}

/// One forward pass, recorded for a backward one or not.
pub struct Pass<'a> {
    device: Device,
    params: &'a Parameters,
    precision: DType,
    tape: Option<Tape<'a>>,
    dropout: Option<DropoutKey>,
    sites: u32,
    checkpoints: bool,
    laps: Option<Stopwatch<'a>>,
    completion: Option<Completion<'a>>,
    /// What the op being run costs, forward and backward.
    costs: (Cost, Cost),
    /// The parameters that the op being run uses.
    uses: Uses,
}

impl<'a> Pass<'a> {
    /// A pass that records itself and drops activations out by `dropout` (`None`: no dropout whatever the model says,
    /// as in evaluation mode). `precision` is F32 or BF16: the type of activations, and what products round to.
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

    /// A pass for its outputs alone: nothing recorded, nothing dropped.
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
            laps: None,
            completion: None,
            costs: Default::default(),
            uses: Default::default(),
        }
    }

    /// The same pass, keeping of each [`Pass::checkpoint`] its input alone: the rest is computed again in the backward pass
    /// (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    pub fn checkpointing(self, checkpoints: bool) -> Pass<'a> {
        Pass { checkpoints, ..self }
    }

    /// The same pass with every op's time added to `profile`.
    pub fn profiled(self, profile: &'a mut Profile) -> Pass<'a> {
        Pass { laps: Some(Stopwatch::start(profile)), ..self }
    }

    /// The same pass, which reports in its backward pass when a parameter's gradient is complete: `report` gets the parameter's
    /// range of the arena (see [`Parameters::range`]), whose gradients this pass does not touch any more. A parameter that is used
    /// several times is complete after its last contribution; parameters that the pass does not use are reported at the end, so
    /// that each is reported once. Meant for communication that overlaps the rest of the backward pass: of a step's several
    /// micro-batches, let the last one report.
    ///
    /// Call it before any op runs. Panics in a pass that does not record.
    pub fn reporting(self, report: &'a mut (dyn FnMut(Range<usize>, &mut Gradients) + 'a)) -> Pass<'a> {
        assert!(self.tape.as_ref().is_some_and(|tape| tape.steps.is_empty()), "a recording pass before its first op");
        let completion = Some(Completion::new(self.params, report));
        Pass { completion, ..self }
    }

    /// Whether every op's time is measured.
    pub(crate) fn is_profiled(&self) -> bool {
        self.laps.is_some()
    }

    /// Whether a backward pass will follow.
    pub fn is_recording(&self) -> bool {
        self.tape.is_some()
    }

    /// The weights.
    pub fn parameters(&self) -> &'a Parameters {
        self.params
    }

    /// The device that computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of activations.
    pub fn precision(&self) -> DType {
        self.precision
    }

    /// The probability that is in force for a dropout of `p`, and its random stream; each call is another site.
    pub(crate) fn dropout_site(&mut self, p: f32) -> Mask {
        self.sites += 1;
        match self.dropout {
            Some(key) => Mask::new(key.site(self.sites), p),
            None => Mask::new(Key::new(0), 0.0),
        }
    }

    /// The activation `value` made by an op whose backward rule is made by `rule` from the new activation's slot.
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

    /// `run(x)`, whose activations are not kept but computed again when their gradients are wanted, in a pass that checkpoints.
    /// The same numbers either way: dropout is a function of its place.
    pub fn checkpoint(&mut self, x: &Var, run: impl Fn(&mut Pass<'_>, &Var) -> Var + 'static) -> Var {
        if !self.checkpoints || self.tape.is_none() {
            return run(self, x);
        }
        // The ops within count their uses of parameters here; those of the backward pass's recomputation contribute.
        let tape = self.tape.take();
        let (precision, dropout, first_site) = (self.precision, self.dropout, self.sites);
        let value = run(self, &Var { value: x.value.clone(), slot: None }).value;
        self.tape = tape;
        let (x_value, x_slot) = (x.value.clone(), x.slot);
        self.record("checkpoint", value, |slot| {
            Box::new(move |back| {
                let Some(dy) = back.finish(slot) else { return };
                let laps = back.laps.as_mut().map(Stopwatch::share);
                let completion = back.completion.as_mut().map(Completion::share);
                let recording = Pass::recording(back.device, back.params, back.grads, precision, dropout);
                let mut pass = Pass { sites: first_site, laps, completion, ..recording };
                let x = pass.input(x_value);
                let y = run(&mut pass, &x);
                pass.seed_gradient(&y, dy);
                let dx = pass.run_backward(&[&x]).0.pop().flatten();
                if let Some(laps) = &mut back.laps {
                    laps.restart();
                }
                if let Some(dx) = dx {
                    back.add(x_slot, dx);
                }
            })
        })
    }

    /// `run`'s outcome as a constant: no gradient reaches behind it, nothing of it is kept, nothing in it dropped out.
    /// Layers that do not learn cost their forward pass alone.
    pub fn no_grad(&mut self, run: impl FnOnce(&mut Pass<'a>) -> Var) -> Var {
        let (tape, dropout, completion) = (self.tape.take(), self.dropout.take(), self.completion.take());
        let value = run(self).value;
        (self.tape, self.dropout, self.completion) = (tape, dropout, completion);
        Var { value, slot: None }
    }

    /// Adds a step that makes gradients out of nothing: a loss.
    fn record_root(&mut self, label: Label, rule: impl FnOnce() -> Rule) {
        let uses = self.take_uses();
        if let Some(tape) = &mut self.tape {
            tape.steps.push(Step { label, uses, rule: rule() });
        }
    }

    /// The parameters of the op that is recorded now.
    fn take_uses(&mut self) -> Uses {
        let uses = std::mem::take(&mut self.uses);
        if let Some(completion) = &mut self.completion {
            uses.iter().flatten().for_each(|id| completion.expect(self.params, *id));
        }
        uses
    }

    /// Says which parameters the op that is recorded next contributes gradients to: three at most.
    pub(crate) fn uses(&mut self, ids: &[ParamId]) {
        for (place, id) in self.uses.iter_mut().zip(ids) {
            *place = Some(*id);
        }
    }

    /// Says what the op that is recorded next costs, for the profile.
    pub(crate) fn costs(&mut self, forward: Cost, backward: Cost) {
        self.costs = (forward, backward);
    }

    /// Ends an op in the profile, if there is one.
    pub(crate) fn lap(&mut self, op: Label) {
        if let Some(laps) = &mut self.laps {
            op.end(laps, "");
        }
    }

    /// The gradients that a recorded loss may add to at once, and the weights and device to do it with.
    pub(crate) fn gradients(&mut self) -> Option<&mut Gradients> {
        self.tape.as_mut().map(|tape| &mut *tape.grads)
    }

    /// An activation from outside whose gradient can be read after [`Pass::backward`]: for tests and feature inputs.
    pub fn input(&mut self, value: Tensor) -> Var {
        self.record("input", value, |_| Box::new(|_| ()))
    }

    /// Adds `gradient` to that of `var`: a loss computed elsewhere.
    pub fn seed_gradient(&mut self, var: &Var, gradient: Tensor) {
        assert_eq!(var.value.shape(), gradient.shape(), "a gradient has its activation's shape");
        let slot = var.slot;
        let (width, none) = (gradient.shape()[1], Cost::default());
        let label = Label { op: "loss", width, forward: none, backward: none };
        self.record_root(label, || Box::new(move |back| back.add(slot, gradient)));
    }

    /// Runs the tape in reverse; parameters' gradients are added to the [`Gradients`] given.
    ///
    /// Panics in a pass that does not record.
    pub fn backward(self) {
        self.backward_to(&[]);
    }

    /// As [`Pass::backward`], returning the gradients of these activations (`None` where nothing reached one).
    pub fn backward_to(self, wanted: &[&Var]) -> Vec<Option<Tensor>> {
        let (gradients, grads, completion) = self.run_backward(wanted);
        grads.finish();
        if let Some(completion) = completion {
            completion.finish(grads);
        }
        gradients
    }

    /// Runs the tape in reverse; parameters that no step has added to may still hold an earlier step's gradients in what is
    /// returned second.
    fn run_backward(self, wanted: &[&Var]) -> (Vec<Option<Tensor>>, &'a mut Gradients, Option<Completion<'a>>) {
        let Tape { steps, slots, grads } = self.tape.expect("backward of a pass that records");
        let mut completion = self.completion;
        let mut back = Backward {
            device: &self.device,
            params: self.params,
            grads,
            slots,
            wanted: wanted.iter().filter_map(|v| v.slot).collect(),
            laps: self.laps,
            completion: completion.as_mut().map(Completion::share),
        };
        for Step { label, uses, rule } in steps.into_iter().rev() {
            rule(&mut back);
            if let Some(laps) = &mut back.laps {
                label.end(laps, " back");
            }
            if let Some(completion) = &mut back.completion {
                uses.iter().flatten().for_each(|id| completion.contributed(back.params, *id, back.grads));
            }
        }
        let gradients = wanted.iter().map(|var| var.slot.and_then(|slot| back.slots[slot].take())).collect();
        (gradients, grads, completion)
    }
}

/// What a backward rule sees.
pub(crate) struct Backward<'a> {
    pub(crate) device: &'a Device,
    pub(crate) params: &'a Parameters,
    pub(crate) grads: &'a mut Gradients,
    slots: Vec<Option<Tensor>>,
    wanted: Vec<usize>,
    laps: Option<Stopwatch<'a>>,
    completion: Option<Completion<'a>>,
}

impl Backward<'_> {
    /// The finished gradient of an op's output; `None` if nothing used it.
    pub(crate) fn finish(&mut self, slot: usize) -> Option<Tensor> {
        if self.wanted.contains(&slot) { self.slots[slot].clone() } else { self.slots[slot].take() }
    }

    /// Takes what has been added so far to an input's gradient, so that an op can add its share in place and put the
    /// sum back with [`Backward::add`].
    pub(crate) fn take(&mut self, slot: Option<usize>) -> Option<Tensor> {
        slot.and_then(|slot| self.slots[slot].take())
    }

    /// Adds to the gradient of an input; nothing happens for an input without a slot.
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
    use crate::ops::{Activation, EmbedTables, Norm, add_norm, embed, linear, linear_cross_entropy};

    const NAMES: [&str; 11] =
        ["words", "positions", "segments", "unused", "shared", "gamma", "beta", "query", "key", "frozen", "bias"];

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

    /// Tied word embeddings; a layer and a norm that are used twice, in segments; a layer that is frozen; a parameter without use.
    fn forward(pass: &mut Pass<'_>, ids: [ParamId; 11], stack: ParamId) {
        let [word, position, segment, _, shared, gamma, beta, _, _, frozen, bias] = ids;
        let tensor = |pass: &Pass<'_>, values: [i32; 5]| pass.device().tensor_i32(&values, &[5]);
        let indices = [[1, 7, 7, 2, 0], [0, 1, 2, 3, 4], [0; 5]].map(|values| tensor(pass, values));
        let mut x = embed(pass, &indices[0], &indices[1], &indices[2], EmbedTables { word, position, segment });
        pass.no_grad(|pass| linear(pass, &x, frozen, None, Activation::None));
        for _ in 0..2 {
            x = pass.checkpoint(&x, move |pass, x| {
                let y = linear(pass, x, shared, None, Activation::Gelu);
                add_norm(pass, &y, Some(x), Norm { gamma, beta, eps: 1e-6 }, 0.1)
            });
        }
        let x = linear(pass, &x, stack, None, Activation::None);
        let labels = tensor(pass, [1, 2, 3, 4, 0]);
        linear_cross_entropy(pass, &x, word, bias, &labels, 0.2);
    }

    #[test]
    fn a_gradient_is_reported_once_when_it_is_complete() {
        let device = Device::cpu(Some(2)).expect("a CPU device");
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
                    // The decoder's bias with the loss; the words once they have been looked up; at the end what has no gradient.
                    [
                        "bias",
                        "query",
                        "key",
                        "gamma",
                        "beta",
                        "shared",
                        "words",
                        "positions",
                        "segments",
                        "unused",
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

    /// What is reported can be changed in place, as a sum over several machines does.
    #[test]
    fn a_report_may_change_the_gradient() {
        let device = Device::cpu(Some(1)).expect("a CPU device");
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
