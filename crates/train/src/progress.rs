//! What a watcher of a run is told, for bars and messages. Everything that matters is in the logs too.

use std::path::PathBuf;

use crate::run::{EvalLine, StartLine, TrainLine};

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Training is about to start, or to go on.
    Start(StartLine),
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
    /// Steps of the run, if it is counted in steps.
    pub total_steps: Option<u64>,
    /// Share of the run that is done, 0 to 1: by steps or by the clock, as the recipe says.
    pub progress: f64,
    /// Seconds until the end at the pace of this session.
    pub seconds_left: Option<f64>,
}
