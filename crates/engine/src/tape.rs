//! The tape: one backward closure an op, run in reverse.
//!
//! The gradient rule: activations' gradients add over the uses of an activation; parameters' gradients add over
//! micro-batches, until [`Gradients::zero`].

use crate::profile::{Laps, Profile};
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

/// An op's name and its output's width: what a profile tells apart.
type Label = (&'static str, usize);

fn label((op, width): Label, direction: &str) -> String {
    format!("{op} {width}{direction}")
}

struct Tape<'a> {
    steps: Vec<(Label, Step)>,
    slots: Vec<Option<Tensor>>,
    grads: &'a mut Gradients,
    dropout: Option<DropoutKey>,
}

/// One forward pass, recorded for a backward one or not.
pub struct Pass<'a> {
    device: Device,
    params: &'a Parameters,
    precision: DType,
    tape: Option<Tape<'a>>,
    sites: u32,
    laps: Option<Laps<'a>>,
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
        let tape = Tape { steps: Vec::new(), slots: Vec::new(), grads, dropout };
        Pass { tape: Some(tape), ..Pass::inference(device, params, precision) }
    }

    /// A pass for its outputs alone: nothing recorded, nothing dropped.
    pub fn inference(device: &Device, params: &'a Parameters, precision: DType) -> Pass<'a> {
        assert_ne!(precision, DType::I32, "activations are real numbers");
        Pass { device: device.clone(), params, precision, tape: None, sites: 0, laps: None }
    }

    /// The same pass with every op's time added to `profile`.
    pub fn profiled(self, profile: &'a mut Profile) -> Pass<'a> {
        Pass { laps: Some(Laps::start(profile)), ..self }
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
        match self.tape.as_ref().and_then(|tape| tape.dropout) {
            Some(key) => crate::random::Mask::new(key.site(self.sites), p),
            None => crate::random::Mask::new(Key::new(0), 0.0),
        }
    }

    /// The activation `value` made by an op whose backward rule is made by `rule` from the new activation's slot.
    pub(crate) fn record(&mut self, op: &'static str, value: Tensor, rule: impl FnOnce(usize) -> Step) -> Var {
        let op = (op, value.shape().last().copied().unwrap_or(0));
        self.lap(op);
        let slot = self.tape.as_mut().map(|tape| {
            tape.slots.push(None);
            let slot = tape.slots.len() - 1;
            tape.steps.push((op, rule(slot)));
            slot
        });
        Var { value, slot }
    }

    /// Adds a step that makes gradients out of nothing: a loss.
    fn record_root(&mut self, op: Label, rule: impl FnOnce() -> Step) {
        if let Some(tape) = &mut self.tape {
            tape.steps.push((op, rule()));
        }
    }

    /// Ends an op in the profile, if there is one.
    pub(crate) fn lap(&mut self, op: Label) {
        if let Some(laps) = &mut self.laps {
            laps.end(label(op, ""));
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
        self.record_root(("loss", gradient.shape()[1]), || Box::new(move |back| back.add(slot, gradient)));
    }

    /// Runs the tape in reverse; parameters' gradients are added to the [`Gradients`] given.
    ///
    /// Panics in a pass that does not record.
    pub fn backward(self) {
        self.backward_to(&[]);
    }

    /// As [`Pass::backward`], returning the gradients of these activations (`None` where nothing reached one).
    pub fn backward_to(mut self, wanted: &[&Var]) -> Vec<Option<Tensor>> {
        let tape = self.tape.take().expect("backward of a pass that records");
        let mut back = Backward {
            device: &self.device,
            params: self.params,
            grads: tape.grads,
            slots: tape.slots,
            wanted: wanted.iter().filter_map(|v| v.slot).collect(),
        };
        for (op, step) in tape.steps.into_iter().rev() {
            step(&mut back);
            if let Some(laps) = &mut self.laps {
                laps.end(label(op, " back"));
            }
        }
        back.grads.settle();
        wanted.iter().map(|var| var.slot.and_then(|slot| back.slots[slot].take())).collect()
    }
}

/// What a backward rule sees.
pub(crate) struct Backward<'a> {
    pub(crate) device: &'a Device,
    pub(crate) params: &'a Parameters,
    pub(crate) grads: &'a mut Gradients,
    slots: Vec<Option<Tensor>>,
    wanted: Vec<usize>,
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
