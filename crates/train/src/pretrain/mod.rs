//! Pre-training: a recipe → a model.
//!
//! | file | what it does |
//! | --- | --- |
//! | `job.rs` | a pre-training as a [`Job`](crate::train_loop::Job) of the training loop |
//! | `corpus.rs` | the shards: training and held-out batches |
//! | `resolved.rs` | its recipe: resolved, stored in its folder, compared when it is resumed; its device |
//! | `estimate.rs`, `dry_run.rs` | estimates of its duration |
//! | `find_lr.rs` | the learning-rate range test |
//!
//! A run's model/ is written at its end, and when it is interrupted.

mod corpus;
mod dry_run;
mod estimate;
mod find_lr;
mod job;
mod resolved;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cloze_engine::Device;

use crate::TrainError;
use crate::objective::{CausalLm, MaskedLm};
use crate::recipe::{ObjectiveKind, Recipe};
use crate::run::RunFolder;

pub use dry_run::DryRun;
pub use estimate::{Estimate, PhaseEstimate};
pub use find_lr::{LrRange, LrStep, LrTest};
pub use job::{Best, Outcome, PretrainEvent, State};
pub use resolved::device_of_run;

/// Runs a recipe in a folder, from the start or from the last checkpoint, on the device of [`device_of_run`]. If `stop`
/// is set, the current step is finished and saved. `on_event` is called for every event.
///
/// # Errors
/// Any [`TrainError`]. Checkpoints that were saved before are complete.
pub fn pretrain(
    recipe: &Recipe,
    device: &Device,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&PretrainEvent),
) -> Result<Outcome, TrainError> {
    let folder = RunFolder::new(out);
    let recipe = &resolved::resolve(recipe, device, resume.then_some(&folder))?;
    match recipe.objective.kind {
        ObjectiveKind::MaskedLm => {
            let objective = MaskedLm { nsp: recipe.has_pairs() };
            job::pretrain(objective, recipe, device, folder, resume, stop, on_event)
        }
        ObjectiveKind::CausalLm => job::pretrain(CausalLm, recipe, device, folder, resume, stop, on_event),
    }
}

/// Checks everything that [`pretrain`] checks, measures some steps of each phase and estimates the duration of the run,
/// without writing anything. The peak memory of the process is then that of the run. `None` if `stop` was set.
///
/// # Errors
/// The errors of `pretrain` before its first step.
pub fn dry_run(
    recipe: &Recipe,
    device: &Device,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
) -> Result<Option<DryRun>, TrainError> {
    let folder = RunFolder::new(out);
    let recipe = &resolved::resolve(recipe, device, resume.then_some(&folder))?;
    match recipe.objective.kind {
        ObjectiveKind::MaskedLm => {
            let objective = MaskedLm { nsp: recipe.has_pairs() };
            dry_run::dry_run(objective, recipe, device, &folder, resume, stop)
        }
        ObjectiveKind::CausalLm => dry_run::dry_run(CausalLm, recipe, device, &folder, resume, stop),
    }
}

/// The learning-rate range test of a recipe, from its initial network, without writing anything. `on_step` is called
/// after each step. If `stop` is set, the test ends after the current step.
///
/// # Errors
/// A setting of `range` that is invalid; the errors of [`pretrain`] before its first step, except for those of its folder.
pub fn find_lr(
    recipe: &Recipe,
    device: &Device,
    range: &LrRange,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(&LrStep),
) -> Result<LrTest, TrainError> {
    let recipe = &resolved::resolve(recipe, device, None)?;
    match recipe.objective.kind {
        ObjectiveKind::MaskedLm => {
            let objective = MaskedLm { nsp: recipe.has_pairs() };
            find_lr::find_lr(&objective, recipe, device, range, stop, on_step)
        }
        ObjectiveKind::CausalLm => find_lr::find_lr(&CausalLm, recipe, device, range, stop, on_step),
    }
}
