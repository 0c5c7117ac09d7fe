//! The fine-tuning loop, one for all tasks: epochs over shuffled examples, evaluation on the dev rows, the best model kept.
//!
//! A step is a pure function of the weights, the moments and the step's number: the order of the examples and the dropout are
//! keyed by it. So a run that was stopped or killed goes on, bit by bit, from its last checkpoint.
//!
//! ```text
//! RUN/finetune.toml      the settings
//! RUN/data.json          how rows are read and scored, and what tells them from others
//! RUN/metrics.jsonl      one JSON object a line: start, train, eval, event
//! RUN/checkpoints/       the last checkpoint of an unfinished run
//! RUN/model/             the best model: a Hugging Face folder
//! RUN/scores.json        its scores on the dev rows
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloze_data::example_order;
use cloze_engine::Device;
use cloze_model::{Config, Heads, LoadReport, Losses, Model};
use cloze_text::Tokenizer;
use cloze_train::checkpoint;
use cloze_train::device::run_device;
use cloze_train::objective::Term;
use cloze_train::pace::measure;
use cloze_train::plan::{Plan, Reached};
use cloze_train::recipe::{Every, Optimizer, Precision};
use cloze_train::run::{RunFolder, RunLog};
use cloze_train::schedule::Curve;
use cloze_train::step::{StepOutcome, Trainer};
use cloze_train::train_loop::{Due, Event, Job, Keep, Standing, TrainLoop};
use cloze_train::window::Window;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::TaskError;
use crate::any_task::{AnyEncoded, AnyRows, AnyTask};
use crate::batch::TaskBatch;
use crate::example::{Example, IGNORED, Target};
use crate::forward::{check_fit, outputs_of_model};
use crate::settings::{ClassWeights, Settings};
use crate::task::Scores;
use crate::task_settings::TaskSettings;

/// Steps between lines of the log.
const LOG_EVERY: Every = Every::Steps(20);
/// The one loss.
const TERMS: [Term; 1] = [Term { name: "task", weight: 1.0, has_perplexity: false }];

/// What a fine-tuning starts from, what it learns and where it goes.
#[derive(Clone, Copy)]
pub struct FineTuning<'a> {
    /// The task.
    pub task: &'a dyn AnyTask,
    /// Rows to learn.
    pub train: &'a dyn AnyRows,
    /// Rows to judge by; none: the last model is kept.
    pub dev: &'a dyn AnyRows,
    /// The files that the rows come from, for the log: those of training, those of dev.
    pub files: [&'a [PathBuf]; 2],
    /// The folder of the model to start from.
    pub model: &'a Path,
    /// How.
    pub settings: &'a Settings,
    /// The run's folder.
    pub out: &'a Path,
    /// Whether to go on with the run that is there.
    pub resume: bool,
    /// Where to run; of a run to resume that of [`device_of_run`].
    pub device: &'a Device,
    /// What the model is to remember of how its rows are read and scored: see [`AnyTask::settings`].
    pub task_settings: &'a TaskSettings,
}

/// What happens in a fine-tuning.
pub type FineTuneEvent = Event<Start, Estimate, Figures, Evaluation>;

/// What a run starts with.
#[derive(Debug, Clone)]
pub struct Start {
    /// Steps done before.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Training examples (windows count each).
    pub examples: usize,
    /// Tokens of all training examples.
    pub tokens: usize,
    /// Rows, of training and dev together, some of whose tokens were cut off to fit.
    pub cut_rows: usize,
    /// Tensors of the head that were drawn, tensors of the checkpoint that were left aside.
    pub adopted: LoadReport,
    /// The device in words, with the type of activations and the reason for both.
    pub machine: String,
}

/// How long a fine-tuning takes, or the rest of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Steps to go.
    pub steps: u64,
    /// Seconds of a step, on average.
    pub step_seconds: f64,
    /// Evaluations to go.
    pub evaluations: u64,
    /// Seconds in all, evaluations among them.
    pub seconds: f64,
}

/// Means since the last logged line.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: f64,
    /// Mean loss.
    pub loss: f64,
    /// Real tokens per second.
    pub tokens_per_s: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global norm of the last step's gradient before clipping.
    pub grad_norm: f64,
    /// Seconds of training, evaluation left out, over all sessions.
    pub train_seconds: f64,
}

/// How well the model does on the dev rows.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Epochs done.
    pub epoch: f64,
    /// Mean loss of the dev rows.
    pub loss: f64,
    /// Their scores.
    pub scores: Scores,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How a fine-tuning ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether it ran to its end; otherwise it was interrupted and can be resumed.
    pub finished: bool,
    /// The best model; none if interrupted before the first evaluation.
    pub model: Option<PathBuf>,
    /// The best scores; none without dev rows.
    pub best: Option<Best>,
    /// Seconds of training, evaluation left out, over all sessions.
    pub train_seconds: f64,
    /// Steps done.
    pub steps: u64,
}

/// The best evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this step.
    pub step: u64,
    /// Epochs done then.
    pub epoch: f64,
    /// The deciding score's name.
    pub metric: String,
    /// The deciding score; not a number for a correlation with a constant, for instance.
    #[serde(deserialize_with = "number_or_nan")]
    pub score: f64,
    /// All scores as one JSON object.
    pub scores: Value,
    /// The one answer given to every row, if the model had collapsed.
    pub collapsed: Option<String>,
}

/// JSON has no NaN: it is written as null.
fn number_or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Where a run stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    step: u64,
    updates: u64,
    train_seconds: f64,
    skipped_in_a_row: u32,
    /// Evaluations since the best.
    worse: u32,
    best: Option<Best>,
    window: WindowState,
}

/// Sums since the last logged line.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct WindowState {
    loss: f64,
    weight: f64,
    tokens: u64,
    seconds: f64,
}

/// Fine-tunes a model. When `stop` is raised the step is finished and saved; `on_event` is called for what happens.
///
/// # Errors
/// Settings, rows or a checkpoint that cannot be used; a loss that is not finite; a disk that is full. What was saved stays whole.
pub fn finetune(
    asked: &FineTuning<'_>,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&FineTuneEvent),
) -> Result<Outcome, TaskError> {
    // What can be found wrong is found before the run's folder is touched.
    let rows = EncodedRows::new(asked)?;
    let (folder, device) = (RunFolder::new(asked.out), asked.device);
    let mut settings = asked.settings.clone();
    let (mut lock, mut newest, mut messages) = (None, None, Vec::new());
    if asked.resume {
        let began = check_settings(&folder, &settings)?;
        rows.data.check(asked.out)?;
        let (held, found) = checkpoint::resume(&folder)?;
        (lock, newest) = (Some(held), found);
        settings.precision = precision_as_it_began(&began, &settings);
        messages.extend(computes_otherwise(&began, device));
    } else {
        folder.check_new()?;
    }
    settings.precision = settings.precision.resolved(device);
    settings.instruction_set = Some(device.instruction_set().to_owned());
    let newest = newest.as_ref().map(|(_, path)| path.as_path());
    let Prepared { job, trainer, at, adopted } = prepare(asked, &rows, &settings, newest)?;

    if !asked.resume {
        folder.create()?;
        rows.data.write(asked.out)?;
        cloze_files::write(&settings_file(asked.out), settings.to_toml()?.as_bytes())?;
    }
    let lock = lock.map_or_else(|| folder.lock(), Ok)?;
    let precision = trainer.precision();
    let start = Start {
        machine: format!("{}, {} ({})", device.describe(), precision.name(), device.explain(precision)),
        step: at.step,
        steps: job.steps(),
        examples: rows.examples.len(),
        tokens: rows.examples.iter().map(Example::length).sum(),
        cut_rows: rows.cut_rows,
        adopted,
    };
    let line = json!({
        "kind": "start",
        "step": start.step,
        "steps": start.steps,
        "examples": start.examples,
        "tokens": start.tokens,
        "train_rows": asked.train.len(),
        "train_files": asked.files[0],
        "dev_rows": asked.dev.len(),
        "dev_files": asked.files[1],
        "model": asked.model,
        "cut_rows": start.cut_rows,
        "parameters": trainer.network.parameter_count(),
        "machine": device.describe(),
        "precision": precision.name(),
        "reason": device.explain(precision),
        "threads": device.threads(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut run = TrainLoop::open(job, trainer, &rows.tokenizer, (folder.clone(), lock), at, on_event)?;
    run.announce(&line, start, messages)?;
    let ended = run.run(stop)?;
    let model = folder.model();
    Ok(Outcome {
        finished: ended.finished,
        model: model.is_dir().then_some(model),
        best: ended.job.best,
        train_seconds: ended.job.train_seconds,
        steps: ended.at.step,
    })
}

/// Checks everything that [`finetune`] checks, takes some steps and says how long the run would take, or the rest of the run
/// that is to go on. Nothing is written. None if `stop` was raised before that shows.
///
/// # Errors
/// Those of `finetune` before its first evaluation.
pub fn dry_run(asked: &FineTuning<'_>, stop: &AtomicBool) -> Result<Option<Estimate>, TaskError> {
    let folder = RunFolder::new(asked.out);
    let rows = EncodedRows::new(asked)?;
    let (mut settings, mut done) = (asked.settings.clone(), 0);
    if asked.resume {
        let began = check_settings(&folder, &settings)?;
        rows.data.check(asked.out)?;
        settings.precision = precision_as_it_began(&began, &settings);
        if let Some((_, path)) = checkpoint::list(&folder)?.pop() {
            done = checkpoint::verify::<State>(&path)?.step;
        }
    } else {
        folder.check_new()?;
    }
    let Prepared { job, mut trainer, .. } = prepare(asked, &rows, &settings, None)?;
    let (batch, count) = (settings.batch, rows.examples.len());
    let rate = measure(
        job.steps(),
        || stop.load(Ordering::Relaxed),
        |number| {
            let chosen: Vec<usize> = (0..batch.min(count)).map(|i| (number as usize * batch + i) % count).collect();
            let outcome = job.learn(&mut trainer, &chosen, number, job.lr_of(number));
            if outcome.update.losses.is_finite() {
                Ok((outcome.tokens, outcome.update.seconds))
            } else {
                Err(TaskError::NotFinite { step: number + 1 })
            }
        },
    )?;
    Ok(rate.map(|rate| job.ahead(done, rate)))
}

/// The rows of a fine-tuning as the network reads them.
struct EncodedRows<'a> {
    tokenizer: Tokenizer,
    examples: Vec<Example>,
    dev: Box<dyn AnyEncoded<'a> + 'a>,
    data: Data,
    /// Rows some of whose tokens were cut off.
    cut_rows: usize,
}

impl<'a> EncodedRows<'a> {
    fn new(asked: &FineTuning<'a>) -> Result<EncodedRows<'a>, TaskError> {
        asked.settings.validate()?;
        if asked.train.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        let tokenizer = Tokenizer::open(asked.model)?;
        let encoded = asked.train.encode(&tokenizer, asked.device.threads())?;
        let dev = asked.dev.encode(&tokenizer, asked.device.threads())?;
        let data = Data::new(asked, [encoded.examples(), dev.examples()]);
        let cut_rows = encoded.cut_rows() + dev.cut_rows();
        let examples = encoded.into_examples();
        if examples.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        Ok(EncodedRows { tokenizer, examples, dev, data, cut_rows })
    }
}

/// A fine-tuning before its first step.
struct Prepared<'a, 'r> {
    job: FineTuningJob<'a, 'r>,
    trainer: Trainer<Model>,
    at: Standing,
    adopted: LoadReport,
}

/// Loads the checkpoint `newest`, or else the model to start from, and makes it learn as the settings say.
fn prepare<'a, 'r>(
    asked: &'r FineTuning<'a>,
    rows: &'r EncodedRows<'a>,
    settings: &Settings,
    newest: Option<&Path>,
) -> Result<Prepared<'a, 'r>, TaskError> {
    let (task, device) = (asked.task, asked.device);
    let mut adopted = LoadReport::default();
    let (mut model, moments, state) = match newest {
        Some(path) => {
            let loaded = checkpoint::load::<Model, State>(path, device)?;
            (loaded.network, Some(loaded.moments), loaded.state)
        }
        None => {
            let (mut model, found) = Model::load_with(asked.model, Heads::of(task.head()), device, settings.seed)?;
            model.check_vocabulary(asked.model, rows.tokenizer.vocab_size())?;
            let mut config = model.config().clone();
            task.describe(&mut config);
            asked.task_settings.write_to(&mut config);
            model.set_config(config)?;
            adopted = found;
            (model, None, State::default())
        }
    };
    check_fit(&model, rows.examples.iter().chain(rows.dev.examples()))?;
    if let Some(layers) = settings.freeze
        && layers > model.architecture().layers
    {
        let most = model.architecture().layers;
        return Err(TaskError::setting("freeze", format!("is {layers}: the model has {most} layers")));
    }
    model.freeze(settings.freeze);
    model.decay_rates(settings.layer_decay as f32);
    if let Some(dropout) = settings.dropout {
        model.set_dropout(dropout, dropout)?;
    }
    let optimizer = Optimizer {
        kind: settings.optimizer,
        lr: settings.lr,
        eps: settings.eps,
        weight_decay: settings.weight_decay,
        clip_norm: settings.clip_norm,
        ..Optimizer::default()
    };
    let class_weights = class_weights(&settings.class_weights, &rows.examples, &model)?;
    let mut trainer = Trainer::new(model, device, settings.precision.dtype(device), &optimizer, settings.seed);
    trainer.recompute = settings.recompute;
    trainer.updates = state.updates;
    if let Some(moments) = moments {
        trainer.moments = moments;
    }
    let per_epoch = rows.examples.len().div_ceil(settings.batch) as u64;
    let WindowState { loss, weight, tokens, seconds } = state.window;
    let at = Standing {
        step: state.step,
        updates: state.updates,
        seconds: state.train_seconds,
        skipped_in_a_row: state.skipped_in_a_row,
        best: state.best.as_ref().map(|best| (best.step, best.score)),
        worse: state.worse,
        window: Window::restored(&TERMS[0], loss, weight, tokens, seconds),
        ..Standing::default()
    };
    let job = FineTuningJob {
        asked,
        rows,
        class_weights,
        plan: Plan::of_steps(per_epoch * u64::from(settings.epochs)),
        per_epoch,
        curve: Curve::after_warmup(settings.schedule, settings.warmup),
        order: None,
        train_seconds: state.train_seconds,
        best: state.best,
        last: (0.0, 0.0),
    };
    Ok(Prepared { job, trainer, at, adopted })
}

/// A fine-tuning as a job of the training loop.
struct FineTuningJob<'a, 'r> {
    asked: &'r FineTuning<'a>,
    rows: &'r EncodedRows<'a>,
    class_weights: Option<Vec<f32>>,
    plan: Plan,
    /// Steps of an epoch.
    per_epoch: u64,
    curve: Curve,
    /// The order of the examples in an epoch.
    order: Option<(u64, Vec<usize>)>,
    /// Seconds of training, evaluation left out, over all sessions.
    train_seconds: f64,
    best: Option<Best>,
    /// Learning rate and gradient norm of the last step.
    last: (f64, f64),
}

impl FineTuningJob<'_, '_> {
    fn steps(&self) -> u64 {
        self.per_epoch * u64::from(self.asked.settings.epochs)
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.per_epoch as f64
    }

    /// The learning rate of the step after `step` done ones.
    fn lr_of(&self, step: u64) -> f64 {
        self.lr(self.plan.progress(step, 0.0), self.plan.progress(step + 1, 0.0))
    }

    /// Whether the dev rows are due after `step` steps: that many times an epoch, the last at its end.
    fn is_eval_due(&self, step: u64) -> bool {
        let (per_epoch, evals) = (self.per_epoch, u64::from(self.asked.settings.evals_per_epoch));
        let within = (step - 1) % per_epoch + 1;
        within * evals / per_epoch > (within - 1) * evals / per_epoch
    }

    /// What is to come after `done` steps, at so many tokens a second.
    fn ahead(&self, done: u64, tokens_per_s: f64) -> Estimate {
        let (all, left) = (self.steps(), self.steps().saturating_sub(done));
        let tokens: usize = self.rows.examples.iter().map(Example::length).sum();
        let epoch = tokens as f64 / tokens_per_s;
        let training = epoch * f64::from(self.asked.settings.epochs) * left as f64 / all.max(1) as f64;
        let evaluations = (done + 1..=all).filter(|&step| self.evaluates() && self.is_eval_due(step)).count() as u64;
        // Forward alone is a third of the work.
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
    fn learn(&self, trainer: &mut Trainer<Model>, chosen: &[usize], number: u64, lr: f64) -> StepOutcome {
        let micro = chosen.len().div_ceil(self.asked.settings.accumulate).max(1);
        let (head, examples) = (self.asked.task.head(), &self.rows.examples);
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

    fn terms(&self) -> &'static [Term] {
        &TERMS
    }

    fn lr(&self, before: f64, after: f64) -> f64 {
        self.asked.settings.lr * self.curve.share(before, after)
    }

    fn step(&mut self, trainer: &mut Trainer<Model>, at: &Standing, lr: f64) -> Result<StepOutcome, TaskError> {
        let settings = self.asked.settings;
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

    /// Steps differ in their tokens.
    fn units(&self, outcome: &StepOutcome) -> u64 {
        outcome.tokens
    }

    fn estimate(
        &self,
        _: &Trainer<Model>,
        at: &Standing,
        tokens_per_s: f64,
    ) -> Result<(Estimate, Vec<f64>), TaskError> {
        let estimate = self.ahead(at.step, tokens_per_s);
        Ok((estimate, vec![estimate.step_seconds]))
    }

    fn due(&self, before: Reached, after: Reached) -> Due {
        let every = Every::Steps(self.asked.settings.checkpoint_every.unwrap_or(0));
        Due {
            log: LOG_EVERY.is_due(before, after),
            evaluation: self.is_eval_due(after.step),
            checkpoint: every.is_due(before, after),
        }
    }

    fn figures(&mut self, _: &Trainer<Model>, at: &Standing) -> Figures {
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
        !self.asked.dev.is_empty()
    }

    fn evaluate(&mut self, trainer: &Trainer<Model>, at: &Standing) -> Result<Evaluation, TaskError> {
        let began = Instant::now();
        let (device, precision, head) = (trainer.device(), trainer.precision(), self.asked.task.head());
        let (logits, loss) = outputs_of_model(&trainer.network, device, precision, head, &self.rows.dev.examples());
        let scores = self.rows.dev.predict(&logits)?.scores();
        let (epoch, loss) = (self.epoch(at.step), loss.mean());
        Ok(Evaluation { epoch, loss, scores, seconds: began.elapsed().as_secs_f64() })
    }

    fn score(evaluation: &Evaluation) -> Option<f64> {
        Some(evaluation.scores.main())
    }

    fn log_evaluation(
        &mut self,
        log: &mut RunLog,
        at: &Standing,
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
                scores: scores.to_json(),
                collapsed: scores.collapsed.clone(),
            });
        }
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        self.asked.settings.patience
    }

    fn checkpoints_kept(&self) -> usize {
        1
    }

    fn state(&self, at: &Standing) -> State {
        let loss = at.window.loss(TERMS[0].name);
        State {
            step: at.step,
            updates: at.updates,
            train_seconds: self.train_seconds,
            skipped_in_a_row: at.skipped_in_a_row,
            worse: at.worse,
            best: self.best.clone(),
            window: WindowState {
                loss: loss.sum,
                weight: loss.weight,
                tokens: at.window.tokens(),
                seconds: at.window.seconds(),
            },
        }
    }

    fn interruption(&self, _: &Standing) -> String {
        "interrupted".to_owned()
    }

    fn not_finite(&self, at: &Standing, _: Option<PathBuf>) -> TaskError {
        TaskError::NotFinite { step: at.step }
    }

    fn finish(&mut self, folder: &RunFolder, at: &Standing) -> Result<(), TaskError> {
        if at.updates == 0 {
            // Too few steps to end it before, and not one that was finite.
            return Err(TaskError::NotFinite { step: at.step });
        }
        let Some(best) = &self.best else { return Ok(()) };
        let path = folder.root().join("scores.json");
        let scores = json!({
            "best": best, "train_seconds": self.train_seconds, "steps": at.step, "seed": self.asked.settings.seed,
        });
        Ok(cloze_files::write(&path, &pretty(&path, &scores)?)?)
    }
}

/// JSON for people, with a newline at its end.
fn pretty(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, TaskError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| TaskError::io("write", path, e.into()))?;
    Ok((text + "\n").into_bytes())
}

/// Where a run's settings lie.
pub fn settings_file(run: &Path) -> PathBuf {
    run.join("finetune.toml")
}

/// The settings that a run began with.
///
/// # Errors
/// A file that is not there, or none of settings.
pub fn began_with(run: &Path) -> Result<Settings, TaskError> {
    let path = settings_file(run);
    let text = fs::read_to_string(&path).map_err(|source| TaskError::io("read", &path, source))?;
    toml::from_str(&text).map_err(|e| TaskError::File { path, problem: e.to_string() })
}

/// How a run that is gone on with computes: as it began, where this machine can. The same of runs that will be compared with it.
///
/// # Errors
/// An instruction set in the settings that is unknown.
pub fn as_it_began(began: &Settings, settings: &Settings, device: &Device) -> Result<(Settings, Device), TaskError> {
    let precision = precision_as_it_began(began, settings);
    let device = match began.instruction_set.as_deref() {
        Some(name) if name != device.instruction_set() => run_device(Some(device.threads()), None, Some(name))?,
        _ => device.clone(),
    };
    Ok((Settings { precision, ..settings.clone() }, device))
}

/// The device of a run to resume, given one at the fastest instruction set: the caller hands it to [`finetune`].
///
/// # Errors
/// As [`as_it_began`].
pub fn device_of_run(run: &Path, device: &Device) -> Result<Device, TaskError> {
    if !settings_file(run).is_file() {
        return Ok(device.clone());
    }
    let began = began_with(run)?;
    Ok(as_it_began(&began, &began, device)?.1)
}

fn precision_as_it_began(began: &Settings, settings: &Settings) -> Precision {
    match settings.precision {
        Precision::Auto => began.precision,
        given => given,
    }
}

/// That this machine lacks the instruction set that a run began with, if it does.
pub fn computes_otherwise(began: &Settings, device: &Device) -> Option<String> {
    let (before, now) = (began.instruction_set.as_deref()?, device.instruction_set());
    let message =
        || format!("the run began with {before}, this computes with {now}: results differ in their last bits");
    (before != now).then(message)
}

/// A run is resumed with the settings that it began with; returns them.
fn check_settings(folder: &RunFolder, settings: &Settings) -> Result<Settings, TaskError> {
    let path = settings_file(folder.root());
    if !path.is_file() {
        let problem = "no fine-tuning to resume here (no finetune.toml); start it without --resume".to_owned();
        return Err(TaskError::Folder { path: folder.root().to_owned(), problem });
    }
    if !folder.checkpoints().is_dir() {
        let problem = "this fine-tuning has run to its end; choose another --out".to_owned();
        return Err(TaskError::Folder { path: folder.root().to_owned(), problem });
    }
    let began = began_with(folder.root())?;
    if !began.leads_where(settings) {
        let problem = "the run began with other settings; give the same again, or choose another --out".to_owned();
        return Err(TaskError::File { path, problem });
    }
    Ok(began)
}

/// Fails unless the run in a folder began with the rows that are asked for, read and scored alike.
///
/// # Errors
/// [`TaskError::OtherRows`], [`TaskError::Folder`] naming what differs; rows or a tokenizer that cannot be used.
pub fn check_data(asked: &FineTuning<'_>, run: &Path) -> Result<(), TaskError> {
    let tokenizer = Tokenizer::open(asked.model)?;
    let [train, dev] = [asked.train, asked.dev].map(|rows| rows.encode(&tokenizer, asked.device.threads()));
    Data::new(asked, [train?.examples(), dev?.examples()]).check(run)
}

/// What a run learns from and is judged by, to resume it, or to compare it with another, on the same.
#[derive(Debug, Serialize, Deserialize)]
struct Data {
    /// How rows are read and scored.
    remember: Value,
    /// What the rows are.
    rows: String,
}

impl Data {
    /// Of the examples to learn and those to judge by.
    fn new(asked: &FineTuning<'_>, examples: [Vec<&Example>; 2]) -> Data {
        Data { remember: asked.task_settings.to_json(), rows: fingerprint(asked.task, examples) }
    }

    fn path(run: &Path) -> PathBuf {
        run.join("data.json")
    }

    fn write(&self, run: &Path) -> Result<(), TaskError> {
        let path = Data::path(run);
        Ok(cloze_files::write(&path, &pretty(&path, self)?)?)
    }

    /// Refuses unless a run began with the same: scores of other rows, or of another kind, cannot be compared.
    fn check(&self, run: &Path) -> Result<(), TaskError> {
        let path = Data::path(run);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                let problem = "nothing says on what rows (no data.json): choose another --out".to_owned();
                TaskError::Folder { path: run.to_owned(), problem }
            }
            _ => TaskError::io("read", &path, source),
        })?;
        let began: Data = serde_json::from_slice(&text)
            .map_err(|e| TaskError::File { path: path.clone(), problem: format!("is damaged: {e}") })?;
        // As this version would write them.
        let settings = TaskSettings::from_json(&began.remember);
        let before = settings.map_err(|problem| TaskError::file(&path, format!("\"remember\" {problem}")))?.to_json();
        let keys = |of: &Value| -> Vec<String> {
            of.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
        };
        let all: Vec<String> = [keys(&before), keys(&self.remember)].concat();
        if let Some(key) = all.iter().find(|key| before.get(key) != self.remember.get(key)) {
            let shown = |of: &Value| of.get(key).map_or("not given".to_owned(), Value::to_string);
            let problem = format!(
                "the run began with {key} = {}, now it is {}; give the same again, or choose another --out",
                shown(&before),
                shown(&self.remember),
            );
            return Err(TaskError::Folder { path: run.to_owned(), problem });
        }
        if began.rows != self.rows { Err(TaskError::OtherRows(run.to_owned())) } else { Ok(()) }
    }
}

/// The weights of the classes, from the training examples if need be.
fn class_weights(asked: &ClassWeights, examples: &[Example], model: &Model) -> Result<Option<Vec<f32>>, TaskError> {
    let has_classes = matches!(examples.first().map(|example| &example.target), Some(Target::Classes(_)));
    let classes = match model.heads.task {
        Some(head) if has_classes => head.logits(),
        _ if *asked == ClassWeights::None => return Ok(None),
        _ => {
            return Err(TaskError::setting("class-weights", "this task has no classes to weigh"));
        }
    };
    match asked {
        ClassWeights::None => Ok(None),
        ClassWeights::Given(weights) if weights.len() == classes => Ok(Some(weights.clone())),
        ClassWeights::Given(weights) => {
            let problem = format!("{} numbers for {classes} classes: expected one for each", weights.len());
            Err(TaskError::setting("class-weights", problem))
        }
        ClassWeights::Balanced => {
            let mut counts = vec![0usize; classes];
            for example in examples {
                if let Target::Classes(labels) = &example.target {
                    labels.iter().filter(|label| **label != IGNORED).for_each(|label| counts[*label as usize] += 1);
                }
            }
            let all: usize = counts.iter().sum();
            // A class without rows weighs nothing, which changes nothing.
            let weight = |count: &usize| if *count == 0 { 0.0 } else { all as f32 / (classes * count) as f32 };
            Ok(Some(counts.iter().map(weight).collect()))
        }
    }
}

/// What the rows are, wherever they came from, and the labels' names.
fn fingerprint(task: &dyn AnyTask, examples: [Vec<&Example>; 2]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut config = Config::default();
    task.describe(&mut config);
    hash.update(format!("{:?} {:?}", task.head(), config.labels()).as_bytes());
    for (part, examples) in (0u8..).zip(examples) {
        hash.update(&[part]);
        for example in examples {
            for sequence in &example.sequences {
                sequence.ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
                hash.update(&sequence.segments);
            }
            hash.update(fingerprint_of(example).as_bytes());
        }
    }
    format!("{:032x}", hash.digest128())
}

/// What is right of an example. Runs are resumed by it: its text stays the same in all versions.
fn fingerprint_of(example: &Example) -> String {
    let known = |label: &i32| usize::try_from(*label).ok();
    match (&example.target, &example.tokens[..]) {
        (Target::Classes(classes), []) => format!("Class({:?})", classes.first().and_then(known)),
        (Target::Classes(classes), tokens) => {
            let labels: Option<Vec<usize>> = classes.iter().map(known).collect();
            format!("Tags {{ rows: {tokens:?}, labels: {labels:?} }}")
        }
        (Target::Values(values), _) => format!("Value({:?})", values.first().filter(|value| !value.is_nan())),
        (Target::Binary(labels), _) => format!("Binary({labels:?})"),
        (Target::Positions(rows), _) => match &rows[..] {
            [row] => format!("Choice({:?})", known(row)),
            [start, end] => format!("Span({:?})", known(start).zip(known(end))),
            more => format!("Positions({more:?})"),
        },
    }
}
