//! The pre-training loop: batches, steps, evaluation, logs, checkpoints, interrupts, resuming.
//!
//! A step is a pure function of the weights, the moments, the step's number, which keys dropout, and how many batches of its
//! phase came before. So resuming needs no more than a checkpoint, and gives bit by bit what an uninterrupted run gives (on the clock, with
//! `minutes`, the learning rate follows the time that passed, and no two runs are alike).
//!
//! A run's model/ is written at its end, and where it is interrupted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloze_data::batch::BatchSource;
use cloze_data::prefetch::Prefetch;
use cloze_data::shards::{Shards, Split};
use cloze_data::{DataError, TokenTable};
use cloze_engine::{Device, EngineError};
use cloze_model::{Config, FlopsOf, Heads, LoadReport, Model};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::batch::PretrainBatch;
use crate::checkpoint;
use crate::evaluate::{evaluate, held_out, require_tokenizer};
use crate::progress::{Estimate, News, PhaseEstimate, StepNews};
use crate::recipe::plan::{End, Reached};
use crate::recipe::{Plan, Precision, Recipe};
use crate::run::{EvalLine, EventLine, Line, RunFolder, RunLog, StartLine, TrainLine};
use crate::schedule::Curve;
use crate::step::{Learner, MOST_SKIPPED, Pace, StepOutcome, Window, skipped};

/// Where a run stands: with the weights and moments, all that resuming needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done, skipped ones included: the position in the data.
    pub step: u64,
    /// Optimizer updates done: Adam's t.
    pub updates: u64,
    /// Phase of the last step, from 0.
    pub phase: usize,
    /// Batches learned in each phase: micro-batches, where steps have several. A run that is made longer goes on with the next.
    pub batches: Vec<u64>,
    /// Seconds of training on the clock.
    pub seconds: f64,
    /// Real tokens seen.
    pub tokens: u64,
    /// Steps skipped in a row, up to now.
    pub skipped_in_a_row: u32,
    /// Step of the last evaluation; 0 before the first.
    pub evaluated: u64,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Sums since the last logged line.
    pub window: Window,
    /// What the shards are, to resume on the same.
    pub shards: String,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Its held-out MLM loss.
    pub mlm_loss: f64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the recipe's end was reached; otherwise the run was interrupted and can be resumed.
    pub finished: bool,
    /// What ended it, or would have: steps or time.
    pub end: End,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The final model; none if interrupted: then the run's model/ is that of the last checkpoint.
    pub model: Option<PathBuf>,
    /// The last evaluation of this session.
    pub evaluation: Option<EvalLine>,
}

/// Runs a recipe in a folder, from the start or from the last checkpoint. When `stop` is raised the step is finished and
/// saved. `watch` is told what happens.
///
/// # Errors
/// Anything that [`TrainError`] can say. Checkpoints already saved stay whole.
pub fn pretrain(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&News),
) -> Result<Outcome, TrainError> {
    let mut recipe = with_absolute_paths(recipe)?;
    let device = settle_device(&mut recipe, out, resume)?;
    Run::open(&recipe, device, out, resume, watch)?.train(stop)
}

/// What a run would be.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// How long it takes, by real steps of each phase.
    pub estimate: Estimate,
    /// What will end it.
    pub end: End,
    /// Steps that the run in the folder has done already, if it would go on.
    pub step: u64,
    /// The device in words.
    pub machine: String,
    /// `bf16` or `f32`.
    pub precision: String,
    /// Why this instruction set and this type, in words.
    pub reason: String,
    /// Weights of the model.
    pub parameters: usize,
    /// Tokens of the training shards.
    pub corpus_tokens: u64,
    /// What the run would say before its first step.
    pub messages: Vec<String>,
}

/// Seconds of steps by which a dry run judges a phase, if one step is not longer.
const MEASURED_SECONDS: f64 = 1.5;

/// Checks everything that [`pretrain`] checks, measures some steps of each phase and says how long the run would take. Nothing is
/// written. The memory that the process then has held is what the run needs. None if `stop` was raised.
///
/// # Errors
/// Those of `pretrain` before its first step.
pub fn dry_run(recipe: &Recipe, out: &Path, resume: bool, stop: &AtomicBool) -> Result<Option<DryRun>, TrainError> {
    let mut recipe = with_absolute_paths(recipe)?;
    let device = settle_device(&mut recipe, out, resume)?;
    let (recipe, folder) = (&recipe, RunFolder::new(out));
    let Inputs { shards, tokenizer, mut messages } = Inputs::open(recipe)?;
    let mut newest = None;
    if resume {
        folder.check_resumed(recipe)?;
        newest = checkpoint::list(&folder)?.pop();
    } else {
        folder.check_new()?;
    }
    let (mut learner, state) = match &newest {
        Some((_, path)) => resumed(path, recipe, &shards, &device)?,
        None => {
            let (model, adopted) = first_model(recipe, &shards, &tokenizer, &device)?;
            messages.extend(adopted.notes());
            (learner(model, recipe, &device), State::default())
        }
    };
    let stopped = || stop.load(Ordering::Relaxed);
    let mut costs = Vec::new();
    for (number, phase) in recipe.phase.iter().enumerate() {
        let source = phase_source(recipe, &shards, &tokenizer, number)?;
        let micro = [0, 1].map(|index| PretrainBatch::from(source.batch(index)));
        let (batch, tokens) = (&micro[..1], micro[0].inputs.tokens() as f64);
        // The first step touches its memory for the first time.
        let mut seconds = learner.step(batch, 0, 0.0).seconds;
        let (mut steps, mut sum) = (0, 0.0);
        while !stopped() && sum < MEASURED_SECONDS && seconds < 10.0 * MEASURED_SECONDS {
            sum += learner.step(batch, 0, 0.0).seconds;
            steps += 1;
            seconds = sum / f64::from(steps);
        }
        if stopped() {
            return Ok(None);
        }
        let count = f64::from(phase.accumulate);
        if phase.accumulate > 1 {
            // What a micro-batch adds: the optimizer's part of a step comes once.
            let more = learner.step(&micro, 0, 0.0).seconds - seconds;
            seconds += (count - 1.0) * more.clamp(0.5 * seconds, seconds);
            if stopped() {
                return Ok(None);
            }
        }
        costs.push(Cost { tokens: count * tokens, seconds });
    }
    let estimate = estimate(recipe, state.step, state.seconds, &costs);
    let last = (state.step + estimate.steps().round() as u64, state.seconds + estimate.seconds);
    Ok(Some(DryRun {
        end: recipe.plan().end(last.0, last.1),
        estimate,
        step: state.step,
        machine: device.describe(),
        precision: recipe.precision.name().to_owned(),
        reason: device.explain(learner.precision()),
        parameters: learner.model.parameter_count(),
        corpus_tokens: shards.split(Split::Train).tokens(),
        messages,
    }))
}

/// A run must be resumable from another folder.
fn with_absolute_paths(recipe: &Recipe) -> Result<Recipe, TrainError> {
    let mut recipe = recipe.clone();
    for path in std::iter::once(&mut recipe.data).chain(&mut recipe.model.init) {
        *path = std::path::absolute(&*path).map_err(|e| TrainError::io("find", path, e))?;
    }
    Ok(recipe)
}

/// The device of a run. The recipe then says what was chosen for it: a run that is resumed computes as it began.
fn settle_device(recipe: &mut Recipe, out: &Path, resume: bool) -> Result<Device, TrainError> {
    let path = RunFolder::new(out).recipe();
    let began = if resume && path.is_file() { Some(Recipe::open_unchecked(&path)?) } else { None };
    let began_at = began.as_ref().and_then(|began| began.instruction_set.as_deref());
    let device = run_device(recipe.threads, recipe.instruction_set.as_deref(), began_at)?;
    if let (Precision::Auto, Some(began)) = (recipe.precision, began) {
        recipe.precision = began.precision;
    }
    recipe.precision = recipe.precision.resolved(&device);
    recipe.instruction_set = Some(device.instruction_set().to_owned());
    Ok(device)
}

/// A device at the requested instruction set; else at the one that a run began with, where this machine has it; else at the
/// fastest. `CLOZE_CPU` comes first.
///
/// # Errors
/// A requested instruction set that is unknown, or that this machine lacks; a number of threads out of range.
pub fn run_device(threads: Option<usize>, asked: Option<&str>, began: Option<&str>) -> Result<Device, EngineError> {
    match (asked, began) {
        (Some(name), _) => Device::cpu_at(threads, name),
        (None, Some(name)) => match Device::cpu_at(threads, name) {
            Err(EngineError::UnavailableLevel { .. }) => Device::cpu(threads),
            device => device,
        },
        (None, None) => Device::cpu(threads),
    }
}

/// What a step of a phase costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Real tokens.
    tokens: f64,
    seconds: f64,
}

/// What the rest of a run takes, by what a step of each phase costs.
fn estimate(recipe: &Recipe, step: u64, seconds: f64, costs: &[Cost]) -> Estimate {
    let plan = recipe.plan();
    let step_seconds: Vec<f64> = costs.iter().map(|cost| cost.seconds).collect();
    let ahead = plan.ahead(step, seconds, &step_seconds);
    let phases: Vec<PhaseEstimate> = ahead
        .iter()
        .zip(costs)
        .zip(&recipe.phase)
        .map(|((&(steps, seconds), cost), phase)| PhaseEstimate {
            seq_len: phase.seq_len,
            step_tokens: cost.tokens,
            step_seconds: cost.seconds,
            steps,
            seconds,
        })
        .collect();
    let mut sum: f64 = phases.iter().map(|phase| phase.seconds).sum();
    if plan.total_seconds().is_none() {
        // An evaluation batch is a micro-batch forward alone: a third of the work. By the clock its time is the run's own.
        let steps: f64 = phases.iter().map(|phase| phase.steps).sum();
        let count = |step, seconds| recipe.eval.every.count(plan.reached(step, seconds));
        let evaluations = count(step + steps as u64, seconds + sum) - count(step, seconds);
        let longest = phases.iter().zip(&recipe.phase).max_by(|(a, _), (b, _)| a.seconds.total_cmp(&b.seconds));
        let batch = longest.map_or(0.0, |(cost, phase)| cost.step_seconds / f64::from(phase.accumulate) / 3.0);
        sum += evaluations as f64 * recipe.eval.batches as f64 * batch;
    }
    Estimate { phases, seconds: sum }
}

/// A run in progress.
struct Run<'a> {
    recipe: &'a Recipe,
    plan: Plan,
    curve: Curve,
    folder: RunFolder,
    _lock: File,
    shards: Shards,
    tokenizer: Tokenizer,
    learner: Learner,
    state: State,
    log: RunLog,
    watch: &'a mut dyn FnMut(&News),
    /// FLOP/s of the device's matrix unit.
    peak: f64,
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// The evaluation batches of a phase.
    held_out: Option<(usize, BatchSource)>,
    evaluation: Option<EvalLine>,
    /// The last step whose figures are in the log.
    logged: Option<u64>,
    /// Seconds of the last step of each phase; 0 where none is known.
    step_seconds: Vec<f64>,
}

/// What a run works on, checked.
struct Inputs {
    shards: Shards,
    tokenizer: Tokenizer,
    messages: Vec<String>,
}

impl Inputs {
    fn open(recipe: &Recipe) -> Result<Inputs, TrainError> {
        let shards = Shards::open(&recipe.data)?;
        let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
        shards.check_tokenizer(&tokenizer.fingerprint())?;
        let evaluates = !recipe.eval.every.is_never();
        if evaluates && shards.split(Split::Valid).tokens() == 0 {
            return Err(TrainError::NoHeldOut(recipe.data.clone()));
        }
        let mut messages = Vec::new();
        // What a phase's documents cannot give is said now, not when the phase begins.
        for phase in 0..recipe.phase.len() {
            phase_source(recipe, &shards, &tokenizer, phase)?;
            if evaluates {
                let source = phase_held_out(recipe, &shards, &tokenizer, phase)?;
                if recipe.objective.nsp && !source.options().nsp && messages.is_empty() {
                    messages.push(
                        "the held-out documents give no sentence pairs (too few, or of one sentence each): evaluations \
                         score masked tokens alone"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(Inputs { shards, tokenizer, messages })
    }
}

/// A model with what it needs to learn as a recipe says.
fn learner(mut model: Model, recipe: &Recipe, device: &Device) -> Learner {
    model.freeze_unused_heads(heads_of(recipe));
    let mut learner = Learner::new(model, device, recipe.precision.dtype(device), &recipe.optimizer, recipe.seed);
    learner.recompute = recipe.recompute;
    learner
}

/// A checkpoint's model with its moments, and where its run stood: on the same shards.
fn resumed(path: &Path, recipe: &Recipe, shards: &Shards, device: &Device) -> Result<(Learner, State), TrainError> {
    let loaded = checkpoint::load::<State>(path, device)?;
    let (expected, found) = (&loaded.state.shards, fingerprint(shards));
    if *expected != found {
        return Err(TrainError::OtherShards { path: recipe.data.clone(), expected: expected.clone(), found });
    }
    let mut learner = learner(loaded.model, recipe, device);
    learner.moments = loaded.moments;
    learner.updates = loaded.state.updates;
    Ok((learner, loaded.state))
}

impl<'a> Run<'a> {
    /// Everything up to the first step. What can be found wrong is found before the run's folder is touched.
    fn open(
        recipe: &'a Recipe,
        device: Device,
        out: &Path,
        resume: bool,
        watch: &'a mut dyn FnMut(&News),
    ) -> Result<Run<'a>, TrainError> {
        let Inputs { shards, tokenizer, mut messages } = Inputs::open(recipe)?;
        let folder = RunFolder::new(out);
        let (mut lock, mut newest) = (None, None);
        if resume && folder.recipe().is_file() {
            lock = Some(folder.lock()?);
            checkpoint::remove_stale(&folder)?;
            newest = checkpoint::list(&folder)?.pop();
        }
        let (learner, mut state) = match &newest {
            Some((_, path)) => resumed(path, recipe, &shards, &device)?,
            None => {
                let (model, adopted) = first_model(recipe, &shards, &tokenizer, &device)?;
                let batches = vec![0; recipe.phase.len()];
                let state = State { shards: fingerprint(&shards), batches, ..State::default() };
                messages.extend(adopted.notes());
                (learner(model, recipe, &device), state)
            }
        };
        let changed = folder.begin(recipe, resume)?;
        if !changed.is_empty() {
            messages.push(format!("resumed with other values of {}", changed.join(", ")));
        }
        let lock = lock.map_or_else(|| folder.lock(), Ok)?;
        // A run killed right after it saved had not pointed at its best yet; a best that was removed by hand is none.
        match state.best {
            Some(best) if checkpoint::path_of(&folder, best.step).is_dir() => {
                checkpoint::mark_best(&folder, best.step)?
            }
            _ => state.best = None,
        }
        let log = RunLog::open(&folder, state.step, !state.window.is_empty())?;
        let mut run = Run {
            plan: recipe.plan(),
            curve: Curve::new(recipe),
            peak: device.matrix_peak(recipe.precision.dtype(&device)),
            saved: newest.map(|(step, _)| step),
            held_out: None,
            evaluation: None,
            logged: None,
            step_seconds: vec![0.0; recipe.phase.len()],
            recipe,
            folder,
            _lock: lock,
            shards,
            tokenizer,
            learner,
            state,
            log,
            watch,
        };
        run.announce(messages)?;
        Ok(run)
    }

    fn announce(&mut self, messages: Vec<String>) -> Result<(), TrainError> {
        let device = self.learner.device();
        let start = StartLine {
            step: self.state.step,
            machine: device.describe(),
            precision: self.recipe.precision.name().to_owned(),
            reason: device.explain(self.learner.precision()),
            threads: device.threads(),
            peak_gflops: self.peak / 1e9,
            parameters: self.learner.model.parameter_count(),
            corpus_tokens: self.shards.split(Split::Train).tokens(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.log.write(&Line::Start(start.clone()))?;
        (self.watch)(&News::Start(start));
        messages.into_iter().try_for_each(|message| self.tell(message))
    }

    fn tell(&mut self, message: String) -> Result<(), TrainError> {
        self.log.write(&Line::Event(EventLine { step: self.state.step, message: message.clone() }))?;
        (self.watch)(&News::Message(message));
        Ok(())
    }

    /// The loop.
    fn train(mut self, stop: &AtomicBool) -> Result<Outcome, TrainError> {
        let session = Instant::now();
        let (seconds_before, progress_before) = (self.state.seconds, self.progress());
        let mut ahead: Option<(usize, Prefetch)> = None;
        let mut last_step_seconds = 0.0;
        // Evaluation and saving take time too: intervals that end meanwhile are due after the next step.
        let mut reached = self.reached();
        let mut pace = Some(Pace::default());
        while !self.is_over() {
            let phase = self.plan.phase_at(self.state.step, self.state.seconds);
            self.state.phase = phase;
            if ahead.as_ref().is_none_or(|(p, _)| *p != phase) {
                ahead = Some((phase, self.start_batches(phase)?));
                // Another phase's steps have another pace.
                pace = pace.map(|_| Pace::default());
            }
            let Some((_, batches)) = &mut ahead else {
                continue;
            };
            let count = self.recipe.phase[phase].accumulate;
            let batches: Vec<PretrainBatch> = (0..count).map(|_| batches.next().into()).collect();
            self.state.batches[phase] += u64::from(count);

            let step = self.state.step;
            let after = self.plan.progress(step + 1, self.state.seconds + last_step_seconds);
            let lr = self.recipe.optimizer.lr * self.curve.share(self.progress(), after);
            let outcome = self.learner.step(&batches, step, lr);

            last_step_seconds = outcome.seconds;
            self.step_seconds[phase] = outcome.seconds;
            self.state.step += 1;
            self.state.updates = self.learner.updates;
            self.state.tokens += outcome.tokens;
            self.state.seconds = seconds_before + session.elapsed().as_secs_f64();
            self.state.window.add(&outcome, lr);
            if outcome.updated {
                self.state.skipped_in_a_row = 0;
            } else {
                self.skip(&outcome)?;
            }
            let figures = self.figures();
            let before = std::mem::replace(&mut reached, self.reached());
            let session_seconds = self.state.seconds - seconds_before;
            (self.watch)(&News::Step(StepNews {
                figures: figures.clone(),
                end: self.plan.end(self.state.step, self.state.seconds),
                progress: reached.progress,
                seconds_left: self.plan.seconds_left(progress_before, reached.progress, session_seconds),
            }));
            if let Some(steps) = &mut pace {
                steps.add(1, outcome.seconds);
                if let Some(rate) = steps.per_second(false) {
                    pace = None;
                    self.estimate(phase, 1.0 / rate)?;
                }
            }
            if self.recipe.log.every.is_due(before, reached) && !self.state.window.is_empty() {
                self.log(figures)?;
                self.state.window = Window::default();
            }
            let improved = self.recipe.eval.every.is_due(before, reached) && self.evaluate()?;
            // While steps are skipped the weights are suspect: they must not push a good checkpoint out.
            let sound = self.state.skipped_in_a_row == 0;
            if improved || sound && self.recipe.checkpoint.every.is_due(before, reached) {
                self.save()?;
            }
            if stop.load(Ordering::Relaxed) && !self.is_over() {
                return self.interrupted();
            }
            // Evaluation and saving count on the clock.
            self.state.seconds = seconds_before + session.elapsed().as_secs_f64();
        }
        self.finish()
    }

    fn reached(&self) -> Reached {
        self.plan.reached(self.state.step, self.state.seconds)
    }

    fn progress(&self) -> f64 {
        self.reached().progress
    }

    /// Whether the run is over: also where the time that is left is less than half of what the next step would take.
    fn is_over(&self) -> bool {
        let (step, seconds) = (self.state.step, self.state.seconds);
        let next = self.step_seconds[self.plan.phase_at(step, seconds)];
        self.plan.is_over(step, seconds) || self.plan.total_seconds().is_some_and(|all| all - seconds < 0.5 * next)
    }

    /// Says how long the run will take, by what a step of this phase takes; those of later phases by their work.
    fn estimate(&mut self, phase: usize, seconds: f64) -> Result<(), TrainError> {
        let mut costs = vec![Cost { tokens: 0.0, seconds: 0.0 }; self.recipe.phase.len()];
        let mut rate = 0.0;
        for (number, cost) in costs.iter_mut().enumerate().skip(phase) {
            let batch = phase_source(self.recipe, &self.shards, &self.tokenizer, number)?.batch(0);
            let PretrainBatch { inputs, labels } = batch.into();
            let count = f64::from(self.recipe.phase[number].accumulate);
            let flops = count * self.learner.model.useful_flops(&inputs, &labels, FlopsOf::ForwardBackward);
            if number == phase {
                rate = flops / seconds.max(f64::MIN_POSITIVE);
            }
            *cost = Cost { tokens: count * inputs.tokens() as f64, seconds: flops / rate };
            if self.step_seconds[number] == 0.0 {
                self.step_seconds[number] = cost.seconds;
            }
        }
        let estimate = estimate(self.recipe, self.state.step, self.state.seconds, &costs);
        (self.watch)(&News::Estimate(estimate));
        Ok(())
    }

    /// The batches of a phase that are not learned yet, made ready in a thread of their own.
    fn start_batches(&self, phase: usize) -> Result<Prefetch, TrainError> {
        let source = phase_source(self.recipe, &self.shards, &self.tokenizer, phase)?;
        let accumulate = self.recipe.phase[phase].accumulate;
        Ok(Prefetch::start(Arc::new(source), self.state.batches[phase], accumulate as usize + 2))
    }

    /// Means since the last logged line.
    fn figures(&mut self) -> TrainLine {
        let device = self.learner.device();
        let means = self.state.window.means(&mut self.peak, || device.matrix_peak(self.learner.precision()));
        TrainLine {
            step: self.state.step,
            tokens: self.state.tokens,
            seconds: self.state.seconds,
            phase: self.state.phase,
            ..means
        }
    }

    fn log(&mut self, figures: TrainLine) -> Result<(), TrainError> {
        self.logged = Some(figures.step);
        self.log.write(&Line::Train(figures))
    }

    /// Logs the steps since the last line where a session ends. They stay in the window: a run that goes on drops this line and
    /// logs them with those that complete their interval, as if it had not stopped.
    fn log_rest(&mut self) -> Result<(), TrainError> {
        if self.state.window.is_empty() || self.logged == Some(self.state.step) {
            return Ok(());
        }
        let figures = self.figures();
        self.log(figures)
    }

    /// A step whose loss or gradient is not finite: said, counted, and after several in a row the end.
    fn skip(&mut self, outcome: &StepOutcome) -> Result<(), TrainError> {
        self.state.skipped_in_a_row += 1;
        let (step, in_a_row) = (self.state.step, self.state.skipped_in_a_row);
        self.tell(skipped(step, outcome.loss().is_finite(), in_a_row))?;
        if in_a_row < MOST_SKIPPED {
            return Ok(());
        }
        Err(TrainError::NotFinite {
            step,
            in_a_row,
            checkpoint: self.saved.map(|step| checkpoint::path_of(&self.folder, step)),
        })
    }

    /// Scores the held-out shards; whether this is the best so far.
    fn evaluate(&mut self) -> Result<bool, TrainError> {
        let phase = self.state.phase;
        if self.held_out.as_ref().is_none_or(|(p, _)| *p != phase) {
            let source = phase_held_out(self.recipe, &self.shards, &self.tokenizer, phase)?;
            self.held_out = Some((phase, source));
        }
        let Some((_, source)) = &self.held_out else {
            return Ok(false);
        };
        let scores = evaluate(
            &self.learner.model,
            self.learner.device(),
            self.recipe.precision,
            source,
            Some(self.recipe.eval.batches),
            |_| (),
        );
        let line = EvalLine {
            step: self.state.step,
            seconds: self.state.seconds,
            mlm_loss: scores.mlm_loss,
            mlm_perplexity: scores.mlm_perplexity,
            mlm_accuracy: scores.mlm_accuracy,
            nsp_loss: scores.nsp_loss,
            nsp_accuracy: scores.nsp_accuracy,
        };
        self.log.write(&Line::Eval(line.clone()))?;
        (self.watch)(&News::Eval(line.clone()));
        self.evaluation = Some(line);
        self.state.evaluated = self.state.step;
        let best = self.state.best.map_or(f64::INFINITY, |b| b.mlm_loss);
        let improved = scores.mlm_loss < best;
        if improved {
            self.state.best = Some(Best { step: self.state.step, mlm_loss: scores.mlm_loss });
        }
        Ok(improved)
    }

    /// Saves a checkpoint of this step, and says so, unless it is saved.
    fn save(&mut self) -> Result<PathBuf, TrainError> {
        let step = self.state.step;
        let is_new = self.saved != Some(step);
        let path = self.write_checkpoint()?;
        if is_new {
            (self.watch)(&News::Saved { step, path: path.clone() });
        }
        Ok(path)
    }

    /// Saves a checkpoint of this step, unless it is saved; keeps the newest and the best.
    fn write_checkpoint(&mut self) -> Result<PathBuf, TrainError> {
        let path = checkpoint::path_of(&self.folder, self.state.step);
        if self.saved == Some(self.state.step) {
            return Ok(path);
        }
        self.log.sync()?;
        let Learner { model, moments, .. } = &self.learner;
        checkpoint::save(&self.folder, self.state.step, model, moments, &self.tokenizer, &self.state)?;
        self.saved = Some(self.state.step);
        let best = self.state.best.map(|b| b.step);
        if best == Some(self.state.step) {
            checkpoint::mark_best(&self.folder, self.state.step)?;
        }
        checkpoint::prune(&self.folder, self.recipe.checkpoint.keep, best)?;
        Ok(path)
    }

    fn interrupted(mut self) -> Result<Outcome, TrainError> {
        self.log_rest()?;
        let message = format!("interrupted after step {}; go on with the same command and --resume", self.state.step);
        self.log.write(&Line::Event(EventLine { step: self.state.step, message }))?;
        let checkpoint = self.write_checkpoint()?;
        checkpoint::save_model(&self.folder, &self.learner.model, &self.tokenizer)?;
        Ok(self.outcome(checkpoint, None))
    }

    fn finish(mut self) -> Result<Outcome, TrainError> {
        self.log_rest()?;
        let (step, evaluated) = (self.state.step, self.state.evaluated);
        if !self.recipe.eval.every.is_never() && step > evaluated {
            self.evaluate()?;
            // The checkpoint of this step, if there is one, does not know of it.
            self.saved = None;
        }
        // Also where this session took no step: the run may have been interrupted before, or the line above is new.
        self.log.write(&Line::Event(EventLine { step, message: format!("finished after step {step}") }))?;
        // The last step may have ended a little early: resumed, the run is over.
        if let End::Seconds(all) = self.plan.end(step, self.state.seconds)
            && self.state.seconds < all
        {
            self.state.seconds = all;
            self.saved = None;
        }
        let checkpoint = self.save()?;
        let model = checkpoint::save_model(&self.folder, &self.learner.model, &self.tokenizer)?;
        Ok(self.outcome(checkpoint, Some(model)))
    }

    fn outcome(self, checkpoint: PathBuf, model: Option<PathBuf>) -> Outcome {
        Outcome {
            step: self.state.step,
            finished: model.is_some(),
            end: self.plan.end(self.state.step, self.state.seconds),
            checkpoint,
            model,
            evaluation: self.evaluation,
        }
    }
}

/// The model that a run starts from: fresh by the recipe's sizes, or a checkpoint. Heads that the objective needs and the checkpoint
/// lacks are new.
fn first_model(
    recipe: &Recipe,
    shards: &Shards,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<(Model, LoadReport), TrainError> {
    let Some(init) = &recipe.model.init else {
        let json = recipe.model.config_json(tokenizer.vocab_size(), tokenizer.special().pad);
        let config: Config = serde_json::from_value(json)
            .map_err(|e| TrainError::Recipe { place: "recipe, [model]".into(), message: e.to_string() })?;
        return Ok((Model::new(config, heads_of(recipe), device, recipe.seed)?, LoadReport::default()));
    };
    require_tokenizer(shards, init, &Tokenizer::open(init)?)?;
    let mut model = Model::load(init, device)?;
    let mut adopted = LoadReport::default();
    let nsp = recipe.objective.nsp;
    if !model.heads.mlm || (nsp && !model.heads.nsp) {
        let Heads { pooler, nsp: had, .. } = model.heads;
        let heads = Heads { pooler: pooler || nsp, nsp: had || nsp, ..Heads::MLM };
        (model, adopted) = Model::load_with(init, heads, device, recipe.seed)?;
    }
    model.check_vocabulary(init, tokenizer.vocab_size())?;
    recipe.check_fit(model.architecture().longest_sequence(), model.architecture().segments)?;
    let (dropouts, config) = (&recipe.model, model.config());
    let hidden = dropouts.hidden_dropout_prob.unwrap_or(config.hidden_dropout_prob);
    let attention = dropouts.attention_probs_dropout_prob.unwrap_or(config.attention_probs_dropout_prob);
    model.set_dropout(hidden, attention)?;
    Ok((model, adopted))
}

/// The heads that the objective trains.
fn heads_of(recipe: &Recipe) -> Heads {
    if recipe.objective.nsp { Heads::PRETRAINING } else { Heads::MLM }
}

/// The batches of a phase.
fn phase_source(
    recipe: &Recipe,
    shards: &Shards,
    tokenizer: &Tokenizer,
    phase: usize,
) -> Result<BatchSource, TrainError> {
    let documents = shards.split(Split::Train).clone();
    Ok(BatchSource::new(documents, TokenTable::from(tokenizer), recipe.batch_options(phase))?)
}

/// The batches that a phase is evaluated on: without sentence pairs where the held-out documents give none, as one alone does.
fn phase_held_out(
    recipe: &Recipe,
    shards: &Shards,
    tokenizer: &Tokenizer,
    phase: usize,
) -> Result<BatchSource, TrainError> {
    let (documents, table) = (shards.split(Split::Valid), TokenTable::from(tokenizer));
    let options = recipe.batch_options(phase).fitting(documents, &table);
    held_out(documents, table, options).map_err(|e| match e {
        TrainError::Data(DataError::Sampling { reason }) => {
            let reason = format!("the held-out split: {reason}; or set eval.every = 0");
            TrainError::Data(DataError::Sampling { reason })
        }
        other => other,
    })
}

/// What the shards are, wherever they lie: their tokenizer and every file's checksum.
fn fingerprint(shards: &Shards) -> String {
    let splits = serde_json::to_vec(&shards.manifest.splits).unwrap_or_default();
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(shards.manifest.tokenizer.fingerprint.as_bytes());
    hash.update(&splits);
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Every, Phase};

    /// The steps of the longest phase were divided by the micro-batches of the first.
    #[test]
    fn evaluations_are_estimated_by_the_micro_batches_of_the_longest_phase() {
        let phase = |share, accumulate| Phase { share: Some(share), accumulate, ..Phase::default() };
        let mut recipe = Recipe { steps: Some(100), phase: vec![phase(0.5, 1), phase(0.5, 8)], ..Recipe::default() };
        recipe.eval.every = Every::Steps(10);
        recipe.eval.batches = 6;
        let costs = [Cost { tokens: 100.0, seconds: 1.0 }, Cost { tokens: 800.0, seconds: 8.0 }];
        // A micro-batch takes a second in both phases: 10 evaluations of 6 batches, each a third of it.
        assert!((estimate(&recipe, 0, 0.0, &costs).seconds - (50.0 + 400.0 + 20.0)).abs() < 1e-9);
    }
}
