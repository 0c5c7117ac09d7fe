//! The training loop, one for pre-training and fine-tuning: steps, evaluation, logs, checkpoints, interrupts, resuming.
//!
//! A step is a pure function of the weights, the moments, the step's number, which keys everything random, and how far its [`Job`] is in
//! the data. So resuming needs no more than a checkpoint, and gives bit by bit what an uninterrupted run gives (on the clock, with
//! `minutes`, the learning rate follows the time that passed, and no two runs are alike).

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloze_text::Tokenizer;
use serde::Serialize;

use crate::TrainError;
use crate::checkpoint;
use crate::network::Network;
use crate::objective::Term;
use crate::pace::Pace;
use crate::plan::{End, Plan, Reached};
use crate::run::{EventLine, Line, RunFolder, RunLog};
use crate::step::{MOST_SKIPPED, StepOutcome, Trainer};
use crate::window::Window;

/// What a run trains: the part of it that differs between pre-training and fine-tuning.
pub trait Job {
    /// What is trained.
    type Network: Network;
    /// What can go wrong.
    type Error: From<TrainError>;
    /// The training state of a checkpoint.
    type State: Serialize;
    /// What is known when training starts.
    type Start;
    /// How long it will take.
    type Estimate;
    /// Means over the steps since the last logged line.
    type Figures;
    /// How well the network does on held-out data.
    type Evaluation;

    /// Which model the run leaves.
    const KEEP: Keep;

    /// The course of the run.
    fn plan(&self) -> &Plan;

    /// The losses.
    fn terms(&self) -> &'static [Term];

    /// The learning rate of a step that takes the run's progress from `before` to `after` (0 to 1).
    fn lr(&self, before: f64, after: f64) -> f64;

    /// Takes the step after `at.step` done ones, at a learning rate, on the data that come next.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn step(
        &mut self,
        trainer: &mut Trainer<Self::Network>,
        at: &Standing,
        lr: f64,
    ) -> Result<StepOutcome, Self::Error>;

    /// What a step counts in the pace of steps: steps that are alike count 1, others their tokens.
    fn units(&self, outcome: &StepOutcome) -> u64;

    /// What is to come, at so many units a second, and the seconds of a step of each phase.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn estimate(
        &self,
        trainer: &Trainer<Self::Network>,
        at: &Standing,
        units_per_s: f64,
    ) -> Result<(Self::Estimate, Vec<f64>), Self::Error>;

    /// What is due after the step that took the run from `before` to `after`.
    fn due(&self, before: Reached, after: Reached) -> Due;

    /// The means of the window.
    fn figures(&mut self, trainer: &Trainer<Self::Network>, at: &Standing) -> Self::Figures;

    /// Logs the means of the window.
    ///
    /// # Errors
    /// The system's.
    fn log_figures(&self, log: &mut RunLog, figures: &Self::Figures) -> Result<(), Self::Error>;

    /// Whether there is anything to evaluate on.
    fn evaluates(&self) -> bool;

    /// Evaluates the network. None if `stop` was raised before the end.
    ///
    /// # Errors
    /// Outputs that are not numbers.
    fn evaluate(
        &mut self,
        trainer: &Trainer<Self::Network>,
        at: &Standing,
        stop: &AtomicBool,
    ) -> Result<Option<Self::Evaluation>, Self::Error>;

    /// What decides which evaluation is the best. None of one that cannot be the best.
    fn score(evaluation: &Self::Evaluation) -> Option<Score>;

    /// Logs an evaluation, and whether it is the best so far; remembers it if it is.
    ///
    /// # Errors
    /// The system's.
    fn log_evaluation(
        &mut self,
        log: &mut RunLog,
        at: &Standing,
        evaluation: &Self::Evaluation,
        is_best: bool,
    ) -> Result<(), Self::Error>;

    /// Evaluations without a better score after which the run ends.
    fn patience(&self) -> Option<u32>;

    /// Checkpoints that are kept, the newest ones.
    fn checkpoints_kept(&self) -> usize;

    /// What a checkpoint holds beside weights and moments.
    fn state(&self, at: &Standing) -> Self::State;

    /// What the log says of a run that is interrupted.
    fn interruption(&self, at: &Standing) -> String;

    /// The error that ends a run after too many skipped steps in a row; `checkpoint` is the last one.
    fn not_finite(&self, at: &Standing, checkpoint: Option<PathBuf>) -> Self::Error;

    /// What is left to write when the run is over; its steps are done and evaluated.
    ///
    /// # Errors
    /// A run that has learned nothing; the system's.
    fn finish(&mut self, folder: &RunFolder, at: &Standing) -> Result<(), Self::Error>;
}

/// What the checkpoints of a run that is over are called while they are removed, if they go: see [`Keep::Best`].
pub const CHECKPOINTS_ASIDE: &str = ".checkpoints";

/// Which model a run leaves in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The last one. Where a run is interrupted, the model so far. The best one's checkpoint is kept and linked to.
    Last,
    /// The best one, saved when it is found; checkpoints are there to resume from alone, and go when the run is over.
    Best,
}

/// What is due after a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// A line of the log.
    pub log: bool,
    /// An evaluation.
    pub evaluation: bool,
    /// A checkpoint.
    pub checkpoint: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Steps done, skipped ones included.
    pub step: u64,
    /// Optimizer updates done.
    pub updates: u64,
    /// Phase of the last step, from 0.
    pub phase: usize,
    /// Seconds on the clock, evaluation and saving among them.
    pub seconds: f64,
    /// Steps skipped in a row, up to now.
    pub skipped_in_a_row: u32,
    /// Step of the last evaluation; 0 before the first.
    pub evaluated: u64,
    /// Whether the evaluation that was due after this step was interrupted.
    pub owes_evaluation: bool,
    /// Step and score of the best evaluation.
    pub best: Option<(u64, Score)>,
    /// Evaluations since the best.
    pub worse: u32,
    /// Sums since the last logged line.
    pub window: Window,
}

/// Something that happened in a run, for bars and messages. Everything that matters is in the logs too.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event<Start, Estimate, Figures, Evaluation> {
    /// Training is about to start, or to go on.
    Start(Start),
    /// How long it will take, as soon as some steps have shown it.
    Estimate(Estimate),
    /// A step is done.
    Step(StepEvent<Figures>),
    /// The held-out data were scored.
    Eval {
        /// How well the network did.
        evaluation: Evaluation,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A checkpoint was saved.
    Saved {
        /// After this step.
        step: u64,
        /// Its folder.
        path: PathBuf,
    },
    /// Anything else worth a line: a step skipped, an end before time.
    Message(String),
}

/// A step's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEvent<Figures> {
    /// Means since the last logged line, this step included.
    pub figures: Figures,
    /// What will end the run.
    pub end: End,
    /// Share of the run that is done, 0 to 1: by steps or by the clock.
    pub progress: f64,
    /// Seconds until the end at the pace of this session.
    pub seconds_left: Option<f64>,
}

/// The events of a job.
pub type EventOf<J> = Event<<J as Job>::Start, <J as Job>::Estimate, <J as Job>::Figures, <J as Job>::Evaluation>;

/// How a run ended.
pub struct Ended<J: Job> {
    /// The job.
    pub job: J,
    /// The state that it reached.
    pub at: Standing,
    /// Whether its end was reached; otherwise it was interrupted and can be resumed.
    pub finished: bool,
    /// The last checkpoint, if checkpoints are kept.
    pub checkpoint: Option<PathBuf>,
    /// The last evaluation of this session.
    pub evaluation: Option<J::Evaluation>,
}

/// What decides which evaluation is the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// More is better. Not a number where it is not defined, such as a correlation with a constant.
    pub value: f64,
    /// Decides between evaluations whose value is not a number: less is better.
    pub loss: f64,
}

/// Whether a score is the best so far. One whose value is not a number is worse than any other.
pub fn is_better(score: Score, before: Option<Score>) -> bool {
    // What is not a number is worse than what is.
    let more = |a: f64, b: f64| a > b || b.is_nan() && !a.is_nan();
    before.is_none_or(|before| match (score.value.is_nan(), before.value.is_nan()) {
        (true, true) => more(-score.loss, -before.loss),
        _ => more(score.value, before.value),
    })
}

/// A run in progress.
pub struct TrainLoop<'a, J: Job> {
    job: J,
    trainer: Trainer<J::Network>,
    tokenizer: &'a Tokenizer,
    folder: RunFolder,
    /// Keeps other processes out.
    _lock: File,
    log: RunLog,
    at: Standing,
    on_event: &'a mut dyn FnMut(&EventOf<J>),
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// The last step whose figures are in the log.
    logged: Option<u64>,
    /// Seconds of the last step of each phase; 0 where none is known.
    step_seconds: Vec<f64>,
    evaluation: Option<J::Evaluation>,
}

impl<'a, J: Job> TrainLoop<'a, J> {
    /// Everything before the first step. The run's folder is there and locked; `at` is where the run stands, at the checkpoint of that
    /// step if it is resumed from one.
    ///
    /// # Errors
    /// The system's.
    pub fn open(
        job: J,
        trainer: Trainer<J::Network>,
        tokenizer: &'a Tokenizer,
        (folder, lock): (RunFolder, File),
        mut at: Standing,
        on_event: &'a mut dyn FnMut(&EventOf<J>),
    ) -> Result<TrainLoop<'a, J>, J::Error> {
        if J::KEEP == Keep::Last {
            // A run killed right after it saved had not pointed at its best yet; a best that was removed by hand is none.
            match at.best {
                Some((step, _)) if checkpoint::path_of(&folder, step).is_dir() => checkpoint::mark_best(&folder, step)?,
                _ => at.best = None,
            }
        }
        let saved = checkpoint::path_of(&folder, at.step).is_dir().then_some(at.step);
        let log = RunLog::open(&folder, at.step, !at.window.is_empty())?;
        let step_seconds = vec![0.0; job.plan().phases()];
        Ok(TrainLoop {
            job,
            trainer,
            tokenizer,
            folder,
            _lock: lock,
            log,
            at,
            on_event,
            saved,
            logged: None,
            step_seconds,
            evaluation: None,
        })
    }

    /// Logs the start of a session and says so, with what there is to say before the first step.
    ///
    /// # Errors
    /// The system's.
    pub fn log_start(&mut self, line: &impl Serialize, start: J::Start, messages: Vec<String>) -> Result<(), J::Error> {
        self.log.append(line)?;
        (self.on_event)(&Event::Start(start));
        messages.into_iter().try_for_each(|message| self.log_message(message))
    }

    /// Trains to the end. When `stop` is raised the step is finished and saved; an evaluation in progress is given up, and done when the
    /// run is resumed.
    ///
    /// # Errors
    /// The job's. Checkpoints already saved stay whole.
    pub fn run(mut self, stop: &AtomicBool) -> Result<Ended<J>, J::Error> {
        let session = Instant::now();
        let (seconds_before, progress_before) = (self.at.seconds, self.reached().progress);
        let mut last_step_seconds = 0.0;
        // Evaluation and saving take time too: intervals that end meanwhile are due after the next step.
        let mut reached = self.reached();
        let mut pace = Some(Pace::default());
        if self.at.owes_evaluation {
            if self.evaluate(stop)?.is_none() {
                return self.interrupted();
            }
            // The checkpoint of this step does not know of it.
            self.saved = None;
            self.write_checkpoint()?;
        }
        loop {
            // The one reading of the clock for a step: it decides whether the run is over, the phase and the learning rate. After the
            // step the time is this reading plus the step's seconds. (Machines that train together must all go by one of them.)
            self.at.seconds = seconds_before + session.elapsed().as_secs_f64();
            if self.is_over() {
                return self.finish(stop);
            }
            let phase = self.job.plan().phase_at(self.at.step, self.at.seconds);
            if std::mem::replace(&mut self.at.phase, phase) != phase {
                // Another phase's steps have another pace.
                pace = pace.map(|_| Pace::default());
            }
            let after = self.job.plan().progress(self.at.step + 1, self.at.seconds + last_step_seconds);
            let lr = self.job.lr(self.reached().progress, after);
            let outcome = self.job.step(&mut self.trainer, &self.at, lr)?;

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
            let before = std::mem::replace(&mut reached, self.reached());
            let due = self.job.due(before, reached);
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
                    progress: reached.progress,
                    seconds_left: plan.seconds_left(progress_before, reached.progress, session_seconds),
                }));
                if due.log {
                    self.at.window = Window::new(self.job.terms());
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
            let stopped = stop.load(Ordering::Relaxed);
            if self.is_over() {
                continue;
            }
            if stopped {
                return self.interrupted();
            }
            // While steps are skipped the weights are suspect.
            let sound = self.at.skipped_in_a_row == 0;
            let wanted = due.checkpoint || J::KEEP == Keep::Best && due.evaluation;
            if is_best || sound && wanted {
                self.save()?;
            }
        }
    }

    fn reached(&self) -> Reached {
        self.job.plan().reached(self.at.step, self.at.seconds)
    }

    /// Whether the run is over: also where the time that is left is less than half of what the next step would take.
    fn is_over(&self) -> bool {
        let (plan, step, seconds) = (self.job.plan(), self.at.step, self.at.seconds);
        let next = self.step_seconds[plan.phase_at(step, seconds)];
        let is_late = plan.total_seconds().is_some_and(|all| all - seconds < 0.5 * next);
        plan.is_over(step, seconds) || is_late || self.is_out_of_patience()
    }

    fn is_out_of_patience(&self) -> bool {
        self.job.patience().is_some_and(|most| self.at.worse >= most)
    }

    /// Logs a message and says it.
    fn log_message(&mut self, message: String) -> Result<(), J::Error> {
        self.note(message.clone())?;
        (self.on_event)(&Event::Message(message));
        Ok(())
    }

    /// Logs a message that the outcome says as well.
    fn note(&mut self, message: String) -> Result<(), J::Error> {
        Ok(self.log.write(&Line::Event(EventLine { step: self.at.step, message }))?)
    }

    fn log(&mut self, figures: &J::Figures) -> Result<(), J::Error> {
        self.logged = Some(self.at.step);
        self.job.log_figures(&mut self.log, figures)
    }

    /// Logs the steps since the last line where a session ends. They stay in the window: a run that goes on drops this line and
    /// logs them with those that complete their interval, as if it had not stopped.
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

    /// A step whose loss or gradient is not finite: said, counted, and after several in a row the end.
    fn skip(&mut self, outcome: &StepOutcome) -> Result<(), J::Error> {
        self.at.skipped_in_a_row += 1;
        let (step, in_a_row) = (self.at.step, self.at.skipped_in_a_row);
        let what = if outcome.update.losses.is_finite() { "gradient" } else { "loss" };
        self.log_message(format!(
            "step {step}: the {what} is not finite: skipped ({in_a_row} of at most {MOST_SKIPPED} in a row)"
        ))?;
        if in_a_row < MOST_SKIPPED {
            return Ok(());
        }
        let last = self.saved.map(|step| checkpoint::path_of(&self.folder, step));
        Err(self.job.not_finite(&self.at, last))
    }

    /// Evaluates; whether this is the best so far. None if `stop` was raised.
    fn evaluate(&mut self, stop: &AtomicBool) -> Result<Option<bool>, J::Error> {
        let Some(evaluation) = self.job.evaluate(&self.trainer, &self.at, stop)? else {
            self.at.owes_evaluation = true;
            return Ok(None);
        };
        self.at.owes_evaluation = false;
        self.at.evaluated = self.at.step;
        let score = J::score(&evaluation);
        let best = score.is_some_and(|score| is_better(score, self.at.best.map(|(_, score)| score)));
        if best {
            self.at.best = score.map(|score| (self.at.step, score));
            self.at.worse = 0;
        } else {
            self.at.worse += 1;
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

    /// Saves a checkpoint of this step, and says so, unless it is saved.
    fn save(&mut self) -> Result<PathBuf, J::Error> {
        let step = self.at.step;
        let is_new = self.saved != Some(step);
        let path = self.write_checkpoint()?;
        if is_new {
            (self.on_event)(&Event::Saved { step, path: path.clone() });
        }
        Ok(path)
    }

    /// Saves a checkpoint of this step, unless it is saved; keeps the newest and the best.
    fn write_checkpoint(&mut self) -> Result<PathBuf, J::Error> {
        let (step, path) = (self.at.step, checkpoint::path_of(&self.folder, self.at.step));
        if self.saved == Some(step) {
            return Ok(path);
        }
        self.log.sync()?;
        let Trainer { network, moments, .. } = &self.trainer;
        checkpoint::save(&self.folder, step, network, moments, self.tokenizer, &self.job.state(&self.at))?;
        self.saved = Some(step);
        let best = self.at.best.map(|(step, _)| step).filter(|_| J::KEEP == Keep::Last);
        if best == Some(step) {
            checkpoint::mark_best(&self.folder, step)?;
        }
        // A checkpoint whose weights are suspect must not push a good one out.
        if self.at.skipped_in_a_row == 0 {
            checkpoint::prune(&self.folder, self.job.checkpoints_kept(), best)?;
        }
        Ok(path)
    }

    fn save_model(&self) -> Result<(), J::Error> {
        checkpoint::save_model(&self.folder, &self.trainer.network, self.tokenizer)?;
        Ok(())
    }

    fn interrupted(mut self) -> Result<Ended<J>, J::Error> {
        self.log_rest()?;
        self.note(self.job.interruption(&self.at))?;
        if self.at.owes_evaluation {
            // The checkpoint of this step, if there is one, does not know of it.
            self.saved = None;
        }
        let checkpoint = self.write_checkpoint()?;
        if J::KEEP == Keep::Last {
            self.save_model()?;
        }
        Ok(self.ended(false, Some(checkpoint)))
    }

    fn finish(mut self, stop: &AtomicBool) -> Result<Ended<J>, J::Error> {
        if self.job.evaluates() && self.at.step > self.at.evaluated {
            self.log_rest()?;
            if self.evaluate(stop)?.is_none() {
                return self.interrupted();
            }
            // The checkpoint of this step, if there is one, does not know of it.
            self.saved = None;
        }
        self.log_rest()?;
        if self.is_out_of_patience() {
            let (step, worse) = (self.at.step, self.at.worse);
            self.log_message(format!("stopped after step {step}: no better score in {worse} evaluations"))?;
        }
        self.job.finish(&self.folder, &self.at)?;
        match J::KEEP {
            Keep::Last => {
                // Also where this session took no step: the run may have been interrupted before, or the line above is new.
                self.note(format!("finished after step {}", self.at.step))?;
                // The last step may have ended a little early: resumed, the run is over.
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
                // What the run could be resumed from is only in the way. Renamed first: a run killed now is over or is not.
                let (checkpoints, aside) = (self.folder.checkpoints(), self.folder.root().join(CHECKPOINTS_ASIDE));
                fs::rename(&checkpoints, &aside)
                    .and_then(|()| fs::remove_dir_all(&aside))
                    .map_err(|e| TrainError::io("remove", &checkpoints, e))?;
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
    fn r29_the_loss_decides_where_no_score_is_a_number() {
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
