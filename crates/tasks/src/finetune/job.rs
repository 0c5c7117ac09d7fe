//! Fine-tuning as a job of the training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cloze_data::example_order;
use cloze_model::{LoadReport, Losses, Model};
use cloze_train::checkpoint;
use cloze_train::objective::{Metrics, Term};
use cloze_train::plan::{Plan, RunPosition};
use cloze_train::recipe::{Every, Optimizer};
use cloze_train::run::{RunFolder, RunLog};
use cloze_train::schedule::LrSchedule;
use cloze_train::step::{StepOutcome, Trainer};
use cloze_train::train_loop::{Due, Job, Keep, LoopState, Score};
use cloze_train::window::Window;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::class_weights::class_weights;
use super::config::FineTuneConfig;
use super::events::{Best, Estimate, Evaluation, Figures, Start};
use super::head::{InitialModel, load_initial_model};
use super::rows::{EncodedRows, pretty};
use crate::TaskError;
use crate::batch::TaskBatch;
use crate::example::Example;
use crate::forward::{check_fit, run_model};
use crate::settings::Settings;

/// The interval of lines in the log.
const LOG_EVERY: Every = Every::Steps(20);
/// The only loss.
const TERMS: [Term; 1] = [Term { name: "task", weight: 1.0, metrics: Metrics::Classes }];

/// The state of a run, as checkpoints store it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) step: u64,
    updates: u64,
    train_seconds: f64,
    skipped_in_a_row: u32,
    /// Evaluations since the best one.
    worse: u32,
    /// Whether the evaluation that was due after this step is still to be done, because it was interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    owes_evaluation: bool,
    best: Option<Best>,
    window: WindowState,
}

/// Sums since the last line of the log.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct WindowState {
    loss: f64,
    weight: f64,
    tokens: u64,
    seconds: f64,
}

/// A fine-tuning run before its first step.
pub(super) struct Prepared<'a, 'r> {
    pub(super) job: FineTuningJob<'a, 'r>,
    pub(super) trainer: Trainer<Model>,
    pub(super) at: LoopState,
    pub(super) load_report: LoadReport,
    pub(super) notes: Vec<String>,
}

/// Loads the checkpoint `newest`, or else the model to fine-tune, and prepares its training.
pub(super) fn prepare<'a, 'r>(
    config: &'r FineTuneConfig<'a>,
    rows: &'r EncodedRows<'a>,
    settings: &Settings,
    newest: Option<&Path>,
) -> Result<Prepared<'a, 'r>, TaskError> {
    let (task, device) = (config.task, config.device);
    let (mut load_report, mut notes) = (LoadReport::default(), Vec::new());
    let (mut model, moments, state) = match newest {
        Some(path) => {
            let loaded = checkpoint::load::<Model, State>(path, device)?;
            (loaded.network, Some(loaded.moments), loaded.state)
        }
        None => {
            let InitialModel { mut model, load_report: found, notes: head_notes } =
                load_initial_model(config, &rows.examples, settings.seed)?;
            let segments = rows.tokenizer.template().segments(false);
            model.check_tokenizer(config.model, rows.tokenizer.vocab_size(), segments)?;
            let mut model_config = model.config().clone();
            task.describe(&mut model_config);
            config.task_settings.write_to(&mut model_config);
            model.set_config(model_config)?;
            (load_report, notes) = (found, head_notes);
            (model, None, State::default())
        }
    };
    check_fit(&model, rows.examples.iter().chain(rows.dev.examples()))?;
    if let Some(layers) = settings.freeze
        && layers > model.architecture().layers
    {
        let most = model.architecture().layers;
        return Err(TaskError::setting(
            "freeze",
            format!("expected at most {most}, the model's number of layers, found {layers}"),
        ));
    }
    let frozen = settings.features.map(|_| model.architecture().layers).or(settings.freeze);
    model.freeze(frozen);
    model.decay_rates(settings.layer_decay as f32);
    if let Some(dropout) = settings.dropout {
        model.set_dropout(dropout, dropout)?;
    }
    let mut optimizer = Optimizer::default();
    optimizer.kind = settings.optimizer;
    optimizer.lr = settings.lr;
    optimizer.eps = settings.eps;
    optimizer.weight_decay = settings.weight_decay;
    optimizer.clip_norm = settings.clip_norm;
    let class_weights = class_weights(&settings.class_weights, &rows.examples, &model)?;
    let mut trainer = Trainer::new(model, device, settings.precision.dtype(device), &optimizer, settings.seed);
    trainer.recompute = settings.recompute;
    trainer.updates = state.updates;
    if let Some(moments) = moments {
        trainer.moments = moments;
    }
    let per_epoch = rows.examples.len().div_ceil(settings.batch) as u64;
    let WindowState { loss, weight, tokens, seconds } = state.window;
    let at = LoopState {
        step: state.step,
        updates: state.updates,
        seconds: state.train_seconds,
        skipped_in_a_row: state.skipped_in_a_row,
        best: state.best.as_ref().map(|best| (best.step, best.decides())),
        evaluations_since_best: state.worse,
        owes_evaluation: state.owes_evaluation,
        window: Window::restored(&TERMS[0], loss, weight, tokens, seconds),
        ..LoopState::default()
    };
    let job = FineTuningJob {
        config,
        rows,
        class_weights,
        plan: Plan::of_steps(per_epoch * u64::from(settings.epochs)),
        per_epoch,
        lr_schedule: LrSchedule::after_warmup(settings.schedule, settings.warmup),
        order: None,
        train_seconds: state.train_seconds,
        best: state.best,
        last: (0.0, 0.0),
    };
    Ok(Prepared { job, trainer, at, load_report, notes })
}

/// A fine-tuning run as a job of the training loop.
pub(super) struct FineTuningJob<'a, 'r> {
    config: &'r FineTuneConfig<'a>,
    rows: &'r EncodedRows<'a>,
    class_weights: Option<Vec<f32>>,
    plan: Plan,
    /// Steps per epoch.
    per_epoch: u64,
    lr_schedule: LrSchedule,
    /// An epoch and the order of its examples.
    order: Option<(u64, Vec<usize>)>,
    /// Seconds of training, evaluation left out, over all sessions.
    pub(super) train_seconds: f64,
    pub(super) best: Option<Best>,
    /// Learning rate and gradient norm of the last step.
    last: (f64, f64),
}

impl FineTuningJob<'_, '_> {
    pub(super) fn steps(&self) -> u64 {
        self.per_epoch * u64::from(self.config.settings.epochs)
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.per_epoch as f64
    }

    /// The learning rate of the step that follows `step` completed steps.
    pub(super) fn lr_of(&self, step: u64) -> f64 {
        self.lr(self.plan.progress(step, 0.0), self.plan.progress(step + 1, 0.0))
    }

    /// Whether an evaluation is due after `step` steps. Evaluations are evenly spaced; the last one of an epoch is at
    /// its end.
    fn is_eval_due(&self, step: u64) -> bool {
        let (per_epoch, evals) = (self.per_epoch, u64::from(self.config.settings.evals_per_epoch));
        let within = (step - 1) % per_epoch + 1;
        within * evals / per_epoch > (within - 1) * evals / per_epoch
    }

    /// The remaining work after `done` steps, at `tokens_per_s` tokens per second.
    pub(super) fn remaining(&self, done: u64, tokens_per_s: f64) -> Estimate {
        let (all, left) = (self.steps(), self.steps().saturating_sub(done));
        let tokens: usize = self.rows.examples.iter().map(Example::length).sum();
        let epoch = tokens as f64 / tokens_per_s;
        let training = epoch * f64::from(self.config.settings.epochs) * left as f64 / all.max(1) as f64;
        let evaluations = (done + 1..=all).filter(|&step| self.evaluates() && self.is_eval_due(step)).count() as u64;
        // The forward pass is a third of the work of a training step.
        let dev: usize = self.rows.dev.examples().into_iter().map(Example::length).sum();
        let evaluating = evaluations as f64 * dev as f64 / (3.0 * tokens_per_s);
        Estimate {
            steps: left,
            step_seconds: training / left.max(1) as f64,
            evaluations,
            seconds: training + evaluating,
        }
    }

    /// One optimizer step on these examples.
    pub(super) fn learn(&self, trainer: &mut Trainer<Model>, chosen: &[usize], number: u64, lr: f64) -> StepOutcome {
        let micro = chosen.len().div_ceil(self.config.settings.accumulate).max(1);
        let (head, examples) = (self.config.task.head(), &self.rows.examples);
        let batches: Vec<TaskBatch> = chosen
            .chunks(micro)
            .map(|part| TaskBatch::pack(head, &part.iter().map(|&i| &examples[i]).collect::<Vec<_>>()))
            .collect();
        let weights = self.class_weights.as_deref();
        let weight: f64 = batches.iter().map(|batch| batch.weight(weights)).sum();
        let scale = if weight > 0.0 { (1.0 / weight) as f32 } else { 0.0 };
        let update = trainer.step(batches.len(), number, lr, |model, pass, key| {
            let batch = &batches[key.micro as usize];
            let logits = batch.logits(model, pass);
            let mut losses = Losses::default();
            losses.add(TERMS[0].name, batch.loss(pass, &logits, weights, scale));
            losses
        });
        let tokens = batches.iter().map(|batch| batch.inputs().tokens() as u64).sum();
        StepOutcome { update, tokens, flops: 0.0 }
    }
}

impl Job for FineTuningJob<'_, '_> {
    type Network = Model;
    type Error = TaskError;
    type State = State;
    type Start = Start;
    type Estimate = Estimate;
    type Figures = Figures;
    type Evaluation = Evaluation;

    const KEEP: Keep = Keep::Best;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn terms(&self, _: usize) -> &[Term] {
        &TERMS
    }

    fn lr(&self, before: f64, after: f64) -> f64 {
        self.config.settings.lr * self.lr_schedule.factor(before, after)
    }

    fn step(&mut self, trainer: &mut Trainer<Model>, at: &LoopState, lr: f64) -> Result<StepOutcome, TaskError> {
        let settings = self.config.settings;
        let epoch = at.step / self.per_epoch;
        let (of, order) = match self.order.take() {
            Some(order) if order.0 == epoch => order,
            _ => (epoch, example_order(self.rows.examples.len(), settings.seed, epoch)),
        };
        let first = (at.step % self.per_epoch) as usize * settings.batch;
        let chosen: Vec<usize> = order.iter().skip(first).take(settings.batch).copied().collect();
        self.order = Some((of, order));
        let outcome = self.learn(trainer, &chosen, at.step, lr);
        self.train_seconds += outcome.update.seconds;
        if outcome.update.updated {
            self.last = (lr, outcome.update.grad_norm);
        }
        Ok(outcome)
    }

    /// Progress is measured in tokens, because steps have different lengths.
    fn units(&self, outcome: &StepOutcome) -> u64 {
        outcome.tokens
    }

    fn estimate(
        &self,
        _: &Trainer<Model>,
        at: &LoopState,
        tokens_per_s: f64,
    ) -> Result<(Estimate, Vec<f64>), TaskError> {
        let estimate = self.remaining(at.step, tokens_per_s);
        Ok((estimate, vec![estimate.step_seconds]))
    }

    fn due(&self, before: RunPosition, after: RunPosition) -> Due {
        let every = Every::Steps(self.config.settings.checkpoint_every.unwrap_or(0));
        Due {
            log: LOG_EVERY.is_due(before, after),
            evaluation: self.is_eval_due(after.step),
            checkpoint: every.is_due(before, after),
        }
    }

    fn figures(&mut self, _: &Trainer<Model>, at: &LoopState) -> Figures {
        Figures {
            step: at.step,
            epoch: self.epoch(at.step),
            loss: at.window.loss(TERMS[0].name).mean(),
            tokens_per_s: at.window.tokens_per_s(),
            lr: self.last.0,
            grad_norm: self.last.1,
            train_seconds: self.train_seconds,
        }
    }

    fn log_figures(&self, log: &mut RunLog, figures: &Figures) -> Result<(), TaskError> {
        let Figures { step, epoch, loss, tokens_per_s, lr, grad_norm, train_seconds } = figures;
        log.append(&json!({
            "kind": "train", "step": step, "epoch": epoch, "loss": loss, "lr": lr,
            "grad_norm": grad_norm, "tokens_per_s": tokens_per_s, "seconds": train_seconds,
        }))?;
        let figures = [("train/loss", *loss), ("train/learning_rate", *lr), ("speed/tokens_per_s", *tokens_per_s)];
        Ok(log.scalars(*step, &figures.map(|(tag, value)| (tag.to_owned(), value)))?)
    }

    fn evaluates(&self) -> bool {
        !self.config.dev.is_empty()
    }

    fn evaluate(
        &mut self,
        trainer: &Trainer<Model>,
        at: &LoopState,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>, TaskError> {
        let started = Instant::now();
        let (device, precision, head) = (trainer.device(), trainer.precision(), self.config.task.head());
        let examples = self.rows.dev.examples();
        let outputs = run_model(&trainer.network, device, precision, head, &examples, stop);
        let Some((logits, loss)) = outputs else { return Ok(None) };
        let scores = self.rows.dev.predict(&logits)?.scores();
        let (epoch, loss) = (self.epoch(at.step), loss.mean());
        Ok(Some(Evaluation { epoch, loss, scores, seconds: started.elapsed().as_secs_f64() }))
    }

    fn score(&self, evaluation: &Evaluation) -> Option<Score> {
        Some(Score { value: evaluation.scores.main(), loss: evaluation.loss })
    }

    fn log_evaluation(
        &mut self,
        log: &mut RunLog,
        at: &LoopState,
        evaluation: &Evaluation,
        is_best: bool,
    ) -> Result<(), TaskError> {
        let Evaluation { epoch, loss, scores, seconds } = evaluation;
        log.append(&json!({
            "kind": "eval", "step": at.step, "epoch": epoch, "loss": loss, "scores": scores.to_json(),
            "seconds": self.train_seconds, "eval_seconds": seconds, "best": is_best,
        }))?;
        let figures: Vec<(String, f64)> =
            scores.values.iter().map(|(name, value)| (format!("eval/{name}"), *value)).collect();
        log.scalars(at.step, &figures)?;
        if is_best {
            self.best = Some(Best {
                step: at.step,
                epoch: *epoch,
                metric: scores.main_name().to_owned(),
                score: scores.main(),
                loss: *loss,
                scores: scores.to_json(),
                collapsed: scores.collapsed.clone(),
            });
        }
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        self.config.settings.patience
    }

    fn checkpoints_kept(&self) -> usize {
        1
    }

    fn state(&self, at: &LoopState) -> State {
        let loss = at.window.loss(TERMS[0].name);
        State {
            step: at.step,
            updates: at.updates,
            train_seconds: self.train_seconds,
            skipped_in_a_row: at.skipped_in_a_row,
            worse: at.evaluations_since_best,
            owes_evaluation: at.owes_evaluation,
            best: self.best.clone(),
            window: WindowState {
                loss: loss.sum,
                weight: loss.weight,
                tokens: at.window.tokens(),
                seconds: at.window.seconds(),
            },
        }
    }

    fn interruption(&self, _: &LoopState) -> String {
        "interrupted".to_owned()
    }

    fn not_finite(&self, at: &LoopState, _: Option<PathBuf>) -> TaskError {
        TaskError::NotFinite { step: at.step }
    }

    fn finish(&mut self, folder: &RunFolder, at: &LoopState) -> Result<(), TaskError> {
        if at.updates == 0 {
            // The run was too short to stop before, and no step had a finite loss.
            return Err(TaskError::NotFinite { step: at.step });
        }
        let Some(best) = &self.best else { return Ok(()) };
        let path = scores_file(folder);
        let scores = json!({
            "best": best, "train_seconds": self.train_seconds, "steps": at.step, "seed": self.config.settings.seed,
        });
        Ok(cloze_files::write(&path, &pretty(&path, &scores)?)?)
    }
}

/// The path of a run's scores.
fn scores_file(folder: &RunFolder) -> PathBuf {
    folder.root().join("scores.json")
}

/// The content of scores.json: the result of a finished run.
#[derive(Default, Deserialize)]
pub(super) struct Scores {
    pub(super) best: Option<Best>,
    pub(super) train_seconds: f64,
    pub(super) steps: u64,
}

impl Scores {
    /// Reads the scores of a run folder; the default if there are none, as without dev rows.
    pub(super) fn read(folder: &RunFolder) -> Result<Scores, TaskError> {
        let path = scores_file(folder);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|e| TaskError::File { path, problem: format!("is damaged: {e}") })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Scores::default()),
            Err(source) => Err(TaskError::io("read", &path, source)),
        }
    }
}
