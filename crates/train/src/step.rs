//! One optimizer step: micro-batches forward and backward, then AdamW.
//!
//! With M the predicted tokens and S the labelled sequences of *all* micro-batches of the step, what is minimised is
//! Σ MLM / M + Σ NSP / S (Devlin et al. 2019, A.2: the sum of the mean losses). Each micro-batch's gradient is scaled by the
//! step's counts, never by its own: accumulation then equals the big batch, whatever the micro-batches hold.

use std::time::Instant;

use cloze_engine::ops::LossSum;
use cloze_engine::{AdamW, DType, Device, DropoutKey, Gradients, Moments, Pass, StepSettings, adamw_step};
use cloze_model::losses::{MLM, NSP};
use cloze_model::{FlopsOf, LossScale, Losses, Model};
use serde::{Deserialize, Serialize};

use crate::batch::PretrainBatch;
use crate::recipe::{Optimizer, OptimizerKind};
use crate::run::TrainLine;

/// A model with what it needs to learn.
pub struct Learner {
    /// The model.
    pub model: Model,
    /// Adam's moments.
    pub moments: Moments,
    /// Optimizer updates done: Adam's t.
    pub updates: u64,
    device: Device,
    gradients: Gradients,
    adamw: AdamW,
    clip_norm: Option<f32>,
    precision: DType,
    seed: u64,
    /// Whether layers' activations are computed again in the backward pass instead of being kept.
    pub recompute: bool,
}

/// Steps in a row that may be skipped before a run stops.
pub const MOST_SKIPPED: u32 = 5;

/// What is said of a step that was skipped since its loss, or else its gradient, is not finite.
pub fn skipped(step: u64, loss_is_finite: bool, in_a_row: u32) -> String {
    let what = if loss_is_finite { "gradient" } else { "loss" };
    format!("step {step}: the {what} is not finite: skipped ({in_a_row} of at most {MOST_SKIPPED} in a row)")
}

/// What an optimizer step found and did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Whether the loss is a number; if not, nothing was changed.
    pub loss_is_finite: bool,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Whether the weights were updated: not if the loss or the gradient is not finite.
    pub updated: bool,
    /// Seconds that the step took.
    pub seconds: f64,
}

/// What a step of pre-training found and did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// The losses over all micro-batches.
    pub losses: Losses,
    /// Real tokens.
    pub tokens: u64,
    /// Useful floating-point operations.
    pub flops: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Whether the weights were updated: not if the loss or the gradient is not finite.
    pub updated: bool,
    /// Seconds that the step took.
    pub seconds: f64,
}

impl StepOutcome {
    /// What is minimised: the sum of the mean losses.
    pub fn loss(&self) -> f64 {
        self.losses.total()
    }
}

impl Learner {
    /// A learner at the start (zero moments), with dropout keyed by `seed`.
    pub fn new(model: Model, device: &Device, precision: DType, optimizer: &Optimizer, seed: u64) -> Learner {
        Learner {
            moments: Moments::zeros_like(&model.params),
            gradients: Gradients::zeros_like(&model.params),
            model,
            updates: 0,
            device: device.clone(),
            adamw: AdamW {
                beta1: optimizer.beta1 as f32,
                beta2: optimizer.beta2 as f32,
                eps: optimizer.eps as f32,
                weight_decay: optimizer.weight_decay as f32,
                bias_correction: optimizer.kind == OptimizerKind::Adamw,
            },
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

    /// One optimizer step: `run` records the loss of micro-batch 0, 1, …, whose gradients are added up, and returns its sum; then
    /// AdamW at a learning rate. `number` counts all steps, from 0, and keys the dropout.
    pub fn update(
        &mut self,
        micro_batches: u32,
        number: u64,
        lr: f64,
        mut run: impl FnMut(&Model, &mut Pass, u32) -> f64,
    ) -> Update {
        let began = Instant::now();
        self.gradients.zero();
        let mut sum = 0.0;
        for micro in 0..micro_batches {
            let dropout = DropoutKey { seed: self.seed, step: number, micro };
            let mut pass =
                Pass::recording(&self.device, &self.model.params, &mut self.gradients, self.precision, Some(dropout));
            pass = pass.recomputing(self.recompute);
            sum += run(&self.model, &mut pass, micro);
            pass.backward();
        }
        let mut update = Update { loss_is_finite: sum.is_finite(), grad_norm: f64::NAN, updated: false, seconds: 0.0 };
        if update.loss_is_finite {
            let settings =
                StepSettings { adamw: self.adamw, lr: lr as f32, step: self.updates + 1, clip_norm: self.clip_norm };
            let report =
                adamw_step(&self.device, &mut self.model.params, &self.gradients, &mut self.moments, &settings);
            update.grad_norm = f64::from(report.grad_norm);
            update.updated = report.finite;
            self.updates += u64::from(report.finite);
        }
        update.seconds = began.elapsed().as_secs_f64();
        update
    }

    /// One step of pre-training on some micro-batches at a learning rate: see [`update`](Self::update).
    pub fn step(&mut self, batches: &[PretrainBatch], number: u64, lr: f64) -> StepOutcome {
        let scale = LossScale::mean_of(batches.iter().map(|batch| &batch.labels));
        let mut losses = Losses::default();
        let update = self.update(batches.len() as u32, number, lr, |model, pass, micro| {
            let PretrainBatch { inputs, labels } = &batches[micro as usize];
            let own = model.loss(pass, inputs, labels, scale);
            losses.merge(&own);
            own.iter().map(|(_, loss)| loss.sum).sum()
        });
        let flops =
            |batch: &PretrainBatch| self.model.useful_flops(&batch.inputs, &batch.labels, FlopsOf::ForwardBackward);
        StepOutcome {
            losses,
            tokens: batches.iter().map(|batch| batch.inputs.tokens() as u64).sum(),
            flops: batches.iter().map(flops).sum(),
            grad_norm: update.grad_norm,
            updated: update.updated,
            seconds: update.seconds,
        }
    }
}

/// How fast the steps of a session are, in units of the caller's choice: steps, tokens. The first step touches its memory for the
/// first time, and counts only where steps are long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    first: Option<(u64, f64)>,
    /// Units of the steps after the first, and their seconds.
    units: u64,
    seconds: f64,
}

impl Pace {
    /// Adds a step.
    pub fn add(&mut self, units: u64, seconds: f64) {
        if self.first.is_none() {
            self.first = Some((units, seconds));
        } else {
            self.units += units;
            self.seconds += seconds;
        }
    }

    /// Units a second, once some steps have shown them; with `at_end`, by the steps there are.
    pub fn per_second(&self, at_end: bool) -> Option<f64> {
        let rate = |units: u64, seconds: f64| units as f64 / seconds.max(f64::MIN_POSITIVE);
        let (units, seconds) = self.first?;
        if self.units > 0 && (self.seconds > 1.0 || at_end) {
            return Some(rate(self.units, self.seconds));
        }
        (seconds > 5.0 || at_end).then(|| rate(units, seconds))
    }
}

/// Sums over the steps since the last logged line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    steps: u64,
    seconds: f64,
    tokens: u64,
    flops: f64,
    grad_norm: f64,
    mlm: Sums,
    nsp: Sums,
    /// Learning rate of the last step. States of checkpoints that were saved before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lr: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    sum: f64,
    count: u64,
    correct: u64,
}

impl Sums {
    fn add(&mut self, loss: LossSum) {
        self.sum += loss.sum;
        self.count += loss.count as u64;
        self.correct += loss.correct as u64;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.count.max(1) as f64
    }
}

impl Window {
    /// Adds a step at a learning rate; one that was skipped does not count.
    pub fn add(&mut self, outcome: &StepOutcome, lr: f64) {
        self.lr = Some(lr);
        if !outcome.updated {
            return;
        }
        self.steps += 1;
        self.seconds += outcome.seconds;
        self.tokens += outcome.tokens;
        self.flops += outcome.flops;
        self.grad_norm += outcome.grad_norm;
        for (sums, name) in [(&mut self.mlm, MLM), (&mut self.nsp, NSP)] {
            outcome.losses.get(name).into_iter().for_each(|loss| sums.add(loss));
        }
    }

    /// Whether no step was added.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// The window's means; the rest of the line is left at zero. `peak` is what is known of the device's matrix peak in FLOP/s.
    /// It was too low if these steps beat it, as it is where others kept the machine busy when it was measured; then `measure`
    /// says it anew.
    pub fn means(&self, peak: &mut f64, measure: impl FnOnce() -> f64) -> TrainLine {
        let seconds = self.seconds.max(f64::MIN_POSITIVE);
        let reached = self.flops / seconds;
        if reached > *peak {
            *peak = reached.max(measure());
        }
        let with_nsp = self.nsp.count > 0;
        TrainLine {
            mlm_loss: self.mlm.mean(),
            mlm_accuracy: self.mlm.accuracy(),
            nsp_loss: with_nsp.then(|| self.nsp.mean()),
            nsp_accuracy: with_nsp.then(|| self.nsp.accuracy()),
            loss: self.mlm.mean() + self.nsp.mean(),
            grad_norm: self.grad_norm / self.steps.max(1) as f64,
            tokens_per_s: self.tokens as f64 / seconds,
            share_of_peak: reached / peak.max(1.0),
            lr: self.lr.unwrap_or_default(),
            ..TrainLine::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloze_data::TokenTable;
    use cloze_data::batch::{BatchOptions, BatchSize, BatchSource};
    use cloze_data::shards::Documents;
    use cloze_model::{Config, Heads};
    use cloze_text::{Special, Template};

    const VOCABULARY: usize = 41;

    /// Batches of sequences of at most 20 tokens from sixteen documents that count up, each from its own number.
    fn batches(sequences: usize, count: u64) -> Vec<PretrainBatch> {
        let sentence = |d: u32, s: u32| (0..5).map(|i| 5 + (d * 7 + s + i) % 36).collect();
        let documents = (0..16).map(|d| (0..6).map(|s| sentence(d, s)).collect()).collect();
        let special = Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };
        let (template, continuation) = (Template::bert(2, 3), Some(vec![false; VOCABULARY]));
        let table = TokenTable { vocab_size: VOCABULARY, special, template, continuation };
        let options = BatchOptions { seq_len: 20, size: BatchSize::Sequences(sequences), ..BatchOptions::default() };
        let source = BatchSource::new(Documents::from_memory(documents), table, options).unwrap();
        (0..count).map(|i| source.batch(i).into()).collect()
    }

    fn learner(dropout: f64, kind: OptimizerKind) -> Learner {
        let config = Config {
            vocab_size: VOCABULARY,
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 48,
            max_position_embeddings: 20,
            hidden_dropout_prob: dropout,
            attention_probs_dropout_prob: dropout,
            ..Config::default()
        };
        let device = Device::cpu(Some(2)).unwrap();
        let model = Model::new(config, Heads::PRETRAINING, &device, 3).unwrap();
        let optimizer = Optimizer { kind, ..Optimizer::default() };
        Learner::new(model, &device, DType::F32, &optimizer, 11)
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn accumulation_equals_the_big_batch() {
        let (mut big, mut small) = (learner(0.0, OptimizerKind::BertAdamw), learner(0.0, OptimizerKind::BertAdamw));
        let (one, four) = (batches(8, 1), batches(2, 4));
        let counts: Vec<usize> = four.iter().map(|batch| batch.labels.mlm_rows.len()).collect();
        assert_eq!(one[0].labels.mlm_rows.len(), counts.iter().sum::<usize>());
        assert!(counts.windows(2).any(|c| c[0] != c[1]), "micro-batches differ in predicted tokens: {counts:?}");
        let (a, b) = (big.step(&one, 0, 1e-3), small.step(&four, 0, 1e-3));
        assert!((a.loss() - b.loss()).abs() < 1e-5 * a.loss());
        let counts = |outcome: &StepOutcome| [MLM, NSP].map(|name| outcome.losses.get(name).unwrap().count);
        assert_eq!((a.tokens, counts(&a)), (b.tokens, counts(&b)));
        assert!((a.flops - b.flops).abs() < 1e-6 * a.flops);
        let scale = big.gradients().read_all().iter().fold(0f32, |m, g| m.max(g.abs()));
        let apart = largest_difference(&big.gradients().read_all(), &small.gradients().read_all());
        assert!(apart < 1e-5 * scale, "gradients differ by {apart} of {scale}");
        assert!((a.grad_norm - b.grad_norm).abs() < 1e-5 * a.grad_norm);
    }

    #[test]
    fn a_batch_is_learned_by_heart_and_every_parameter_moves() {
        for kind in [OptimizerKind::BertAdamw, OptimizerKind::Adamw] {
            let mut learner = learner(0.0, kind);
            let start = learner.model.params.read_all().to_vec();
            let batch = batches(8, 1);
            let first = learner.step(&batch, 0, 3e-3);
            let mut last = first.clone();
            for step in 1..120 {
                last = learner.step(&batch, step, 3e-3);
            }
            let [first_mlm, mlm] = [&first, &last].map(|outcome| outcome.losses.get(MLM).unwrap());
            assert!(first_mlm.mean() > 3.0, "{first:?}");
            assert!(mlm.mean() < 0.3 && mlm.accuracy() > 0.95, "{kind:?}: {last:?}");
            assert!(last.losses.get(NSP).unwrap().accuracy() > 0.95, "{kind:?}: {last:?}");
            let (params, mut at) = (&learner.model.params, 0);
            for id in params.ids() {
                let now = params.read(id);
                assert_ne!(now[..], start[at..at + now.len()], "{} never moved", params.name(id));
                at += now.len();
            }
        }
    }

    #[test]
    fn steps_repeat_bit_by_bit_and_dropout_differs_by_step() {
        let run = |number: u64| {
            let mut learner = learner(0.1, OptimizerKind::BertAdamw);
            let outcome = learner.step(&batches(4, 2), number, 1e-3);
            (outcome.loss(), learner.model.params.read_all().to_vec())
        };
        assert!(run(0) == run(0));
        assert_ne!(run(0).0, run(1).0);
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        let mut learner = learner(0.0, OptimizerKind::BertAdamw);
        learner.model.params.edit_all(|values| values[300] = f32::NAN);
        let before: Vec<u32> = learner.model.params.read_all().iter().map(|w| w.to_bits()).collect();
        let outcome = learner.step(&batches(4, 1), 0, 1e-3);
        assert!(!outcome.updated && learner.updates == 0);
        let after: Vec<u32> = learner.model.params.read_all().iter().map(|w| w.to_bits()).collect();
        assert!(before == after && learner.moments.read_first().iter().all(|m| *m == 0.0));
        let mut window = Window::default();
        window.add(&outcome, 1e-3);
        assert!(window.is_empty());
    }

    #[test]
    fn the_first_step_is_no_part_of_the_pace_unless_steps_are_long() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(true), None, "no step yet");
        pace.add(100, 2.0);
        assert_eq!((pace.per_second(false), pace.per_second(true)), (None, Some(50.0)));
        pace.add(100, 0.5);
        assert_eq!((pace.per_second(false), pace.per_second(true)), (None, Some(200.0)));
        pace.add(200, 1.0);
        assert_eq!(pace.per_second(false), Some(200.0));
        let mut long = Pace::default();
        long.add(60, 6.0);
        assert_eq!(long.per_second(false), Some(10.0));
    }

    #[test]
    fn a_window_is_means_over_tokens() {
        let outcome = |sum: f64, count: usize, seconds: f64| {
            let mut losses = Losses::default();
            losses.add(MLM, LossSum { sum, weight: count as f64, count, correct: 1 });
            StepOutcome { losses, tokens: 100, flops: 50.0, grad_norm: sum, updated: true, seconds }
        };
        let mut window = Window::default();
        window.add(&outcome(3.0, 1, 1.0), 2.0);
        window.add(&outcome(1.0, 3, 3.0), 1.0);
        let line = window.means(&mut 100.0, || unreachable!("25 FLOP/s of 100"));
        assert_eq!((line.mlm_loss, line.mlm_accuracy, line.loss), (1.0, 0.5, 1.0));
        assert_eq!((line.nsp_loss, line.grad_norm, line.lr), (None, 2.0, 1.0));
        assert_eq!((line.tokens_per_s, line.share_of_peak), (50.0, 0.25));
    }

    #[test]
    fn no_share_of_a_peak_measured_on_a_busy_machine_is_over_one() {
        let mut window = Window { steps: 1, seconds: 2.0, flops: 300.0, ..Window::default() };
        let mut peak = 100.0;
        assert_eq!(window.means(&mut peak, || 200.0).share_of_peak, 0.75);
        assert_eq!(peak, 200.0);
        window.seconds = 1.0;
        assert_eq!(window.means(&mut peak, || 90.0).share_of_peak, 1.0, "still busy: what was reached is a peak");
        assert_eq!(peak, 300.0);
    }
}
