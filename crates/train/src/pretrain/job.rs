//! Pre-training as a job of the training loop.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_comm::Communicator;
use cloze_data::prefetch::Prefetch;
use cloze_data::shards::Split;
use cloze_engine::{Device, Share};
use serde::{Deserialize, Serialize};

use super::corpus::Corpus;
use super::estimate::{Cost, Estimate, estimate};
use super::resolved::{check_resumed, write_recipe};
use crate::TrainError;
use crate::agreement::{require_same, require_same_weights};
use crate::checkpoint;
use crate::evaluate::{HeldOut, evaluate};
use crate::network::Network;
use crate::objective::{PhaseObjectives, Start, Term, train_step};
use crate::plan::{End, Plan, RunPosition};
use crate::recipe::{Phase, Recipe};
use crate::run::{EvalLine, Line, RunFolder, RunLog, StartLine, TrainLine};
use crate::schedule::LrSchedule;
use crate::step::{StepOutcome, Trainer, share};
use crate::train_loop::{Due, Event, Job, Keep, LoopState, Score, TrainLoop};
use crate::window::Window;

/// The progress of the run at which the batches of estimates are masked: a linear schedule then has its mean rate.
pub(super) const MEAN_PROGRESS: f64 = 0.5;

/// An event of a pre-training run.
pub type PretrainEvent = Event<StartLine, Estimate, TrainLine, EvalLine>;

/// The training state of a checkpoint: with weights and moments, everything that resuming needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Number of steps done, including skipped ones: the position in the data.
    pub step: u64,
    /// Number of optimizer updates: Adam's t.
    pub updates: u64,
    /// Phase of the last step, from 0.
    pub phase: usize,
    /// Number of batches used in each phase; micro-batches, if steps have several. A run that is extended continues
    /// with the next one.
    pub batches: Vec<u64>,
    /// Seconds of training.
    pub seconds: f64,
    /// Number of tokens processed.
    pub tokens: u64,
    /// Number of consecutive skipped steps up to now.
    pub skipped_in_a_row: u32,
    /// Step of the last evaluation; 0 before the first.
    pub evaluated: u64,
    /// Whether the evaluation that was due after this step was interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owes_evaluation: bool,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Sums since the last logged line.
    pub window: Window,
    /// The fingerprint of the shards; a resumed run needs the same.
    pub shards: String,
    /// The fingerprint of the teacher, if there is one; a resumed run needs the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
}

/// Lower losses are better.
fn score_of(loss: f64) -> Score {
    Score { value: -loss, loss }
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// The held-out loss by which it was chosen, under its key `mlm_loss`.
    #[serde(flatten)]
    pub loss: BTreeMap<String, f64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the end of the recipe was reached; otherwise the run was interrupted and can be resumed.
    pub finished: bool,
    /// What ended the run, or would have: steps or time.
    pub end: End,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The final model; `None` if the run was interrupted: then the run's model/ is that of the last checkpoint.
    pub model: Option<PathBuf>,
    /// The last evaluation of this session.
    pub evaluation: Option<EvalLine>,
}

/// The state in which a session starts: new, or from a checkpoint.
pub(super) struct InitialState<N> {
    pub trainer: Trainer<N>,
    pub at: LoopState,
    /// Number of batches used in each phase.
    batches: Vec<u64>,
    /// Number of tokens processed.
    tokens: u64,
    /// Messages about the initial weights.
    pub messages: Vec<String>,
}

/// The initial state of a run on this corpus: from the checkpoint `newest`, or a new network.
pub(super) fn initial_state<N: Network, B>(
    objectives: &PhaseObjectives<N, B>,
    recipe: &Recipe,
    corpus: &Corpus,
    device: &Device,
    newest: Option<&Path>,
    ranks: &Communicator,
) -> Result<InitialState<N>, TrainError> {
    let mut velocity = None;
    let (network, moments, state, messages) = match newest {
        Some(path) => {
            // With local steps, each rank has the moments of all weights.
            let share = if recipe.ranks.local_steps.is_some() { Share::WHOLE } else { share(ranks) };
            let loaded = checkpoint::load::<N, State>(path, device, share)?;
            let checkpoint::Loaded { network, moments, velocity: of_checkpoint, state } = loaded;
            velocity = of_checkpoint;
            corpus.require(&state.shards, &recipe.data)?;
            if let Some(path) = &recipe.objective.teacher
                && state.teacher.as_deref() != objectives[0].teacher()
            {
                return Err(TrainError::OtherTeacher(path.clone()));
            }
            (network, Some(moments), state, Vec::new())
        }
        None => {
            let Corpus { shards, tokenizer } = corpus;
            let (network, report) = objectives[0].initial_network(&Start { recipe, shards, tokenizer, device })?;
            let window = Window::new(objectives[0].terms());
            let state = State { batches: vec![0; recipe.phase.len()], window, ..State::default() };
            (network, None, state, report.notes())
        }
    };
    let mut network = network;
    objectives[state.phase].prepare(&mut network);
    require_same_weights(ranks, network.params())?;
    let precision = recipe.precision.dtype(device);
    let mut trainer = Trainer::new(network, device, precision, &recipe.optimizer, recipe.seed, ranks);
    trainer.recompute = recipe.recompute;
    trainer.wire = recipe.ranks.gradients;
    trainer.updates = state.updates;
    if let Some(moments) = moments {
        trainer.moments = moments;
    }
    if let Some(outer) = recipe.ranks.outer() {
        trainer.train_locally(outer, velocity);
    }
    let State { step, updates, phase, batches, seconds, tokens, skipped_in_a_row, best, window, .. } = state;
    let State { evaluated, owes_evaluation, .. } = state;
    let best = best.and_then(|best| Some((best.step, score_of(*best.loss.values().next()?))));
    let evaluations_since_best = 0;
    let at = LoopState {
        step,
        updates,
        phase,
        seconds,
        skipped_in_a_row,
        evaluated,
        owes_evaluation,
        best,
        evaluations_since_best,
        window,
    };
    Ok(InitialState { trainer, at, batches, tokens, messages })
}

/// Pre-trains with these objectives. `recipe` must be resolved.
pub(super) fn pretrain<N: Network, B>(
    objectives: &PhaseObjectives<N, B>,
    recipe: &Recipe,
    device: &Device,
    (folder, resume): (RunFolder, bool),
    ranks: &Communicator,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&PretrainEvent),
) -> Result<Outcome, TrainError> {
    // Check everything that can be checked before the run's folder is touched.
    let corpus = Corpus::open(recipe)?;
    let mut messages = corpus.check(recipe, objectives)?;
    require_same(ranks, "data (shards)", corpus.fingerprint()?.as_bytes())?;
    check_micro_batches(recipe, ranks)?;
    let (mut lock, mut newest, mut changed) = (None, None, Vec::new());
    if !ranks.is_root() {
        // Rank 0 has the folder.
    } else if resume {
        changed = check_resumed(&folder, recipe)?;
        let (file, found) = checkpoint::resume(&folder)?;
        (lock, newest) = (Some(file), found.map(|(step, _)| step));
    } else {
        folder.check_new()?;
    }
    let newest = checkpoint::path_of_newest(&folder, newest, ranks);
    let initial = initial_state(objectives, recipe, &corpus, device, newest.as_deref(), ranks)?;
    messages.extend(initial.messages);
    if !changed.is_empty() {
        messages.push(format!("resumed with different values of {}", changed.join(", ")));
    }
    if ranks.is_root() {
        lock = Some(lock.map_or_else(|| folder.create(), Ok)?);
        write_recipe(&folder, recipe)?;
    }

    let InitialState { trainer, at, batches, tokens, .. } = initial;
    let peak = ranks.all_gather_numbers(&[device.matrix_peak(trainer.precision())]).into_iter().sum::<f64>();
    let start = StartLine {
        step: at.step,
        machine: device.describe(),
        precision: recipe.precision.name().to_owned(),
        reason: device.explain(trainer.precision()),
        threads: device.threads(),
        ranks: ranks.size(),
        peak_gflops: peak / 1e9,
        parameters: trainer.network.params().count(),
        corpus_tokens: corpus.shards.split(Split::Train).tokens(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let job = Pretraining {
        plan: recipe.plan(),
        lr_schedule: recipe.lr_schedule(),
        shards: corpus.fingerprint()?,
        recipe,
        objectives,
        prepared: at.phase,
        corpus: &corpus,
        batches,
        micro_batches: 0,
        tokens,
        peak,
        prefetch: None,
        held_out: None,
    };
    let mut run = TrainLoop::open(job, trainer, &corpus.tokenizer, (folder.clone(), lock), at, on_event)?;
    run.log_start(&Line::Start(start.clone()), start, messages)?;
    let ended = run.run(stop)?;
    let step = ended.at.step;
    Ok(Outcome {
        step,
        finished: ended.finished,
        end: ended.job.plan.end(step, ended.at.seconds),
        checkpoint: ended.checkpoint.unwrap_or_else(|| checkpoint::path_of(&folder, step)),
        model: ended.finished.then(|| folder.model()),
        evaluation: ended.evaluation,
    })
}

/// Which batches are prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Prepared {
    phase: usize,
    /// The micro-batches of a step, of which a rank has a part.
    count: Option<u32>,
}

/// Checks that each rank has a micro-batch of each step. (While the batch grows, some may have none.)
fn check_micro_batches(recipe: &Recipe, ranks: &Communicator) -> Result<(), TrainError> {
    let is_short = |(_, phase): &(usize, &Phase)| (phase.accumulate as usize) < ranks.size();
    match recipe.phase.iter().enumerate().find(is_short) {
        Some((number, phase)) => {
            Err(TrainError::MicroBatches { phase: number, found: phase.accumulate, ranks: ranks.size() })
        }
        None => Ok(()),
    }
}

/// A running pre-training.
struct Pretraining<'a, N, B> {
    recipe: &'a Recipe,
    objectives: &'a PhaseObjectives<N, B>,
    /// The phase for which the network is prepared.
    prepared: usize,
    corpus: &'a Corpus,
    plan: Plan,
    lr_schedule: LrSchedule,
    /// The fingerprint of the shards.
    shards: String,
    /// Number of batches used in each phase.
    batches: Vec<u64>,
    /// Micro-batches of the last step.
    micro_batches: u32,
    /// Number of tokens processed.
    tokens: u64,
    /// The matrix peak of the device in FLOP/s.
    peak: f64,
    /// The next batches of a phase, prepared in a separate thread.
    prefetch: Option<(Prepared, Prefetch)>,
    /// The held-out batches of a phase.
    held_out: Option<(usize, HeldOut)>,
}

impl<N: Network, B> Pretraining<'_, N, B> {
    /// The loss that decides which evaluation is the best: the first of the last phase.
    fn deciding(&self) -> Option<&Term> {
        self.objectives.last()?.terms().first()
    }

    /// Prepares the batches of a phase: all of them, or this rank's part of the `count` of each step.
    fn start_prefetch(
        &self,
        phase: usize,
        count: u32,
        part: &Range<usize>,
        ranks: &Communicator,
    ) -> Result<Prefetch, TrainError> {
        let source = Arc::new(self.corpus.phase_source(self.recipe, &*self.objectives[phase], phase)?);
        let first = self.batches[phase];
        if ranks.is_single() {
            return Ok(Prefetch::start(source, first, self.recipe.phase[phase].accumulate as usize + 2));
        }
        let range = part.start as u64..part.end as u64;
        Ok(Prefetch::start_part(source, first, count.into(), range, part.len() + 2))
    }
}

impl<N: Network, B> Job for Pretraining<'_, N, B> {
    type Network = N;
    type Error = TrainError;
    type State = State;
    type Start = StartLine;
    type Estimate = Estimate;
    type Figures = TrainLine;
    type Evaluation = EvalLine;

    const KEEP: Keep = Keep::Last;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn terms(&self, phase: usize) -> &[Term] {
        self.objectives[phase].terms()
    }

    fn lr(&self, before: f64, after: f64) -> f64 {
        self.recipe.optimizer.lr * self.lr_schedule.factor(before, after)
    }

    fn step(&mut self, trainer: &mut Trainer<N>, at: &LoopState, lr: f64) -> Result<StepOutcome, TrainError> {
        let (phase, objective) = (at.phase, &*self.objectives[at.phase]);
        if std::mem::replace(&mut self.prepared, phase) != phase {
            objective.prepare(&mut trainer.network);
        }
        let progress = self.plan.progress(at.step, at.seconds);
        let count = self.recipe.micro_batches(phase, progress);
        // A rank that has a part of each step prepares other batches when the steps get another size.
        let part = trainer.ranks().part(count as usize);
        let of = if trainer.ranks().is_single() {
            Prepared { phase, count: None }
        } else {
            Prepared { phase, count: Some(count) }
        };
        let mut prefetch = match self.prefetch.take() {
            Some((prepared, prefetch)) if prepared == of => prefetch,
            _ => self.start_prefetch(phase, count, &part, trainer.ranks())?,
        };
        let batches: Vec<B> = part.map(|_| objective.batch(prefetch.next(progress))).collect();
        self.prefetch = Some((of, prefetch));
        self.batches[phase] += u64::from(count);
        self.micro_batches = count;
        let outcome = train_step(objective, trainer, &batches, count as usize, at.step, lr);
        self.tokens += outcome.tokens;
        Ok(outcome)
    }

    /// Micro-batches, because a step may have more of them later.
    fn units(&self, _: &StepOutcome) -> u64 {
        self.micro_batches.into()
    }

    /// Scales the measured time of a micro-batch in this phase by the FLOPs of those in later phases.
    fn estimate(
        &self,
        trainer: &Trainer<N>,
        at: &LoopState,
        micro_batches_per_s: f64,
    ) -> Result<(Estimate, Vec<f64>), TrainError> {
        let mut costs = vec![Cost::default(); self.recipe.phase.len()];
        let mut rate = 0.0;
        for (number, cost) in costs.iter_mut().enumerate().skip(at.phase) {
            let objective = &*self.objectives[number];
            let source = self.corpus.phase_source(self.recipe, objective, number)?;
            let batch = objective.batch(source.mask(source.unmasked(0), MEAN_PROGRESS));
            let flops = objective.flops(&trainer.network, &batch);
            if number == at.phase {
                rate = flops * micro_batches_per_s;
            }
            let seconds = flops / rate.max(f64::MIN_POSITIVE);
            let tokens = objective.inputs(&batch).tokens() as f64;
            let forward_share = objective.forward_share(&trainer.network, &batch);
            *cost = Cost { tokens, seconds, additional: seconds, forward_share };
        }
        let step_seconds = costs.iter().zip(&self.recipe.phase).map(|(cost, phase)| cost.of_step(phase.accumulate));
        let step_seconds = step_seconds.collect();
        Ok((estimate(self.recipe, at.step, at.seconds, &costs), step_seconds))
    }

    fn due(&self, before: RunPosition, after: RunPosition) -> Due {
        let Recipe { log, eval, checkpoint, .. } = self.recipe;
        Due {
            log: log.every.is_due(before, after),
            evaluation: eval.every.is_due(before, after),
            checkpoint: checkpoint.every.is_due(before, after),
        }
    }

    fn figures(&mut self, trainer: &Trainer<N>, at: &LoopState) -> TrainLine {
        let measure = || trainer.device().matrix_peak(trainer.precision()) * trainer.ranks().size() as f64;
        self.peak = updated_peak(self.peak, at.window.flops_per_s(), measure);
        let means = at.window.means(self.terms(at.phase), self.peak);
        TrainLine { step: at.step, tokens: self.tokens, seconds: at.seconds, phase: at.phase, ..means }
    }

    fn log_figures(&self, log: &mut RunLog, figures: &TrainLine) -> Result<(), TrainError> {
        log.write(&Line::Train(figures.clone()))
    }

    fn evaluates(&self) -> bool {
        !self.recipe.eval.every.is_never()
    }

    fn evaluate(
        &mut self,
        trainer: &Trainer<N>,
        at: &LoopState,
        stop: &AtomicBool,
    ) -> Result<Option<EvalLine>, TrainError> {
        let (held_out_phase, held_out) = match self.held_out.take() {
            Some(held_out) if held_out.0 == at.phase => held_out,
            _ => (at.phase, self.corpus.phase_held_out(self.recipe, &*self.objectives[at.phase], at.phase)?),
        };
        let batches = Some(self.recipe.eval.batches);
        let (device, precision) = (trainer.device(), trainer.precision());
        let continue_unless_stopped =
            |_| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let scores = evaluate(
            &*self.objectives[at.phase],
            &trainer.network,
            device,
            precision,
            trainer.ranks(),
            &held_out,
            batches,
            continue_unless_stopped,
        );
        self.held_out = Some((held_out_phase, held_out));
        Ok(scores.map(|scores| EvalLine { step: at.step, seconds: at.seconds, losses: scores.losses }))
    }

    fn score(&self, line: &EvalLine) -> Option<Score> {
        line.losses.loss(self.deciding()?.name).filter(|loss| loss.is_finite()).map(score_of)
    }

    fn log_evaluation(&mut self, log: &mut RunLog, _: &LoopState, line: &EvalLine, _: bool) -> Result<(), TrainError> {
        log.write(&Line::Eval(line.clone()))
    }

    fn patience(&self) -> Option<u32> {
        None
    }

    fn checkpoints_kept(&self) -> usize {
        self.recipe.checkpoint.keep
    }

    fn state(&self, at: &LoopState) -> State {
        let key = self.deciding().map_or(String::new(), |term| format!("{}_loss", term.name));
        State {
            step: at.step,
            updates: at.updates,
            phase: at.phase,
            batches: self.batches.clone(),
            seconds: at.seconds,
            tokens: self.tokens,
            skipped_in_a_row: at.skipped_in_a_row,
            evaluated: at.evaluated,
            owes_evaluation: at.owes_evaluation,
            best: at.best.map(|(step, score)| Best { step, loss: BTreeMap::from([(key, score.loss)]) }),
            window: at.window.clone(),
            shards: self.shards.clone(),
            teacher: self.objectives[0].teacher().map(str::to_owned),
        }
    }

    fn interruption(&self, at: &LoopState) -> String {
        format!("interrupted after step {}; the run can be resumed", at.step)
    }

    fn not_finite(&self, at: &LoopState, checkpoint: Option<PathBuf>) -> TrainError {
        TrainError::NotFinite { step: at.step, in_a_row: at.skipped_in_a_row, checkpoint }
    }

    fn finish(&mut self, _: &RunFolder, _: &LoopState) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Corrects the device's matrix peak if the steps exceed it. This happens if other processes kept the machine busy
/// while the peak was measured: then it is measured again.
fn updated_peak(peak: f64, achieved: f64, measure: impl FnOnce() -> f64) -> f64 {
    if achieved > peak { achieved.max(measure()) } else { peak }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_peak_is_at_most_one_after_a_busy_measurement() {
        assert_eq!(updated_peak(100.0, 25.0, || unreachable!("25 FLOP/s of 100")), 100.0);
        assert_eq!(updated_peak(100.0, 150.0, || 200.0), 200.0);
        assert_eq!(updated_peak(200.0, 300.0, || 90.0), 300.0, "still busy: the achieved rate is the peak");
    }

    /// The state of a checkpoint from before losses were a list. It must be reproduced byte for byte, because its
    /// checksum covers these bytes.
    #[test]
    fn states_of_earlier_checkpoints_are_reproduced_byte_for_byte() {
        let text = concat!(
            r#"{"step":6,"updates":6,"phase":0,"batches":[12,0],"seconds":0.25,"tokens":900,"skipped_in_a_row":0,"#,
            r#""evaluated":4,"best":{"step":4,"mlm_loss":3.25},"window":{"steps":0,"seconds":0.0,"tokens":0,"flops":0.0,"#,
            r#""grad_norm":0.0,"mlm":{"sum":0.0,"count":0,"correct":0},"nsp":{"sum":0.0,"count":0,"correct":0}},"#,
            r#""shards":"ab"}"#
        );
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
    }
}
