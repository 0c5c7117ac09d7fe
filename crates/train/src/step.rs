//! One optimizer step: micro-batches forward and backward, then the optimizer. The ranks of a job share the micro-batches and the
//! weights that the optimizer updates.

use std::time::Instant;

use cloze_comm::{Communicator, Tree};
use cloze_engine::{
    BlockSums, DType, Device, DropoutKey, GradientSums, Gradients, Moments, Pass, Share, StepSettings,
    optimizer_step_of_share,
};
use cloze_model::Losses;

use crate::exchange::{Buffers, Exchange, Sending, Wire};
use crate::local_steps::{LocalSteps, OuterOptimizer};
use crate::micro_batch::{MicroBatch, gather};
use crate::network::Network;
use crate::recipe::Optimizer;

/// A network with everything that is needed to train it.
pub struct Trainer<N> {
    /// The network.
    pub network: N,
    /// Adam's moments, of the weights that this rank updates.
    pub moments: Moments,
    /// Number of optimizer updates: Adam's t.
    pub updates: u64,
    device: Device,
    gradients: Gradients,
    sums: GradientSums,
    optimizer: cloze_engine::Optimizer,
    clip_norm: Option<f32>,
    precision: DType,
    seed: u64,
    /// Whether to use activation checkpointing: the activations of layers are recomputed in the backward pass.
    pub recompute: bool,
    /// The type of gradients on the way between ranks.
    pub wire: Wire,
    ranks: Communicator,
    buffers: Buffers,
    local: Option<LocalSteps>,
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

/// The share of a rank in the weights.
pub fn share(ranks: &Communicator) -> Share {
    Share::new(ranks.rank(), ranks.size())
}

impl<N: Network> Trainer<N> {
    /// Prepares the training of a network, with moments of zero. `precision` is the type of activations; `seed` is part
    /// of the dropout keys. All ranks must have the same network.
    pub fn new(
        network: N,
        device: &Device,
        precision: DType,
        optimizer: &Optimizer,
        seed: u64,
        ranks: &Communicator,
    ) -> Trainer<N> {
        Trainer {
            moments: Moments::zeros_of(network.params(), share(ranks)),
            gradients: Gradients::zeros_like(network.params()),
            sums: GradientSums::default(),
            network,
            updates: 0,
            device: device.clone(),
            optimizer: optimizer.to_engine(),
            clip_norm: (optimizer.clip_norm > 0.0).then_some(optimizer.clip_norm as f32),
            precision,
            seed,
            recompute: false,
            wire: Wire::default(),
            ranks: ranks.clone(),
            buffers: Buffers::default(),
            local: None,
        }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The ranks that train together.
    pub fn ranks(&self) -> &Communicator {
        &self.ranks
    }

    /// The ranks that share each step: none but this one with local steps.
    pub(crate) fn ranks_of_step(&self) -> Communicator {
        if self.local.is_some() { Communicator::single() } else { self.ranks.clone() }
    }

    /// From now on, each rank trains alone, and all exchange their changes after some steps. `velocity` is that of a checkpoint. The
    /// moments must be those of all weights.
    pub fn train_locally(&mut self, outer: OuterOptimizer, velocity: Option<Vec<f32>>) {
        if self.moments.share() != Share::WHOLE {
            self.moments = Moments::zeros_like(self.network.params());
        }
        self.local = Some(LocalSteps::new(outer, self.network.params(), velocity));
    }

    /// The velocity of the outer optimizer, with local steps.
    pub fn velocity(&self) -> Option<&[f32]> {
        self.local.as_ref().map(LocalSteps::velocity)
    }

    /// Whether all ranks have the same weights: always, except between the exchanges of local steps.
    pub fn is_synchronised(&self) -> bool {
        self.local.as_ref().is_none_or(LocalSteps::is_synchronised)
    }

    /// Exchanges the changes of local steps before their time.
    pub fn synchronise(&mut self) {
        if let Some(local) = &mut self.local {
            local.synchronise(&self.ranks, self.network.params_mut(), &mut self.moments);
        }
    }

    /// The type of activations.
    pub fn precision(&self) -> DType {
        self.precision
    }

    /// The gradients of the last step, before clipping; in a job of several ranks, those of this rank's micro-batches.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// The key of all randomness of a micro-batch of a step.
    pub fn key(&self, number: u64, micro: usize) -> DropoutKey {
        DropoutKey { seed: self.seed, step: number, micro: micro as u32 }
    }

    /// Runs one optimizer step. `run` runs a micro-batch of the step forward, and returns its losses and sizes; the gradients of
    /// all micro-batches are summed in the order of the [`Tree`]. Each rank runs its [`Communicator::part`] of the micro-batches. Then the
    /// optimizer updates the weights with the learning rate `lr`. `number` counts all steps from 0; with the seed and
    /// the micro-batch it forms the key that `run` gets for all randomness, including dropout.
    ///
    /// The result has the same bits for any number of ranks, if gradients are sent in f32 and there are no local steps.
    pub fn step(
        &mut self,
        micro_batches: usize,
        number: u64,
        lr: f64,
        mut run: impl FnMut(&N, &mut Pass, DropoutKey) -> MicroBatch,
    ) -> StepOutcome {
        let start = Instant::now();
        let ranks = self.ranks_of_step();
        let part = self.ranks.part(micro_batches);
        // A rank that trains alone adds its own micro-batches only.
        let own = match self.local {
            Some(_) => Vec::from_iter((!part.is_empty()).then_some(part)),
            None => Tree::new(micro_batches).sums_of(part),
        };
        let last = own.last().map(|range| range.end - 1);
        let mut results = Vec::new();
        self.sums.begin();
        for range in &own {
            for micro in range.clone().filter(|micro| Some(*micro) != last) {
                let key = self.key(number, micro);
                self.gradients.zero();
                let mut pass = pass(&self.network, &self.device, &mut self.gradients, self.precision, key);
                pass = pass.checkpointing(self.recompute);
                results.push(run(&self.network, &mut pass, key));
                pass.backward();
                if micro + 1 < range.end {
                    self.sums.push(&self.device, &mut self.gradients);
                } else {
                    self.sums.keep(&self.device, &mut self.gradients);
                }
            }
        }
        self.gradients.zero();
        let exchange = (!ranks.is_single())
            .then(|| Exchange::new(&ranks, self.moments.share(), self.network.params(), micro_batches, self.wire));
        let mut run_last = |trainer: &mut Self, sending: Option<&mut Sending<'_>>| {
            let Some(micro) = last else {
                sending.into_iter().for_each(Sending::nothing);
                return;
            };
            let key = trainer.key(number, micro);
            let Trainer { network, device, gradients, sums, .. } = trainer;
            let mut report;
            let mut pass = pass(network, device, gradients, trainer.precision, key);
            if let Some(sending) = sending {
                report = |range: std::ops::Range<usize>, gradients: &mut Gradients| {
                    sending.completed(&range, gradients, sums);
                };
                pass = pass.reporting(&mut report);
            }
            pass = pass.checkpointing(trainer.recompute);
            results.push(run(network, &mut pass, key));
            pass.backward();
        };
        match &exchange {
            None => {
                run_last(self, None);
                if last.is_none() {
                    self.gradients.edit_all(|_| ());
                }
                self.sums.finish(&self.device, &mut self.gradients);
            }
            Some(exchange) => {
                let device = self.device.clone();
                let mut buffers = std::mem::take(&mut self.buffers);
                buffers.prepare(self.network.params(), self.moments.share());
                exchange.overlap(&device, &mut buffers, |sending| run_last(self, Some(sending)));
                self.buffers = buffers;
            }
        }
        let mut update = Update { losses: Losses::default(), grad_norm: f64::NAN, updated: false, seconds: 0.0 };
        let (mut tokens, mut flops) = (0, 0.0);
        for result in gather(&self.ranks, results) {
            update.losses.merge(&result.losses);
            tokens += result.tokens;
            flops += result.flops;
        }
        if update.losses.is_finite() {
            let (optimizer, clip_norm) = (self.optimizer, self.clip_norm);
            let settings = StepSettings { optimizer, lr: lr as f32, step: self.updates + 1, clip_norm };
            let params = self.network.params_mut();
            let mut complete = |BlockSums { blocks, sums }: BlockSums<'_>| {
                if let Some(exchange) = &exchange {
                    self.ranks.all_gather_entries(sums, |index| exchange.owner(blocks[index]));
                }
            };
            let (gradients, moments) = (self.buffers.gradients(&self.gradients), &mut self.moments);
            let report = optimizer_step_of_share(&self.device, params, gradients, moments, &settings, &mut complete);
            if let Some(exchange) = exchange.as_ref().filter(|_| report.finite) {
                exchange.gather_weights(params);
            }
            update.grad_norm = f64::from(report.grad_norm);
            update.updated = report.finite;
            if let Some(local) = &mut self.local {
                update.updated = !self.ranks.any(!report.finite);
                local.after_step(&self.ranks, params, &mut self.moments);
            }
            self.updates += u64::from(update.updated);
        }
        update.seconds = start.elapsed().as_secs_f64();
        StepOutcome { update, tokens, flops }
    }
}

impl<N: Network> Trainer<N> {
    /// Exchanges the gradients of the last step and the weights again, as [`step`](Self::step) does, to measure how long it takes.
    pub fn exchange(&mut self) {
        let (ranks, device) = (self.ranks.clone(), self.device.clone());
        self.sums.begin();
        let params = self.network.params();
        let exchange = Exchange::new(&ranks, self.moments.share(), params, ranks.size(), self.wire);
        let all = 0..params.count();
        let (gradients, sums) = (&self.gradients, &self.sums);
        self.buffers.prepare(params, self.moments.share());
        exchange.overlap(&device, &mut self.buffers, |sending| sending.completed(&all, gradients, sums));
        exchange.gather_weights(self.network.params_mut());
    }
}

/// A recording pass of a micro-batch.
fn pass<'a, N: Network>(
    network: &'a N,
    device: &Device,
    gradients: &'a mut Gradients,
    precision: DType,
    key: DropoutKey,
) -> Pass<'a> {
    Pass::recording(device, network.params(), gradients, precision, Some(key))
}
