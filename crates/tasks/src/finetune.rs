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
use cloze_engine::ops::LossSum;
use cloze_model::{Config, Heads, LoadReport, Model};
use cloze_text::Tokenizer;
use cloze_train::checkpoint;
use cloze_train::pretrain::run_device;
use cloze_train::recipe::{Optimizer, Precision};
use cloze_train::run::{RunFolder, RunLog};
use cloze_train::schedule::Curve;
use cloze_train::step::{Learner, MOST_SKIPPED, Pace, skipped};
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
const LOG_EVERY: u64 = 20;

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
    /// Where to run.
    pub device: &'a Device,
    /// What the model is to remember of how its rows are read and scored: see [`AnyTask::settings`].
    pub task_settings: &'a TaskSettings,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum News {
    /// Training is about to start, or to go on.
    Start(StartNews),
    /// How long it will take, as soon as some steps have shown it.
    Estimate(Estimate),
    /// A step is done.
    Step(StepNews),
    /// The dev rows were scored.
    Eval {
        /// Epochs done.
        epoch: f64,
        /// Mean loss of the dev rows.
        loss: f64,
        /// Their scores.
        scores: Scores,
        /// Whether they are the best so far.
        best: bool,
    },
    /// Anything else worth a line.
    Message(String),
}

/// What a run starts with.
#[derive(Debug, Clone)]
pub struct StartNews {
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

/// A step's figures.
#[derive(Debug, Clone)]
pub struct StepNews {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Mean loss since the last logged line.
    pub loss: f64,
    /// Real tokens per second since the last logged line.
    pub tokens_per_s: f64,
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
    window: Window,
}

/// Sums since the last logged line.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Window {
    loss: f64,
    weight: f64,
    tokens: u64,
    seconds: f64,
}

impl Window {
    /// Mean loss, and real tokens a second.
    fn means(&self) -> (f64, f64) {
        (self.loss / self.weight.max(f64::MIN_POSITIVE), self.tokens as f64 / self.seconds.max(f64::MIN_POSITIVE))
    }
}

/// Fine-tunes a model. When `stop` is raised the step is finished and saved; `watch` is told what happens.
///
/// # Errors
/// Settings, rows or a checkpoint that cannot be used; a loss that is not finite; a disk that is full. What was saved stays whole.
pub fn finetune(asked: &FineTuning<'_>, stop: &AtomicBool, watch: &mut dyn FnMut(&News)) -> Result<Outcome, TaskError> {
    Run::open(asked, watch)?.train(stop)
}

/// Checks everything that [`finetune`] checks, takes some steps and says how long the run would take, or the rest of the run
/// that is to go on. Nothing stays of it. None if `stop` was raised before that shows.
///
/// # Errors
/// Those of `finetune` before its first evaluation.
pub fn dry_run(asked: &FineTuning<'_>, stop: &AtomicBool) -> Result<Option<Estimate>, TaskError> {
    let out = RunFolder::new(asked.out);
    let (mut settings, mut device, mut done) = (asked.settings.clone(), asked.device.clone(), 0);
    if asked.resume {
        let began = check_settings(&out, &settings)?;
        check_data(asked, asked.out)?;
        (settings, device) = as_it_began(&began, &settings, &device)?;
        if let Some((_, path)) = checkpoint::list(&out)?.pop() {
            done = checkpoint::verify::<State>(&path)?.step;
        }
    } else {
        out.check_new()?;
    }
    let aside = tempfile::Builder::new().prefix("cloze-dry-run-").tempdir();
    let aside = aside.map_err(|source| TaskError::io("make a folder in", &std::env::temp_dir(), source))?;
    let trial = FineTuning { out: aside.path(), resume: false, settings: &settings, device: &device, ..*asked };
    let watch = &mut |_: &News| ();
    let mut run = Run::open(&trial, watch)?;
    let batch = asked.settings.batch;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let chosen: Vec<usize> =
            (0..batch.min(run.examples.len())).map(|i| (number * batch + i) % run.examples.len()).collect();
        run.step(&chosen)?;
        number += 1;
        if let Some(rate) = run.pace.per_second(number as u64 >= run.steps()) {
            return Ok(Some(run.estimate(done, rate)));
        }
    }
    Ok(None)
}

struct Run<'a> {
    asked: &'a FineTuning<'a>,
    folder: RunFolder,
    _lock: fs::File,
    tokenizer: Tokenizer,
    learner: Learner,
    examples: Vec<Example>,
    dev: Box<dyn AnyEncoded<'a> + 'a>,
    class_weights: Option<Vec<f32>>,
    curve: Curve,
    state: State,
    log: RunLog,
    watch: &'a mut dyn FnMut(&News),
    /// In tokens.
    pace: Pace,
    /// Learning rate and gradient norm of the last step.
    last: (f64, f64),
}

impl<'a> Run<'a> {
    /// Everything up to the first step. What can be found wrong is found before the run's folder is touched.
    fn open(asked: &'a FineTuning<'a>, watch: &'a mut dyn FnMut(&News)) -> Result<Run<'a>, TaskError> {
        let FineTuning { task, settings, device, .. } = asked;
        settings.validate()?;
        if asked.train.is_empty() {
            return Err(TaskError::NoRows("training"));
        }
        let tokenizer = Tokenizer::open(asked.model)?;
        let encoded = asked.train.encode(&tokenizer, device.threads())?;
        let dev = asked.dev.encode(&tokenizer, device.threads())?;
        let data = Data::new(asked, [encoded.examples(), dev.examples()]);
        let cut_rows = encoded.cut_rows() + dev.cut_rows();
        let examples = encoded.into_examples();
        if examples.is_empty() {
            return Err(TaskError::NoRows("training"));
        }

        let folder = RunFolder::new(asked.out);
        let (mut lock, mut newest) = (None, None);
        let mut settled = (*settings).clone();
        let mut device = (*device).clone();
        let mut differs = None;
        if asked.resume {
            let began = check_settings(&folder, settings)?;
            data.check(asked.out)?;
            lock = Some(folder.lock()?);
            checkpoint::remove_stale(&folder)?;
            newest = checkpoint::list(&folder)?.pop();
            (settled, device) = as_it_began(&began, &settled, &device)?;
            differs = computes_otherwise(&began, &device);
        }
        settled.precision = settled.precision.resolved(&device);
        settled.instruction_set = Some(device.instruction_set().to_owned());
        let device = &device;
        let mut adopted = LoadReport::default();
        let (mut model, moments, state) = match newest {
            Some((_, path)) => {
                let loaded = checkpoint::load::<State>(&path, device)?;
                (loaded.model, Some(loaded.moments), loaded.state)
            }
            None => {
                let (mut model, found) = Model::load_with(asked.model, Heads::of(task.head()), device, settings.seed)?;
                model.check_vocabulary(asked.model, tokenizer.vocab_size())?;
                let mut config = model.config().clone();
                task.describe(&mut config);
                asked.task_settings.write_to(&mut config);
                model.set_config(config)?;
                adopted = found;
                (model, None, State::default())
            }
        };
        check_fit(&model, examples.iter().chain(dev.examples()))?;
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
        let precision = settled.precision.dtype(device);
        let class_weights = class_weights(&settings.class_weights, &examples, &model)?;
        let mut learner = Learner::new(model, device, precision, &optimizer, settings.seed);
        learner.recompute = settings.recompute;
        learner.updates = state.updates;
        if let Some(moments) = moments {
            learner.moments = moments;
        }

        if !asked.resume {
            folder.create()?;
            data.write(asked.out)?;
            cloze_files::write(&settings_file(asked.out), settled.to_toml().as_bytes())?;
        }
        let lock = lock.map_or_else(|| folder.lock(), Ok)?;
        let log = RunLog::open(&folder, state.step, state.window.weight > 0.0)?;
        let mut run = Run {
            asked,
            folder,
            _lock: lock,
            tokenizer,
            learner,
            dev,
            class_weights,
            curve: Curve::after_warmup(settings.schedule, settings.warmup),
            state,
            log,
            watch,
            examples,
            pace: Pace::default(),
            last: (0.0, 0.0),
        };
        run.announce(cut_rows, adopted)?;
        if let Some(message) = differs {
            run.tell(message)?;
        }
        Ok(run)
    }

    fn announce(&mut self, cut_rows: usize, adopted: LoadReport) -> Result<(), TaskError> {
        let device = self.learner.device();
        let precision = self.learner.precision();
        let start = StartNews {
            machine: format!("{}, {} ({})", device.describe(), precision.name(), device.explain(precision)),
            step: self.state.step,
            steps: self.steps(),
            examples: self.examples.len(),
            tokens: self.examples.iter().map(Example::length).sum(),
            cut_rows,
            adopted,
        };
        self.log.append(&json!({
            "kind": "start",
            "step": start.step,
            "steps": start.steps,
            "examples": start.examples,
            "tokens": start.tokens,
            "train_rows": self.asked.train.len(),
            "train_files": self.asked.files[0],
            "dev_rows": self.asked.dev.len(),
            "dev_files": self.asked.files[1],
            "model": self.asked.model,
            "cut_rows": cut_rows,
            "parameters": self.learner.model.parameter_count(),
            "machine": device.describe(),
            "precision": precision.name(),
            "reason": device.explain(precision),
            "threads": device.threads(),
            "version": env!("CARGO_PKG_VERSION"),
        }))?;
        (self.watch)(&News::Start(start));
        Ok(())
    }

    fn tell(&mut self, message: String) -> Result<(), TaskError> {
        self.log.append(&json!({"kind": "event", "step": self.state.step, "message": message}))?;
        (self.watch)(&News::Message(message));
        Ok(())
    }

    fn steps_per_epoch(&self) -> u64 {
        self.examples.len().div_ceil(self.asked.settings.batch) as u64
    }

    fn steps(&self) -> u64 {
        self.steps_per_epoch() * u64::from(self.asked.settings.epochs)
    }

    /// Whether the dev rows are due after `step` steps: that many times an epoch, the last at its end.
    fn is_eval_due(&self, step: u64) -> bool {
        let (per_epoch, evals) = (self.steps_per_epoch(), u64::from(self.asked.settings.evals_per_epoch));
        let within = (step - 1) % per_epoch + 1;
        within * evals / per_epoch > (within - 1) * evals / per_epoch
    }

    /// What is to come after `done` steps, at so many tokens a second.
    fn estimate(&self, done: u64, tokens_per_s: f64) -> Estimate {
        let (all, left) = (self.steps(), self.steps().saturating_sub(done));
        let tokens: usize = self.examples.iter().map(Example::length).sum();
        let epoch = tokens as f64 / tokens_per_s;
        let training = epoch * f64::from(self.asked.settings.epochs) * left as f64 / all.max(1) as f64;
        let has_dev = !self.asked.dev.is_empty();
        let evaluations = (done + 1..=all).filter(|&step| has_dev && self.is_eval_due(step)).count() as u64;
        // Forward alone is a third of the work.
        let dev: usize = self.dev.examples().into_iter().map(Example::length).sum();
        let evaluating = evaluations as f64 * dev as f64 / (3.0 * tokens_per_s);
        Estimate {
            steps: left,
            step_seconds: training / left.max(1) as f64,
            evaluations,
            seconds: training + evaluating,
        }
    }

    fn train(mut self, stop: &AtomicBool) -> Result<Outcome, TaskError> {
        let settings = self.asked.settings;
        let mut told = false;
        let (steps, per_epoch) = (self.steps(), self.steps_per_epoch());
        let mut order: Option<(u64, Vec<usize>)> = None;
        while self.state.step < steps && !self.is_out_of_patience() {
            let step = self.state.step;
            let epoch = step / per_epoch;
            if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
                order = Some((epoch, example_order(self.examples.len(), settings.seed, epoch)));
            }
            let first = (step % per_epoch) as usize * settings.batch;
            let chosen: Vec<usize> =
                order.iter().flat_map(|(_, order)| order.iter().skip(first).take(settings.batch)).copied().collect();
            self.step(&chosen)?;
            if !told && let Some(rate) = self.pace.per_second(false) {
                told = true;
                let estimate = self.estimate(self.state.step, rate);
                (self.watch)(&News::Estimate(estimate));
            }
            let evaluated = self.is_eval_due(self.state.step);
            if evaluated {
                self.evaluate()?;
            }
            let done = self.state.step >= steps || self.is_out_of_patience();
            let every = settings.checkpoint_every.is_some_and(|every| self.state.step.is_multiple_of(every));
            let stopped = stop.load(Ordering::Relaxed);
            if done || stopped {
                self.log_rest()?;
            }
            if !done && (evaluated || every || stopped) && self.state.skipped_in_a_row == 0 {
                self.save()?;
            }
            if stopped && !done {
                // The outcome says it; the watcher need not be told twice.
                self.log.append(&json!({"kind": "event", "step": self.state.step, "message": "interrupted"}))?;
                return Ok(self.outcome(false));
            }
        }
        self.finish()
    }

    fn is_out_of_patience(&self) -> bool {
        self.asked.settings.patience.is_some_and(|most| self.state.worse >= most)
    }

    /// One optimizer step on these examples.
    fn step(&mut self, chosen: &[usize]) -> Result<(), TaskError> {
        let settings = self.asked.settings;
        let micro = chosen.len().div_ceil(settings.accumulate).max(1);
        let (head, examples) = (self.asked.task.head(), &self.examples);
        let batches: Vec<TaskBatch> = chosen
            .chunks(micro)
            .map(|part| TaskBatch::pack(head, &part.iter().map(|&i| &examples[i]).collect::<Vec<_>>()))
            .collect();
        let weights = self.class_weights.as_deref();
        let weight: f64 = batches.iter().map(|batch| batch.weight(weights)).sum();
        let scale = if weight > 0.0 { (1.0 / weight) as f32 } else { 0.0 };
        let (step, steps) = (self.state.step, self.steps());
        let progress = |step: u64| step as f64 / steps as f64;
        let lr = settings.lr * self.curve.share(progress(step), progress(step + 1));
        let mut loss = LossSum::default();
        let update = self.learner.update(batches.len() as u32, step, lr, |model, pass, number| {
            let batch = &batches[number as usize];
            let logits = batch.logits(model, pass);
            let own = batch.loss(pass, &logits, weights, scale);
            loss += own;
            own.sum
        });
        let tokens: usize = batches.iter().map(|batch| batch.inputs().tokens()).sum();
        let state = &mut self.state;
        state.step += 1;
        state.updates = self.learner.updates;
        state.train_seconds += update.seconds;
        if !update.updated {
            return self.skip(update.loss_is_finite);
        }
        state.skipped_in_a_row = 0;
        let window = &mut state.window;
        window.loss += loss.sum;
        window.weight += loss.weight;
        window.tokens += tokens as u64;
        window.seconds += update.seconds;
        let (loss, tokens_per_s) = window.means();
        self.pace.add(tokens as u64, update.seconds);
        self.last = (lr, update.grad_norm);
        (self.watch)(&News::Step(StepNews { step: step + 1, steps, loss, tokens_per_s }));
        if (step + 1).is_multiple_of(LOG_EVERY) {
            self.log_rest()?;
            self.state.window = Window::default();
        }
        Ok(())
    }

    /// Logs the steps since the last line, if there are any. At the end of a session they stay in the window: a run that goes on
    /// drops this line and logs them with those that complete their interval, as if it had not stopped.
    fn log_rest(&mut self) -> Result<(), TaskError> {
        if self.state.window.weight == 0.0 {
            return Ok(());
        }
        let (loss, tokens_per_s) = self.state.window.means();
        let (step, (lr, grad_norm)) = (self.state.step, self.last);
        self.log.append(&json!({
            "kind": "train", "step": step, "epoch": self.epoch(), "loss": loss, "lr": lr,
            "grad_norm": grad_norm, "tokens_per_s": tokens_per_s, "seconds": self.state.train_seconds,
        }))?;
        let figures = [("train/loss", loss), ("train/learning_rate", lr), ("speed/tokens_per_s", tokens_per_s)];
        Ok(self.log.scalars(step, &figures)?)
    }

    /// A step whose loss or gradient is not finite: said, counted, and after several in a row the end.
    fn skip(&mut self, loss_is_finite: bool) -> Result<(), TaskError> {
        self.state.skipped_in_a_row += 1;
        let (step, in_a_row) = (self.state.step, self.state.skipped_in_a_row);
        self.tell(skipped(step, loss_is_finite, in_a_row))?;
        if in_a_row < MOST_SKIPPED { Ok(()) } else { Err(TaskError::NotFinite { step }) }
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.steps_per_epoch() as f64
    }

    /// Scores the dev rows; saves the model if it is the best so far.
    fn evaluate(&mut self) -> Result<(), TaskError> {
        if self.asked.dev.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let learner = &self.learner;
        let (device, precision, head) = (learner.device(), learner.precision(), self.asked.task.head());
        let (logits, loss) = outputs_of_model(&learner.model, device, precision, head, &self.dev.examples());
        let (scores, loss) = (self.dev.predict(&logits)?.scores(), loss.mean());
        let epoch = self.epoch();
        let score = scores.main();
        let best = is_better(score, self.state.best.as_ref().map(|best| best.score));
        self.log.append(&json!({
            "kind": "eval", "step": self.state.step, "epoch": epoch, "loss": loss, "scores": scores.to_json(),
            "seconds": self.state.train_seconds, "eval_seconds": began.elapsed().as_secs_f64(), "best": best,
        }))?;
        let names: Vec<String> = scores.values.iter().map(|(name, _)| format!("eval/{name}")).collect();
        let figures: Vec<(&str, f64)> =
            names.iter().map(String::as_str).zip(scores.values.iter().map(|(_, value)| *value)).collect();
        self.log.scalars(self.state.step, &figures)?;
        if best {
            checkpoint::save_model(&self.folder, &self.learner.model, &self.tokenizer)?;
            self.state.best = Some(Best {
                step: self.state.step,
                epoch,
                metric: scores.main_name().to_owned(),
                score,
                scores: scores.to_json(),
                collapsed: scores.collapsed.clone(),
            });
            self.state.worse = 0;
        } else {
            self.state.worse += 1;
        }
        (self.watch)(&News::Eval { epoch, loss, scores, best });
        Ok(())
    }

    /// Saves a checkpoint to go on from; the one before it goes.
    fn save(&mut self) -> Result<(), TaskError> {
        self.log.sync()?;
        let Learner { model, moments, .. } = &self.learner;
        checkpoint::save(&self.folder, self.state.step, model, moments, &self.tokenizer, &self.state)?;
        Ok(checkpoint::prune(&self.folder, 1, None)?)
    }

    fn finish(mut self) -> Result<Outcome, TaskError> {
        if self.state.updates == 0 {
            // Too few steps to end it before, and not one that was finite.
            return Err(TaskError::NotFinite { step: self.state.step });
        }
        if self.is_out_of_patience() {
            let (evals, step) = (self.state.worse, self.state.step);
            self.tell(format!("stopped after step {step}: no better score in {evals} evaluations"))?;
        }
        match &self.state.best {
            None => {
                checkpoint::save_model(&self.folder, &self.learner.model, &self.tokenizer)?;
            }
            Some(best) => {
                let text = serde_json::to_string_pretty(&json!({
                    "best": best, "train_seconds": self.state.train_seconds, "steps": self.state.step,
                    "seed": self.asked.settings.seed,
                }));
                cloze_files::write(
                    &self.folder.root().join("scores.json"),
                    (text.unwrap_or_default() + "\n").as_bytes(),
                )?;
            }
        }
        self.log.sync()?;
        // The run is over: what it could be resumed from is only in the way. Renamed first: a run killed now is over or is not.
        let (checkpoints, aside) = (self.folder.checkpoints(), self.folder.root().join(".checkpoints"));
        let removed = fs::rename(&checkpoints, &aside).and_then(|()| fs::remove_dir_all(&aside));
        removed.map_err(|source| TaskError::io("remove", &checkpoints, source))?;
        Ok(self.outcome(true))
    }

    fn outcome(self, finished: bool) -> Outcome {
        let model = self.folder.model();
        Outcome {
            finished,
            model: model.is_dir().then_some(model),
            best: self.state.best,
            train_seconds: self.state.train_seconds,
            steps: self.state.step,
        }
    }
}

/// Whether a score is the best so far. One that is not a number, such as a correlation with a constant, is worse than any.
pub fn is_better(score: f64, before: Option<f64>) -> bool {
    before.is_none_or(|before| score > before || before.is_nan() && !score.is_nan())
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
    let precision = match settings.precision {
        Precision::Auto => began.precision,
        asked => asked,
    };
    let device = match began.instruction_set.as_deref() {
        Some(name) if name != device.instruction_set() => run_device(Some(device.threads()), None, Some(name))?,
        _ => device.clone(),
    };
    Ok((Settings { precision, ..settings.clone() }, device))
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
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        Ok(cloze_files::write(&Data::path(run), text.as_bytes())?)
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
