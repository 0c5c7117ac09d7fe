//! The pre-training loop: batches, steps, evaluation, logs, checkpoints, interrupts, resuming.
//!
//! A step is a pure function of the weights, the moments, the step's number, which keys dropout, and how many batches of its
//! phase came before. So resuming needs no more than a checkpoint, and gives bit by bit what an uninterrupted run gives (on the clock, with
//! `minutes`, the learning rate follows the time that passed, and no two runs are alike).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloze_data::batch::{Batch, BatchSource};
use cloze_data::prefetch::Prefetch;
use cloze_data::shards::{Shards, Split};
use cloze_data::{DataError, TokenTable};
use cloze_engine::{Device, EngineError};
use cloze_model::{Adopted, Config, Heads, Model};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::checkpoint;
use crate::evaluate::{evaluate, held_out, require_tokenizer};
use crate::progress::{News, StepNews};
use crate::recipe::{Plan, Precision, Recipe};
use crate::run::{EvalLine, EventLine, Line, RunFolder, RunLog, StartLine, TrainLine};
use crate::schedule::Curve;
use crate::step::{Learner, MOST_SKIPPED, Window, skipped};

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
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The final model; none if interrupted.
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
    let mut recipe = recipe.clone();
    // A run must be resumable from another folder.
    for path in std::iter::once(&mut recipe.data).chain(&mut recipe.model.init) {
        *path = std::path::absolute(&*path).map_err(|e| TrainError::io("find", path, e))?;
    }
    let device = settle_device(&mut recipe, out, resume)?;
    Run::open(&recipe, device, out, resume, watch)?.train(stop)
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

/// A device at the instruction set asked for; else at the one that a run began with, where this machine has it; else at the
/// fastest. `CLOZE_CPU` comes first.
///
/// # Errors
/// An instruction set asked for that is unknown, or that this machine lacks; a number of threads out of range.
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
        let shards = Shards::open(&recipe.data)?;
        let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
        shards.check_tokenizer(&tokenizer.fingerprint())?;
        if recipe.eval.every > 0 && shards.split(Split::Valid).tokens() == 0 {
            return Err(TrainError::NoHeldOut(recipe.data.clone()));
        }
        // What a phase's documents cannot give is said now, not when the phase begins.
        for phase in 0..recipe.phase.len() {
            phase_source(recipe, &shards, &tokenizer, phase)?;
            if recipe.eval.every > 0 {
                phase_held_out(recipe, &shards, &tokenizer, phase)?;
            }
        }
        let fingerprint = fingerprint(&shards);
        let folder = RunFolder::new(out);
        let (mut lock, mut newest) = (None, None);
        if resume && folder.recipe().is_file() {
            lock = Some(folder.lock()?);
            checkpoint::remove_stale(&folder)?;
            newest = checkpoint::list(&folder)?.pop();
        }
        let precision = recipe.precision.dtype(&device);
        let learner = |mut model: Model| {
            rest_what_is_not_trained(&mut model, recipe);
            let mut learner = Learner::new(model, &device, precision, &recipe.optimizer, recipe.seed);
            learner.recompute = recipe.recompute;
            learner
        };
        let (learner, mut state, mut messages) = match &newest {
            Some((_, path)) => {
                let loaded = checkpoint::load::<State>(path, &device)?;
                if loaded.state.shards != fingerprint {
                    return Err(TrainError::OtherShards {
                        path: recipe.data.clone(),
                        expected: loaded.state.shards,
                        found: fingerprint,
                    });
                }
                let mut learner = learner(loaded.model);
                learner.moments = loaded.moments;
                learner.updates = loaded.state.updates;
                (learner, loaded.state, Vec::new())
            }
            None => {
                let (model, adopted) = first_model(recipe, &shards, &tokenizer, &device)?;
                let batches = vec![0; recipe.phase.len()];
                let state = State { shards: fingerprint, batches, ..State::default() };
                (learner(model), state, adopted.notes())
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
        let log = RunLog::open(&folder, state.step)?;
        let mut run = Run {
            plan: recipe.plan(),
            curve: Curve::new(recipe),
            peak: device.matrix_peak(precision),
            saved: newest.map(|(step, _)| step),
            held_out: None,
            evaluation: None,
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
        while !self.plan.is_over(self.state.step, self.state.seconds) {
            let phase = self.plan.phase_at(self.state.step, self.state.seconds);
            self.state.phase = phase;
            if ahead.as_ref().is_none_or(|(p, _)| *p != phase) {
                ahead = Some((phase, self.start_batches(phase)?));
            }
            let Some((_, batches)) = &mut ahead else {
                continue;
            };
            let count = self.recipe.phase[phase].accumulate;
            let batches: Vec<Batch> = (0..count).map(|_| batches.next()).collect();
            self.state.batches[phase] += u64::from(count);

            let step = self.state.step;
            let after = self.plan.progress(step + 1, self.state.seconds + last_step_seconds);
            let lr = self.recipe.optimizer.lr * self.curve.share(self.progress(), after);
            let outcome = self.learner.step(&batches, step, lr);

            last_step_seconds = outcome.seconds;
            self.state.step += 1;
            self.state.updates = self.learner.updates;
            self.state.tokens += outcome.tokens;
            self.state.seconds = seconds_before + session.elapsed().as_secs_f64();
            self.state.window.add(&outcome);
            if outcome.updated {
                self.state.skipped_in_a_row = 0;
            } else {
                self.skip(&outcome)?;
            }
            let figures = self.figures(lr);
            let done = self.progress();
            let session_seconds = self.state.seconds - seconds_before;
            (self.watch)(&News::Step(StepNews {
                figures: figures.clone(),
                total_steps: self.plan.total_steps(),
                progress: done,
                seconds_left: self.plan.seconds_left(progress_before, done, session_seconds),
            }));
            if self.is_due(self.recipe.log.every) && !self.state.window.is_empty() {
                self.log.write(&Line::Train(figures))?;
                self.state.window = Window::default();
            }
            let improved = self.is_due(self.recipe.eval.every) && self.evaluate()?;
            // While steps are skipped the weights are suspect: they must not push a good checkpoint out.
            let sound = self.state.skipped_in_a_row == 0;
            if improved || sound && self.is_due(self.recipe.checkpoint.every) {
                self.save()?;
            }
            if stop.load(Ordering::Relaxed) && !self.plan.is_over(self.state.step, self.state.seconds) {
                return self.interrupted();
            }
            // Evaluation and saving count on the clock.
            self.state.seconds = seconds_before + session.elapsed().as_secs_f64();
        }
        self.finish()
    }

    fn progress(&self) -> f64 {
        self.plan.progress(self.state.step, self.state.seconds)
    }

    fn is_due(&self, every: u64) -> bool {
        every > 0 && self.state.step.is_multiple_of(every)
    }

    /// The batches of a phase that are not learned yet, made ready in a thread of their own.
    fn start_batches(&self, phase: usize) -> Result<Prefetch, TrainError> {
        let source = phase_source(self.recipe, &self.shards, &self.tokenizer, phase)?;
        let accumulate = self.recipe.phase[phase].accumulate;
        Ok(Prefetch::start(Arc::new(source), self.state.batches[phase], accumulate as usize + 2))
    }

    fn figures(&mut self, lr: f64) -> TrainLine {
        let device = self.learner.device();
        let means = self.state.window.means(&mut self.peak, || device.matrix_peak(self.learner.precision()));
        TrainLine {
            step: self.state.step,
            tokens: self.state.tokens,
            seconds: self.state.seconds,
            lr,
            phase: self.state.phase,
            ..means
        }
    }

    /// A step whose loss or gradient is not finite: said, counted, and after several in a row the end.
    fn skip(&mut self, outcome: &crate::step::StepOutcome) -> Result<(), TrainError> {
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

    /// Saves a checkpoint of this step, unless it is saved; keeps the newest and the best.
    fn save(&mut self) -> Result<PathBuf, TrainError> {
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
        (self.watch)(&News::Saved { step: self.state.step, path: path.clone() });
        Ok(path)
    }

    fn interrupted(mut self) -> Result<Outcome, TrainError> {
        let checkpoint = self.save()?;
        self.tell(format!(
            "interrupted after step {}; saved {}; go on with the same command and --resume",
            self.state.step,
            checkpoint.display()
        ))?;
        Ok(Outcome { step: self.state.step, finished: false, checkpoint, model: None, evaluation: self.evaluation })
    }

    fn finish(mut self) -> Result<Outcome, TrainError> {
        let (step, evaluated) = (self.state.step, self.state.evaluated);
        if self.recipe.eval.every > 0 && step > evaluated {
            self.evaluate()?;
            // The checkpoint of this step, if there is one, does not know of it.
            self.saved = None;
        }
        let checkpoint = self.save()?;
        let model = checkpoint::save_model(&self.folder, &self.learner.model, &self.tokenizer)?;
        Ok(Outcome { step, finished: true, checkpoint, model: Some(model), evaluation: self.evaluation })
    }
}

/// The model that a run starts from: fresh by the recipe's sizes, or a checkpoint. Heads that the objective needs and the checkpoint
/// lacks are new.
fn first_model(
    recipe: &Recipe,
    shards: &Shards,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<(Model, Adopted), TrainError> {
    let Some(init) = &recipe.model.init else {
        let json = recipe.model.config_json(tokenizer.vocab_size(), tokenizer.special().pad);
        let config: Config = serde_json::from_value(json)
            .map_err(|e| TrainError::Recipe { place: "recipe, [model]".into(), message: e.to_string() })?;
        let heads = match recipe.objective.nsp {
            true => Heads::PRETRAINING,
            false => Heads::MLM,
        };
        return Ok((Model::new(config, heads, device, recipe.seed)?, Adopted::default()));
    };
    require_tokenizer(shards, init, &Tokenizer::open(init)?)?;
    let mut model = Model::load(init, device)?;
    let mut adopted = Adopted::default();
    let nsp = recipe.objective.nsp;
    if !model.heads.mlm || (nsp && !model.heads.nsp) {
        let Heads { pooler, nsp: had, .. } = model.heads;
        let heads = Heads { pooler: pooler || nsp, nsp: had || nsp, ..Heads::MLM };
        (model, adopted) = Model::load_with(init, heads, device, recipe.seed)?;
    }
    checkpoint::check_vocabulary(init, tokenizer, &model)?;
    recipe.check_fit(model.config.max_position_embeddings, model.config.type_vocab_size)?;
    let dropouts = &recipe.model;
    if let Some(p) = dropouts.hidden_dropout_prob {
        model.config.hidden_dropout_prob = p;
    }
    if let Some(p) = dropouts.attention_probs_dropout_prob {
        model.config.attention_probs_dropout_prob = p;
    }
    Ok((model, adopted))
}

/// Heads of a checkpoint that the objective does not train stay as they are: they have no gradient, but decay would shrink them.
fn rest_what_is_not_trained(model: &mut Model, recipe: &Recipe) {
    if recipe.objective.nsp {
        return;
    }
    for id in model.params.ids() {
        let name = model.params.name(id);
        if ["bert.pooler.", "cls.seq_relationship."].iter().any(|head| name.starts_with(head)) {
            model.params.set_rate(id, 0.0);
        }
    }
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

/// The batches that a phase is evaluated on.
fn phase_held_out(
    recipe: &Recipe,
    shards: &Shards,
    tokenizer: &Tokenizer,
    phase: usize,
) -> Result<BatchSource, TrainError> {
    held_out(shards.split(Split::Valid), TokenTable::from(tokenizer), recipe.batch_options(phase)).map_err(
        |e| match e {
            TrainError::Data(DataError::Sampling { reason }) => {
                let reason = format!("the held-out split: {reason}; or set eval.every = 0");
                TrainError::Data(DataError::Sampling { reason })
            }
            other => other,
        },
    )
}

/// What the shards are, wherever they lie: their tokenizer and every file's checksum.
fn fingerprint(shards: &Shards) -> String {
    let splits = serde_json::to_vec(&shards.manifest.splits).unwrap_or_default();
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(shards.manifest.tokenizer.fingerprint.as_bytes());
    hash.update(&splits);
    format!("{:032x}", hash.digest128())
}
