//! What a watcher of a run is told, for bars and messages. Everything that matters is in the logs too.

use std::path::PathBuf;

use crate::recipe::plan::End;
use crate::run::{EvalLine, StartLine, TrainLine};

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Training is about to start, or to go on.
    Start(StartLine),
    /// How long it will take, as soon as some steps have shown it.
    Estimate(Estimate),
    /// A step is done.
    Step(StepNews),
    /// The held-out shards were scored.
    Eval(EvalLine),
    /// A checkpoint was saved.
    Saved {
        /// After this step.
        step: u64,
        /// Its folder.
        path: PathBuf,
    },
    /// Anything else worth a line: a step skipped, an interrupt.
    Message(String),
}

/// A step's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct StepNews {
    /// Means since the last logged line, this step included.
    pub figures: TrainLine,
    /// What will end the run.
    pub end: End,
    /// Share of the run that is done, 0 to 1: by steps or by the clock, as the recipe says.
    pub progress: f64,
    /// Seconds until the end at the pace of this session.
    pub seconds_left: Option<f64>,
}

/// How long a run takes, or the rest of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Each phase.
    pub phases: Vec<PhaseEstimate>,
    /// Seconds in all, evaluations among them.
    pub seconds: f64,
}

/// What a phase has still to go.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseEstimate {
    /// Tokens of a sequence at most.
    pub seq_len: usize,
    /// Real tokens of a step.
    pub step_tokens: f64,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Steps.
    pub steps: f64,
    /// Seconds of all its steps.
    pub seconds: f64,
}

impl Estimate {
    /// Steps in all.
    pub fn steps(&self) -> f64 {
        self.phases.iter().map(|phase| phase.steps).sum()
    }

    /// Real tokens in all.
    pub fn tokens(&self) -> f64 {
        self.phases.iter().map(|phase| phase.steps * phase.step_tokens).sum()
    }

    /// Real tokens a second of training.
    pub fn tokens_per_s(&self) -> f64 {
        let seconds: f64 = self.phases.iter().map(|phase| phase.seconds).sum();
        self.tokens() / seconds.max(f64::MIN_POSITIVE)
    }
}
