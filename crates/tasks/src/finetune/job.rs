//! Fine-tuning as a job of the training loop: epochs of shuffled examples, evaluations, scores. A [`Learner`] defines what is
//! learned.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cloze_data::example_order;
use cloze_train::network::Network;
use cloze_train::objective::{Metrics, Term};
use cloze_train::plan::{Plan, RunPosition};
use cloze_train::recipe::Every;
use cloze_train::run::{RunFolder, RunLog};
use cloze_train::schedule::LrSchedule;
use cloze_train::step::{StepOutcome, Trainer};
use cloze_train::train_loop::{Due, Job, Keep, LoopState, Score};
use cloze_train::window::Window;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::events::{Best, Estimate, Evaluation, Figures, Start};
use super::rows::pretty;
use crate::TaskError;
use crate::settings::Settings;
use crate::task::Scores;

/// The interval of lines in the log.
const LOG_EVERY: Every = Every::Steps(20);
/// The only loss.
pub(crate) const TERMS: [Term; 1] = [Term { name: "task", weight: 1.0, metrics: Metrics::Classes }];

/// The state of a run, as checkpoints store it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) step: u64,
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

impl State {
    /// The number of optimizer updates.
    pub(crate) fn updates(&self) -> u64 {
        self.updates
    }
}

/// Sums since the last line of the log.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct WindowState {
    loss: f64,
    weight: f64,
    tokens: u64,
    seconds: f64,
}

/// What a fine-tuning run learns: its network, examples and losses.
pub(crate) trait Learner {
    /// The trained network.
    type Network: Network;

    /// The number of training examples.
    fn examples(&self) -> usize;

    /// The number of tokens of all training examples, and of all dev examples.
    fn tokens(&self) -> [usize; 2];

    /// Whether there are dev rows.
    fn has_dev(&self) -> bool;

    /// One optimizer step on the examples with these numbers. The loss is that of [`TERMS`].
    fn learn(&self, trainer: &mut Trainer<Self::Network>, chosen: &[usize], number: u64, lr: f64) -> StepOutcome;

    /// The mean loss and the scores on the dev rows; none if `stop` was set.
    ///
    /// # Errors
    /// Outputs that are not finite.
    fn evaluate(&self, trainer: &Trainer<Self::Network>, stop: &AtomicBool)
    -> Result<Option<(f64, Scores)>, TaskError>;
}

/// A fine-tuning run as a job of the training loop.
pub(crate) struct FineTuningJob<'r, L> {
    learner: L,
    settings: &'r Settings,
    plan: Plan,
    /// Steps per epoch.
    per_epoch: u64,
    lr_schedule: LrSchedule,
    /// An epoch and the order of its examples.
    order: Option<(u64, Vec<usize>)>,
    /// Seconds of training, evaluation left out, over all sessions.
    pub(crate) train_seconds: f64,
    pub(crate) best: Option<Best>,
    /// Learning rate and gradient norm of the last step.
    last: (f64, f64),
}

impl<'r, L: Learner> FineTuningJob<'r, L> {
    /// A run in this state, and the state of the loop.
    pub(crate) fn new(learner: L, settings: &'r Settings, state: State) -> (FineTuningJob<'r, L>, LoopState) {
        let per_epoch = learner.examples().div_ceil(settings.batch) as u64;
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
            learner,
            settings,
            plan: Plan::of_steps(per_epoch * u64::from(settings.epochs)),
            per_epoch,
            lr_schedule: LrSchedule::after_warmup(settings.schedule, settings.warmup),
            order: None,
            train_seconds: state.train_seconds,
            best: state.best,
            last: (0.0, 0.0),
        };
        (job, at)
    }

    pub(crate) fn learner(&self) -> &L {
        &self.learner
    }

    pub(crate) fn steps(&self) -> u64 {
        self.per_epoch * u64::from(self.settings.epochs)
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.per_epoch as f64
    }

    /// The learning rate of the step that follows `step` completed steps.
    pub(crate) fn lr_of(&self, step: u64) -> f64 {
        self.lr(self.plan.progress(step, 0.0), self.plan.progress(step + 1, 0.0))
    }

    /// Whether an evaluation is due after `step` steps. Evaluations are evenly spaced; the last one of an epoch is at
    /// its end.
    fn is_eval_due(&self, step: u64) -> bool {
        let (per_epoch, evals) = (self.per_epoch, u64::from(self.settings.evals_per_epoch));
        let within = (step - 1) % per_epoch + 1;
        within * evals / per_epoch > (within - 1) * evals / per_epoch
    }

    /// The remaining work after `done` steps, at `tokens_per_s` tokens per second.
    pub(crate) fn remaining(&self, done: u64, tokens_per_s: f64) -> Estimate {
        let (all, left) = (self.steps(), self.steps().saturating_sub(done));
        let [tokens, dev] = self.learner.tokens();
        let epoch = tokens as f64 / tokens_per_s;
        let training = epoch * f64::from(self.settings.epochs) * left as f64 / all.max(1) as f64;
        let evaluations = (done + 1..=all).filter(|&step| self.evaluates() && self.is_eval_due(step)).count() as u64;
        // The forward pass is a third of the work of a training step.
        let evaluating = evaluations as f64 * dev as f64 / (3.0 * tokens_per_s);
        Estimate {
            steps: left,
            step_seconds: training / left.max(1) as f64,
            evaluations,
            seconds: training + evaluating,
        }
    }
}

impl<L: Learner> Job for FineTuningJob<'_, L> {
    type Network = L::Network;
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
        self.settings.lr * self.lr_schedule.factor(before, after)
    }

    fn step(&mut self, trainer: &mut Trainer<L::Network>, at: &LoopState, lr: f64) -> Result<StepOutcome, TaskError> {
        let settings = self.settings;
        let epoch = at.step / self.per_epoch;
        let (of, order) = match self.order.take() {
            Some(order) if order.0 == epoch => order,
            _ => (epoch, example_order(self.learner.examples(), settings.seed, epoch)),
        };
        let first = (at.step % self.per_epoch) as usize * settings.batch;
        let chosen: Vec<usize> = order.iter().skip(first).take(settings.batch).copied().collect();
        self.order = Some((of, order));
        let outcome = self.learner.learn(trainer, &chosen, at.step, lr);
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
        _: &Trainer<L::Network>,
        at: &LoopState,
        tokens_per_s: f64,
    ) -> Result<(Estimate, Vec<f64>), TaskError> {
        let estimate = self.remaining(at.step, tokens_per_s);
        Ok((estimate, vec![estimate.step_seconds]))
    }

    fn due(&self, before: RunPosition, after: RunPosition) -> Due {
        let every = Every::Steps(self.settings.checkpoint_every.unwrap_or(0));
        Due {
            log: LOG_EVERY.is_due(before, after),
            evaluation: self.is_eval_due(after.step),
            checkpoint: every.is_due(before, after),
        }
    }

    fn figures(&mut self, _: &Trainer<L::Network>, at: &LoopState) -> Figures {
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
        self.learner.has_dev()
    }

    fn evaluate(
        &mut self,
        trainer: &Trainer<L::Network>,
        at: &LoopState,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>, TaskError> {
        let started = Instant::now();
        let Some((loss, scores)) = self.learner.evaluate(trainer, stop)? else { return Ok(None) };
        let epoch = self.epoch(at.step);
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
        self.settings.patience
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
            "best": best, "train_seconds": self.train_seconds, "steps": at.step, "seed": self.settings.seed,
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
pub(crate) struct StoredScores {
    pub(crate) best: Option<Best>,
    pub(crate) train_seconds: f64,
    pub(crate) steps: u64,
}

impl StoredScores {
    /// Reads the scores of a run folder; the default if there are none, as without dev rows.
    pub(crate) fn read(folder: &RunFolder) -> Result<StoredScores, TaskError> {
        let path = scores_file(folder);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|e| TaskError::File { path, problem: format!("is damaged: {e}") })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(StoredScores::default()),
            Err(source) => Err(TaskError::io("read", &path, source)),
        }
    }
}
