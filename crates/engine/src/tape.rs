//! The tape: one backward closure an op, run in reverse.
//!
//! The gradient rule: activations' gradients add over the uses of an activation; parameters' gradients add over
//! micro-batches, until [`Gradients::zero`].

use crate::profile::{Cost, Laps, Profile};
use crate::{DType, Device, DropoutKey, Gradients, Parameters, Tensor, random::Key};

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

type Step = Box<dyn FnOnce(&mut Backward<'_>)>;

/// What a profile says of an op: its name and its output's width, by which it tells ops apart, and what either direction costs.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) op: &'static str,
    pub(crate) width: usize,
    pub(crate) forward: Cost,
    pub(crate) backward: Cost,
}

impl Label {
    fn end(self, laps: &mut Laps, direction: &str) {
        let Label { op, width, forward, backward } = self;
        laps.end(format!("{op} {width}{direction}"), if direction.is_empty() { forward } else { backward });
    }
}

struct Tape<'a> {
    steps: Vec<(Label, Step)>,
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
    recomputes: bool,
    laps: Option<Laps<'a>>,
    /// What the op being run costs, forward and backward.
    costs: (Cost, Cost),
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
            recomputes: false,
            laps: None,
            costs: Default::default(),
        }
    }

    /// The same pass, keeping of each [`Pass::segment`] its input alone: the rest is computed again in the backward pass
    /// (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    pub fn recomputing(self, recomputes: bool) -> Pass<'a> {
        Pass { recomputes, ..self }
    }

    /// The same pass with every op's time added to `profile`.
    pub fn profiled(self, profile: &'a mut Profile) -> Pass<'a> {
        Pass { laps: Some(Laps::start(profile)), ..self }
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
    pub(crate) fn dropout_site(&mut self, p: f32) -> crate::random::Mask {
        self.sites += 1;
        match self.dropout {
            Some(key) => crate::random::Mask::new(key.site(self.sites), p),
            None => crate::random::Mask::new(Key::new(0), 0.0),
        }
    }

    /// The activation `value` made by an op whose backward rule is made by `rule` from the new activation's slot.
    pub(crate) fn record(&mut self, op: &'static str, value: Tensor, rule: impl FnOnce(usize) -> Step) -> Var {
        let width = value.shape().last().copied().unwrap_or(0);
        let (forward, backward) = std::mem::take(&mut self.costs);
        let op = Label { op, width, forward, backward };
        self.lap(op);
        let slot = self.tape.as_mut().map(|tape| {
            tape.slots.push(None);
            let slot = tape.slots.len() - 1;
            tape.steps.push((op, rule(slot)));
            slot
        });
        Var { value, slot }
    }

    /// `run(x)`, whose activations are not kept but computed again when their gradients are wanted, in a pass that recomputes.
    /// The same numbers either way: dropout is a function of its place.
    pub fn segment(&mut self, x: &Var, run: impl Fn(&mut Pass<'_>, &Var) -> Var + 'static) -> Var {
        if !self.recomputes || self.tape.is_none() {
            return run(self, x);
        }
        let tape = self.tape.take();
        let (precision, dropout, first_site) = (self.precision, self.dropout, self.sites);
        let value = run(self, &Var { value: x.value.clone(), slot: None }).value;
        self.tape = tape;
        let (x_value, x_slot) = (x.value.clone(), x.slot);
        self.record("segment", value, |slot| {
            Box::new(move |back| {
                let Some(dy) = back.finish(slot) else { return };
                let laps = back.laps.as_mut().map(Laps::share);
                let recording = Pass::recording(back.device, back.params, back.grads, precision, dropout);
                let mut pass = Pass { sites: first_site, laps, ..recording };
                let x = pass.input(x_value);
                let y = run(&mut pass, &x);
                pass.seed_gradient(&y, dy);
                let dx = pass.run_back(&[&x]).0.pop().flatten();
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
    pub fn constant(&mut self, run: impl FnOnce(&mut Pass<'a>) -> Var) -> Var {
        let (tape, dropout) = (self.tape.take(), self.dropout.take());
        let value = run(self).value;
        (self.tape, self.dropout) = (tape, dropout);
        Var { value, slot: None }
    }

    /// Adds a step that makes gradients out of nothing: a loss.
    fn record_root(&mut self, op: Label, rule: impl FnOnce() -> Step) {
        if let Some(tape) = &mut self.tape {
            tape.steps.push((op, rule()));
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
        let op = Label { op: "loss", width, forward: none, backward: none };
        self.record_root(op, || Box::new(move |back| back.add(slot, gradient)));
    }

    /// Runs the tape in reverse; parameters' gradients are added to the [`Gradients`] given.
    ///
    /// Panics in a pass that does not record.
    pub fn backward(self) {
        self.backward_to(&[]);
    }

    /// As [`Pass::backward`], returning the gradients of these activations (`None` where nothing reached one).
    pub fn backward_to(self, wanted: &[&Var]) -> Vec<Option<Tensor>> {
        let (gradients, grads) = self.run_back(wanted);
        grads.finish();
        gradients
    }

    /// Runs the tape in reverse; parameters that no step has added to may still hold an earlier step's gradients in what is
    /// returned second.
    fn run_back(self, wanted: &[&Var]) -> (Vec<Option<Tensor>>, &'a mut Gradients) {
        let Tape { steps, slots, grads } = self.tape.expect("backward of a pass that records");
        let mut back = Backward {
            device: &self.device,
            params: self.params,
            grads,
            slots,
            wanted: wanted.iter().filter_map(|v| v.slot).collect(),
            laps: self.laps,
        };
        for (op, step) in steps.into_iter().rev() {
            step(&mut back);
            if let Some(laps) = &mut back.laps {
                op.end(laps, " back");
            }
        }
        let gradients = wanted.iter().map(|var| var.slot.and_then(|slot| back.slots[slot].take())).collect();
        (gradients, grads)
    }
}

/// What a backward rule sees.
pub(crate) struct Backward<'a> {
    pub(crate) device: &'a Device,
    pub(crate) params: &'a Parameters,
    pub(crate) grads: &'a mut Gradients,
    slots: Vec<Option<Tensor>>,
    wanted: Vec<usize>,
    laps: Option<Laps<'a>>,
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
