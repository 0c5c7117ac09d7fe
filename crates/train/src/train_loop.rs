//! The training loop of pre-training and fine-tuning: steps, evaluation, logs, checkpoints, interrupts, resuming.
//!
//! A step is a pure function of the weights, the moments, the step's number (the key of all randomness) and the
//! position of its [`Job`] in the data. So a checkpoint is all that resuming needs, and a resumed run is bit-identical
//! to an uninterrupted one. (With a time limit, `minutes`, the learning rate and a schedule of the masking rate depend on
//! elapsed time, so no two runs are identical.)

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloze_comm::Communicator;
use cloze_text::Tokenizer;
use serde::Serialize;

use crate::TrainError;
use crate::checkpoint;
use crate::network::Network;
use crate::objective::Term;
use crate::pace::Pace;
use crate::plan::{End, Plan, RunPosition};
use crate::run::{EventLine, Line, RunFolder, RunLog};
use crate::step::{MAX_SKIPPED, StepOutcome, Trainer};
use crate::window::Window;

/// The work of a run: the part that differs between pre-training and fine-tuning.
pub trait Job {
    /// The trained network.
    type Network: Network;
    /// The error type.
    type Error: From<TrainError>;
    /// The training state in a checkpoint.
    type State: Serialize;
    /// Information about the start of training.
    type Start;
    /// The estimated duration.
    type Estimate;
    /// Means over the steps since the last logged line.
    type Figures;
    /// Results on held-out data.
    type Evaluation;

    /// Which model the run saves.
    const KEEP: Keep;

    /// The plan of the run.
    fn plan(&self) -> &Plan;

    /// The losses in a phase.
    fn terms(&self, phase: usize) -> &[Term];

    /// The learning rate of a step that advances the run's progress from `before` to `after` (0 to 1).
    fn lr(&self, before: f64, after: f64) -> f64;

    /// Runs the step that follows `at.step` finished ones, with a learning rate, on the next data.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn step(
        &mut self,
        trainer: &mut Trainer<Self::Network>,
        at: &LoopState,
        lr: f64,
    ) -> Result<StepOutcome, Self::Error>;

    /// The units of a step for measuring speed, such as its micro-batches or tokens. Steps may have different sizes.
    fn units(&self, outcome: &StepOutcome) -> u64;

    /// Estimates the remaining time at a speed in units per second; also returns the seconds of a step in each phase.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn estimate(
        &self,
        trainer: &Trainer<Self::Network>,
        at: &LoopState,
        units_per_s: f64,
    ) -> Result<(Self::Estimate, Vec<f64>), Self::Error>;

    /// The actions that are due after the step that moved the run from `before` to `after`.
    fn due(&self, before: RunPosition, after: RunPosition) -> Due;

    /// The means of the window.
    fn figures(&mut self, trainer: &Trainer<Self::Network>, at: &LoopState) -> Self::Figures;

    /// Logs the means of the window.
    ///
    /// # Errors
    /// The log cannot be written.
    fn log_figures(&self, log: &mut RunLog, figures: &Self::Figures) -> Result<(), Self::Error>;

    /// Whether there is held-out data to evaluate on.
    fn evaluates(&self) -> bool;

    /// Evaluates the network. `None` if `stop` was set before the end.
    ///
    /// # Errors
    /// Outputs that are NaN or infinite.
    fn evaluate(
        &mut self,
        trainer: &Trainer<Self::Network>,
        at: &LoopState,
        stop: &AtomicBool,
    ) -> Result<Option<Self::Evaluation>, Self::Error>;

    /// The score by which the best evaluation is chosen. `None` for an evaluation that cannot be the best.
    fn score(&self, evaluation: &Self::Evaluation) -> Option<Score>;

    /// Logs an evaluation and whether it is the best so far; stores it if it is.
    ///
    /// # Errors
    /// The log cannot be written.
    fn log_evaluation(
        &mut self,
        log: &mut RunLog,
        at: &LoopState,
        evaluation: &Self::Evaluation,
        is_best: bool,
    ) -> Result<(), Self::Error>;

    /// The number of evaluations without a better score after which the run ends.
    fn patience(&self) -> Option<u32>;

    /// The number of checkpoints to keep, the newest ones.
    fn checkpoints_kept(&self) -> usize;

    /// The training state for a checkpoint, in addition to weights and moments.
    fn state(&self, at: &LoopState) -> Self::State;

    /// The message that is logged when the run is interrupted.
    fn interruption(&self, at: &LoopState) -> String;

    /// The error that ends a run after too many consecutive skipped steps; `checkpoint` is the last one.
    fn not_finite(&self, at: &LoopState, checkpoint: Option<PathBuf>) -> Self::Error;

    /// Writes what remains when the run is over, at rank 0; all steps are done and evaluated.
    ///
    /// # Errors
    /// A run that has not learned anything; a file that cannot be written.
    fn finish(&mut self, folder: &RunFolder, at: &LoopState) -> Result<(), Self::Error>;
}

/// The name of the checkpoints' folder while it is removed at the end of a run; see [`Keep::Best`].
pub const REMOVED_CHECKPOINTS: &str = ".checkpoints";

/// Which model a run saves in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The last one; the current one if the run is interrupted. The checkpoint of the best one is kept and linked.
    Last,
    /// The best one, saved at its evaluation. Checkpoints are only for resuming, and removed when the run is over.
    Best,
}

/// Actions that are due after a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// Log a line.
    pub log: bool,
    /// Evaluate.
    pub evaluation: bool,
    /// Save a checkpoint.
    pub checkpoint: bool,
}

/// The state of a running training loop.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoopState {
    /// Number of steps done, including skipped ones.
    pub step: u64,
    /// Number of optimizer updates.
    pub updates: u64,
    /// Phase of the last step, from 0.
    pub phase: usize,
    /// Seconds of training, including evaluation and saving.
    pub seconds: f64,
    /// Number of consecutive skipped steps up to now.
    pub skipped_in_a_row: u32,
    /// Step of the last evaluation; 0 before the first.
    pub evaluated: u64,
    /// Whether the evaluation that was due after this step was interrupted.
    pub owes_evaluation: bool,
    /// Step and score of the best evaluation.
    pub best: Option<(u64, Score)>,
    /// Number of evaluations since the best one.
    pub evaluations_since_best: u32,
    /// Sums since the last logged line.
    pub window: Window,
}

/// Something that happened in a run, for progress bars and messages. All important information is also in the logs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event<Start, Estimate, Figures, Evaluation> {
    /// Training starts or is resumed.
    Start(Start),
    /// The estimated duration, after some steps have been measured.
    Estimate(Estimate),
    /// A step is done.
    Step(StepEvent<Figures>),
    /// The held-out data was evaluated.
    Eval {
        /// The results.
        evaluation: Evaluation,
        /// Whether they are the best so far.
        best: bool,
    },
    /// A checkpoint was saved.
    Saved {
        /// The step.
        step: u64,
        /// Its folder.
        path: PathBuf,
    },
    /// Another message: a skipped step, an early end.
    Message(String),
}

/// The figures of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEvent<Figures> {
    /// Means since the last logged line, including this step.
    pub figures: Figures,
    /// What will end the run.
    pub end: End,
    /// Fraction of the run that is done, 0 to 1.
    pub progress: f64,
    /// Estimated seconds until the end, at the speed of this session.
    pub seconds_left: Option<f64>,
}

/// The events of a job.
pub type EventOf<J> = Event<<J as Job>::Start, <J as Job>::Estimate, <J as Job>::Figures, <J as Job>::Evaluation>;

/// How a run ended.
pub struct Ended<J: Job> {
    /// The job.
    pub job: J,
    /// The final state of the loop.
    pub at: LoopState,
    /// Whether the end of the run was reached; otherwise the run was interrupted and can be resumed.
    pub finished: bool,
    /// The last checkpoint, if checkpoints are kept.
    pub checkpoint: Option<PathBuf>,
    /// The last evaluation of this session.
    pub evaluation: Option<J::Evaluation>,
}

/// The score by which the best evaluation is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Higher is better. NaN if undefined, such as a correlation with a constant.
    pub value: f64,
    /// Decides between evaluations whose value is NaN: lower is better.
    pub loss: f64,
}

/// Whether a score is the best so far. NaN is worse than any number.
pub fn is_better(score: Score, before: Option<Score>) -> bool {
    let more = |a: f64, b: f64| a > b || b.is_nan() && !a.is_nan();
    before.is_none_or(|before| match (score.value.is_nan(), before.value.is_nan()) {
        (true, true) => more(-score.loss, -before.loss),
        _ => more(score.value, before.value),
    })
}

/// A running training loop.
pub struct TrainLoop<'a, J: Job> {
    job: J,
    trainer: Trainer<J::Network>,
    tokenizer: &'a Tokenizer,
    folder: RunFolder,
    /// The lock that keeps other processes out; rank 0 has it.
    _lock: Option<File>,
    log: RunLog,
    ranks: Communicator,
    at: LoopState,
    on_event: &'a mut dyn FnMut(&EventOf<J>),
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// The last step whose figures were logged.
    logged: Option<u64>,
    /// Seconds of the last step of each phase; 0 if unknown.
    step_seconds: Vec<f64>,
    evaluation: Option<J::Evaluation>,
}

impl<'a, J: Job> TrainLoop<'a, J> {
    /// Prepares the loop for its first step. The run's folder exists and is locked; only rank 0 of a job writes to it. `at` is the state
    /// of the run; if it is resumed, that of its last checkpoint.
    ///
    /// # Errors
    /// The log or the link to the best checkpoint cannot be written.
    pub fn open(
        job: J,
        trainer: Trainer<J::Network>,
        tokenizer: &'a Tokenizer,
        (folder, lock): (RunFolder, Option<File>),
        mut at: LoopState,
        on_event: &'a mut dyn FnMut(&EventOf<J>),
    ) -> Result<TrainLoop<'a, J>, J::Error> {
        let ranks = trainer.ranks().clone();
        // What rank 0 finds in the folder: others may not see it.
        let has = |step| ranks.of_root(u8::from(checkpoint::path_of(&folder, step).is_dir())) == 1;
        if J::KEEP == Keep::Last
            && let Some((step, _)) = at.best
        {
            // If a run was killed directly after saving, its best checkpoint is not linked yet. A best checkpoint that
            // was removed by hand is forgotten.
            match has(step) {
                true if ranks.is_root() => checkpoint::mark_best(&folder, step)?,
                true => {}
                false => at.best = None,
            }
        }
        let saved = has(at.step).then_some(at.step);
        let log = match ranks.is_root() {
            true => RunLog::open(&folder, at.step, !at.window.is_empty())?,
            false => RunLog::silent(),
        };
        let step_seconds = vec![0.0; job.plan().phases()];
        Ok(TrainLoop {
            job,
            trainer,
            tokenizer,
            folder,
            _lock: lock,
            log,
            ranks,
            at,
            on_event,
            saved,
            logged: None,
            step_seconds,
            evaluation: None,
        })
    }

    /// Logs the start of a session, reports it, and reports messages that precede the first step.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn log_start(&mut self, line: &impl Serialize, start: J::Start, messages: Vec<String>) -> Result<(), J::Error> {
        self.log.append(line)?;
        (self.on_event)(&Event::Start(start));
        messages.into_iter().try_for_each(|message| self.log_message(message))
    }

    /// Trains to the end. If `stop` is set, the current step is finished and saved; a running evaluation is aborted,
    /// and repeated when the run is resumed.
    ///
    /// # Errors
    /// The job's errors. Checkpoints that were saved before are complete.
    pub fn run(mut self, stop: &AtomicBool) -> Result<Ended<J>, J::Error> {
        let session = Instant::now();
        let (seconds_before, progress_before) = (self.at.seconds, self.position().progress);
        let mut last_step_seconds = 0.0;
        // Evaluation and saving take time, too: actions that become due meanwhile are done after the next step.
        let mut position = self.position();
        let mut pace = Some(Pace::default());
        let mut owed = Due::default();
        if self.at.owes_evaluation {
            if self.evaluate(stop)?.is_none() {
                return self.interrupted();
            }
            // The checkpoint of this step does not contain this evaluation.
            self.saved = None;
            self.write_checkpoint()?;
        }
        loop {
            // The clock is read once per step: this time decides whether the run is over, the phase and the learning
            // rate. After the step, the time is this value plus the step's seconds. All ranks use the clock of rank 0.
            self.at.seconds = self.ranks.of_root(seconds_before + session.elapsed().as_secs_f64());
            if self.is_over() {
                return self.finish(stop);
            }
            let phase = self.job.plan().phase_at(self.at.step, self.at.seconds);
            if phase != self.at.phase {
                self.begin_phase(phase)?;
                // The speed of steps differs between phases.
                pace = pace.map(|_| Pace::default());
            }
            let after = self.job.plan().progress(self.at.step + 1, self.at.seconds + last_step_seconds);
            let lr = self.job.lr(self.position().progress, after);
            let mut outcome = self.job.step(&mut self.trainer, &self.at, lr)?;
            outcome.update.seconds = self.ranks.of_root(outcome.update.seconds);

            last_step_seconds = outcome.update.seconds;
            self.step_seconds[phase] = outcome.update.seconds;
            self.at.step += 1;
            self.at.updates = self.trainer.updates;
            self.at.seconds += outcome.update.seconds;
            self.at.window.add(&outcome, lr);
            if outcome.update.updated {
                self.at.skipped_in_a_row = 0;
            } else {
                self.skip(&outcome)?;
            }
            let before = std::mem::replace(&mut position, self.position());
            let mut due = self.job.due(before, position);
            if !self.trainer.is_synchronised() {
                // The ranks have different weights: evaluated and saved after the next exchange.
                owed.evaluation |= due.evaluation;
                owed.checkpoint |= due.checkpoint;
                (due.evaluation, due.checkpoint) = (false, false);
            } else {
                due.evaluation |= std::mem::take(&mut owed.evaluation);
                due.checkpoint |= std::mem::take(&mut owed.checkpoint);
            }
            if !self.at.window.is_empty() {
                let figures = self.job.figures(&self.trainer, &self.at);
                if due.log {
                    self.log(&figures)?;
                }
                let session_seconds = self.at.seconds - seconds_before;
                let plan = self.job.plan();
                (self.on_event)(&Event::Step(StepEvent {
                    figures,
                    end: plan.end(self.at.step, self.at.seconds),
                    progress: position.progress,
                    seconds_left: plan.seconds_left(progress_before, position.progress, session_seconds),
                }));
                if due.log {
                    self.at.window = Window::new(self.job.terms(phase));
                }
            }
            if let Some(steps) = &mut pace {
                steps.add(self.job.units(&outcome), outcome.update.seconds);
                if let Some(rate) = steps.per_second(false) {
                    pace = None;
                    self.estimate(rate)?;
                }
            }
            let mut is_best = false;
            if due.evaluation && self.job.evaluates() {
                match self.evaluate(stop)? {
                    Some(best) => is_best = best,
                    None => return self.interrupted(),
                }
            }
            // After the events of the step. All ranks stop if one of them is to.
            let stopped = self.ranks.any(stop.load(Ordering::Relaxed));
            if self.is_over() {
                continue;
            }
            if stopped {
                return self.interrupted();
            }
            // While steps are skipped, the weights may be damaged.
            let is_healthy = self.at.skipped_in_a_row == 0;
            let is_due = due.checkpoint || J::KEEP == Keep::Best && due.evaluation;
            if is_best || is_healthy && is_due {
                self.save()?;
            }
        }
    }

    /// Begins a phase. If it has other losses than the last one, the steps since the last line are logged first, because a
    /// line has the losses of one phase.
    fn begin_phase(&mut self, phase: usize) -> Result<(), J::Error> {
        if self.job.terms(self.at.phase) != self.job.terms(phase) {
            self.log_rest()?;
            self.at.window = Window::new(self.job.terms(phase));
        }
        self.at.phase = phase;
        Ok(())
    }

    fn position(&self) -> RunPosition {
        self.job.plan().position(self.at.step, self.at.seconds)
    }

    /// Whether the run is over. With a time limit, also if the remaining time is less than half of the next step's.
    fn is_over(&self) -> bool {
        let (plan, step, seconds) = (self.job.plan(), self.at.step, self.at.seconds);
        let next = self.step_seconds[plan.phase_at(step, seconds)];
        let is_late = plan.total_seconds().is_some_and(|all| all - seconds < 0.5 * next);
        plan.is_over(step, seconds) || is_late || self.is_out_of_patience()
    }

    fn is_out_of_patience(&self) -> bool {
        self.job.patience().is_some_and(|max| self.at.evaluations_since_best >= max)
    }

    /// Logs a message and reports it as an event.
    fn log_message(&mut self, message: String) -> Result<(), J::Error> {
        self.note(message.clone())?;
        (self.on_event)(&Event::Message(message));
        Ok(())
    }

    /// Logs a message that the result also contains.
    fn note(&mut self, message: String) -> Result<(), J::Error> {
        Ok(self.log.write(&Line::Event(EventLine { step: self.at.step, message }))?)
    }

    fn log(&mut self, figures: &J::Figures) -> Result<(), J::Error> {
        self.logged = Some(self.at.step);
        self.job.log_figures(&mut self.log, figures)
    }

    /// Logs the steps since the last line at the end of a session. They stay in the window: a resumed run drops this
    /// line and logs these steps again with those that complete the interval, as if it had not stopped.
    fn log_rest(&mut self) -> Result<(), J::Error> {
        if self.at.window.is_empty() || self.logged == Some(self.at.step) {
            return Ok(());
        }
        let figures = self.job.figures(&self.trainer, &self.at);
        self.log(&figures)
    }

    fn estimate(&mut self, units_per_s: f64) -> Result<(), J::Error> {
        let (estimate, step_seconds) = self.job.estimate(&self.trainer, &self.at, units_per_s)?;
        for (known, seconds) in self.step_seconds.iter_mut().zip(step_seconds) {
            if *known == 0.0 {
                *known = seconds;
            }
        }
        (self.on_event)(&Event::Estimate(estimate));
        Ok(())
    }

    /// Handles a step whose loss or gradient is not finite: logs and counts it, and fails after several consecutive
    /// ones.
    fn skip(&mut self, outcome: &StepOutcome) -> Result<(), J::Error> {
        self.at.skipped_in_a_row += 1;
        let (step, in_a_row) = (self.at.step, self.at.skipped_in_a_row);
        let what = if outcome.update.losses.is_finite() { "gradient" } else { "loss" };
        self.log_message(format!(
            "step {step}: the {what} is not finite: skipped ({in_a_row} of at most {MAX_SKIPPED} in a row)"
        ))?;
        if in_a_row < MAX_SKIPPED {
            return Ok(());
        }
        let last = self.saved.map(|step| checkpoint::path_of(&self.folder, step));
        Err(self.job.not_finite(&self.at, last))
    }

    /// Evaluates, and returns whether the evaluation is the best so far. `None` if `stop` was set.
    fn evaluate(&mut self, stop: &AtomicBool) -> Result<Option<bool>, J::Error> {
        let Some(evaluation) = self.job.evaluate(&self.trainer, &self.at, stop)? else {
            self.at.owes_evaluation = true;
            return Ok(None);
        };
        self.at.owes_evaluation = false;
        self.at.evaluated = self.at.step;
        let score = self.job.score(&evaluation);
        let best = score.is_some_and(|score| is_better(score, self.at.best.map(|(_, score)| score)));
        if best {
            self.at.best = score.map(|score| (self.at.step, score));
            self.at.evaluations_since_best = 0;
        } else {
            self.at.evaluations_since_best += 1;
        }
        self.job.log_evaluation(&mut self.log, &self.at, &evaluation, best)?;
        if best && J::KEEP == Keep::Best {
            self.save_model()?;
        }
        let event = Event::Eval { evaluation, best };
        (self.on_event)(&event);
        if let Event::Eval { evaluation, .. } = event {
            self.evaluation = Some(evaluation);
        }
        Ok(Some(best))
    }

    /// Saves a checkpoint of this step and reports it, unless it is already saved.
    fn save(&mut self) -> Result<PathBuf, J::Error> {
        let step = self.at.step;
        let is_new = self.saved != Some(step);
        let path = self.write_checkpoint()?;
        if is_new {
            (self.on_event)(&Event::Saved { step, path: path.clone() });
        }
        Ok(path)
    }

    /// Saves a checkpoint of this step, unless it is already saved; removes old ones except for the best.
    fn write_checkpoint(&mut self) -> Result<PathBuf, J::Error> {
        let (step, path) = (self.at.step, checkpoint::path_of(&self.folder, self.at.step));
        if self.saved == Some(step) {
            return Ok(path);
        }
        self.log.sync()?;
        checkpoint::save(&self.folder, step, &self.trainer, self.tokenizer, &self.job.state(&self.at))?;
        self.saved = Some(step);
        if !self.ranks.is_root() {
            return Ok(path);
        }
        let best = self.at.best.map(|(step, _)| step).filter(|_| J::KEEP == Keep::Last);
        if best == Some(step) {
            checkpoint::mark_best(&self.folder, step)?;
        }
        // A checkpoint whose weights may be damaged must not replace a good one.
        if self.at.skipped_in_a_row == 0 {
            checkpoint::prune(&self.folder, self.job.checkpoints_kept(), best)?;
        }
        Ok(path)
    }

    fn save_model(&self) -> Result<(), J::Error> {
        if !self.ranks.is_root() {
            return Ok(());
        }
        checkpoint::save_model(&self.folder, &self.trainer.network, self.tokenizer)?;
        Ok(())
    }

    fn interrupted(mut self) -> Result<Ended<J>, J::Error> {
        self.trainer.synchronise();
        self.log_rest()?;
        self.note(self.job.interruption(&self.at))?;
        if self.at.owes_evaluation {
            // The checkpoint of this step, if there is one, does not contain the pending evaluation.
            self.saved = None;
        }
        let checkpoint = self.write_checkpoint()?;
        if J::KEEP == Keep::Last {
            self.save_model()?;
        }
        Ok(self.ended(false, Some(checkpoint)))
    }

    fn finish(mut self, stop: &AtomicBool) -> Result<Ended<J>, J::Error> {
        self.trainer.synchronise();
        if self.job.evaluates() && self.at.step > self.at.evaluated {
            self.log_rest()?;
            if self.evaluate(stop)?.is_none() {
                return self.interrupted();
            }
            // The checkpoint of this step, if there is one, does not contain this evaluation.
            self.saved = None;
        }
        self.log_rest()?;
        if self.is_out_of_patience() {
            let (step, evaluations) = (self.at.step, self.at.evaluations_since_best);
            self.log_message(format!("stopped after step {step}: no better score in {evaluations} evaluations"))?;
        }
        if self.ranks.is_root() {
            self.job.finish(&self.folder, &self.at)?;
        }
        match J::KEEP {
            Keep::Last => {
                // Also if this session did no step: the run may have been interrupted before, or the line above is new.
                self.note(format!("finished after step {}", self.at.step))?;
                // The last step may have ended a little early: set the time so that the run is over when it is resumed.
                if let End::Seconds(all) = self.job.plan().end(self.at.step, self.at.seconds)
                    && self.at.seconds < all
                {
                    self.at.seconds = all;
                    self.saved = None;
                }
                let checkpoint = self.save()?;
                self.save_model()?;
                Ok(self.ended(true, Some(checkpoint)))
            }
            Keep::Best => {
                if self.at.best.is_none() {
                    self.save_model()?;
                }
                self.log.sync()?;
                if self.ranks.is_root() {
                    // Checkpoints are not needed any more. They are renamed first, so that a run that is killed now is
                    // either over or not.
                    let checkpoints = self.folder.checkpoints();
                    let removed = self.folder.root().join(REMOVED_CHECKPOINTS);
                    fs::rename(&checkpoints, &removed)
                        .and_then(|()| fs::remove_dir_all(&removed))
                        .map_err(|e| TrainError::io("remove", &checkpoints, e))?;
                }
                Ok(self.ended(true, None))
            }
        }
    }

    fn ended(self, finished: bool, checkpoint: Option<PathBuf>) -> Ended<J> {
        Ended { job: self.job, at: self.at, finished, checkpoint, evaluation: self.evaluation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_decides_between_nan_scores() {
        let score = |value, loss| Score { value, loss };
        let nan = f64::NAN;
        for (now, before, expected) in [
            (score(0.5, 9.0), score(0.4, 1.0), true),
            (score(0.4, 1.0), score(0.4, 9.0), false),
            (score(nan, 1.0), score(nan, 2.0), true),
            (score(nan, 2.0), score(nan, 2.0), false),
            (score(nan, nan), score(nan, 2.0), false),
            (score(nan, 2.0), score(nan, nan), true),
            (score(-1.0, 9.0), score(nan, 1.0), true),
            (score(nan, 1.0), score(-1.0, 9.0), false),
        ] {
            assert_eq!(is_better(now, Some(before)), expected, "{now:?} after {before:?}");
        }
        assert!(is_better(score(nan, nan), None));
    }
}
