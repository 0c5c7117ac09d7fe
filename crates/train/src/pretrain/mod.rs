//! Pre-training: a recipe → a model.
//!
//! | file | what it does |
//! | --- | --- |
//! | `job.rs` | a pre-training as a [`Job`](crate::train_loop::Job) of the training loop |
//! | `corpus.rs` | the text that it learns from and is judged by |
//! | `settled.rs` | its recipe: settled, kept in its folder, compared when it is resumed; its device |
//! | `estimate.rs`, `dry_run.rs` | how long it takes |
//!
//! A run's model/ is written at its end, and where it is interrupted.

mod corpus;
mod dry_run;
mod estimate;
mod job;
mod settled;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cloze_engine::Device;

use crate::TrainError;
use crate::objective::{CausalLm, MaskedLm};
use crate::recipe::{ObjectiveKind, Recipe};
use crate::run::RunFolder;

pub use dry_run::DryRun;
pub use estimate::{Estimate, PhaseEstimate};
pub use job::{Best, Outcome, PretrainEvent, State};
pub use settled::device_of_run;

/// Runs a recipe in a folder, from the start or from the last checkpoint, on the device of [`device_of_run`]. When `stop` is raised the
/// step is finished and saved. `on_event` is called for what happens.
///
/// # Errors
/// Anything that [`TrainError`] can say. Checkpoints already saved stay whole.
pub fn pretrain(
    recipe: &Recipe,
    device: &Device,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&PretrainEvent),
) -> Result<Outcome, TrainError> {
    let folder = RunFolder::new(out);
    let recipe = &settled::settle(recipe, device, &folder, resume)?;
    match recipe.objective.kind {
        ObjectiveKind::MaskedLm => {
            let objective = MaskedLm { nsp: recipe.has_pairs() };
            job::pretrain(objective, recipe, device, folder, resume, stop, on_event)
        }
        ObjectiveKind::CausalLm => job::pretrain(CausalLm, recipe, device, folder, resume, stop, on_event),
    }
}

/// Checks everything that [`pretrain`] checks, measures some steps of each phase and says how long the run would take. Nothing is
/// written. The memory that the process then has held is what the run needs. None if `stop` was raised.
///
/// # Errors
/// Those of `pretrain` before its first step.
pub fn dry_run(
    recipe: &Recipe,
    device: &Device,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
) -> Result<Option<DryRun>, TrainError> {
    let folder = RunFolder::new(out);
    let recipe = &settled::settle(recipe, device, &folder, resume)?;
    match recipe.objective.kind {
        ObjectiveKind::MaskedLm => {
            let objective = MaskedLm { nsp: recipe.has_pairs() };
            dry_run::dry_run(objective, recipe, device, &folder, resume, stop)
        }
        ObjectiveKind::CausalLm => dry_run::dry_run(CausalLm, recipe, device, &folder, resume, stop),
    }
}
