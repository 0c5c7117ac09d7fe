//! One optimizer step: micro-batches forward and backward, then the optimizer.

use std::time::Instant;

use cloze_engine::{DType, Device, DropoutKey, Gradients, Moments, Pass, StepSettings, optimizer_step};
use cloze_model::Losses;

use crate::network::Network;
use crate::recipe::Optimizer;

/// A network with everything that is needed to train it.
pub struct Trainer<N> {
    /// The network.
    pub network: N,
    /// Adam's moments.
    pub moments: Moments,
    /// Number of optimizer updates: Adam's t.
    pub updates: u64,
    device: Device,
    gradients: Gradients,
    optimizer: cloze_engine::Optimizer,
    clip_norm: Option<f32>,
    precision: DType,
    seed: u64,
    /// Whether to use activation checkpointing: the activations of layers are recomputed in the backward pass.
    pub recompute: bool,
}

/// Number of consecutive steps that may be skipped; then the run stops.
pub const MAX_SKIPPED: u32 = 5;

/// The result of an optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The losses over all micro-batches. If one of them is not finite, nothing was changed.
    pub losses: Losses,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the weights were updated: false if a loss or the gradient is not finite.
    pub updated: bool,
    /// Duration of the step in seconds.
    pub seconds: f64,
}

/// The result of a step of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Losses, gradient norm and time.
    pub update: Update,
    /// Number of tokens.
    pub tokens: u64,
    /// Useful floating-point operations; 0 if they are not counted.
    pub flops: f64,
}

impl<N: Network> Trainer<N> {
    /// Prepares the training of a network, with moments of zero. `precision` is the type of activations; `seed` is part
    /// of the dropout keys.
    pub fn new(network: N, device: &Device, precision: DType, optimizer: &Optimizer, seed: u64) -> Trainer<N> {
        Trainer {
            moments: Moments::zeros_like(network.params()),
            gradients: Gradients::zeros_like(network.params()),
            network,
            updates: 0,
            device: device.clone(),
            optimizer: optimizer.to_engine(),
            clip_norm: (optimizer.clip_norm > 0.0).then_some(optimizer.clip_norm as f32),
            precision,
            seed,
            recompute: false,
        }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of activations.
    pub fn precision(&self) -> DType {
        self.precision
    }

    /// The gradients of the last step, before clipping.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// The key of all randomness of a micro-batch of a step.
    pub fn key(&self, number: u64, micro: usize) -> DropoutKey {
        DropoutKey { seed: self.seed, step: number, micro: micro as u32 }
    }

    /// Runs one optimizer step. `loss` runs micro-batch 0, 1, … of the step forward and returns its losses; their
    /// gradients are summed. Then the optimizer updates the weights with the learning rate `lr`. `number` counts all steps from
    /// 0; with the seed and the micro-batch it forms the key that `loss` gets for all randomness, including dropout.
    pub fn step(
        &mut self,
        micro_batches: usize,
        number: u64,
        lr: f64,
        mut loss: impl FnMut(&N, &mut Pass, DropoutKey) -> Losses,
    ) -> Update {
        let start = Instant::now();
        self.gradients.zero();
        let mut losses = Losses::default();
        for micro in 0..micro_batches {
            let key = self.key(number, micro);
            let params = self.network.params();
            let mut pass = Pass::recording(&self.device, params, &mut self.gradients, self.precision, Some(key));
            pass = pass.checkpointing(self.recompute);
            losses.merge(&loss(&self.network, &mut pass, key));
            pass.backward();
        }
        let mut update = Update { losses, grad_norm: f64::NAN, updated: false, seconds: 0.0 };
        if update.losses.is_finite() {
            let (optimizer, clip_norm) = (self.optimizer, self.clip_norm);
            let settings = StepSettings { optimizer, lr: lr as f32, step: self.updates + 1, clip_norm };
            let params = self.network.params_mut();
            let report = optimizer_step(&self.device, params, &self.gradients, &mut self.moments, &settings);
            update.grad_norm = f64::from(report.grad_norm);
            update.updated = report.finite;
            self.updates += u64::from(report.finite);
        }
        update.seconds = start.elapsed().as_secs_f64();
        update
    }
}
