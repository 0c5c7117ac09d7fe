//! Pre-training: a recipe → a model.
//!
//! | file | what it does |
//! | --- | --- |
//! | `job.rs` | a pre-training as a [`Job`](crate::train_loop::Job) of the training loop |
//! | `corpus.rs` | the shards: training and held-out batches |
//! | `resolved.rs` | its recipe: resolved, stored in its folder, compared when it is resumed; its device |
//! | `estimate.rs`, `dry_run.rs` | estimates of its duration |
//! | `text.rs` | the text that it trains on: its fingerprint, the tokens of a step |
//! | `find_lr.rs` | the learning-rate range test |
//!
//! A run's model/ is written at its end, and when it is interrupted.

mod corpus;
mod dry_run;
mod estimate;
mod find_lr;
mod job;
mod resolved;
mod text;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cloze_comm::Communicator;
use cloze_engine::Device;
use cloze_model::{Model, RtdPair};

use crate::TrainError;
use crate::batch::PretrainBatch;
use crate::objective::{CausalLm, Distill, MaskedLm, Objective, ReplacedTokens};
use crate::recipe::{ObjectiveKind, Recipe};
use crate::run::RunFolder;

pub use dry_run::DryRun;
pub use estimate::{Estimate, PhaseEstimate};
pub use find_lr::{LrRange, LrStep, LrTest};
pub use job::{Best, Outcome, PretrainEvent, State};
pub use resolved::device_of_run;
pub use text::TextOfRun;

/// Runs a recipe in a folder, from the start or from the last checkpoint, on the device of [`device_of_run`]. If `stop`
/// is set, the current step is finished and saved. `on_event` is called for every event.
///
/// All `ranks` of a job call it with the same arguments, each on its device. Rank 0 writes the folder; to resume a run, all must see it.
///
/// # Errors
/// Any [`TrainError`]. Checkpoints that were saved before are complete.
pub fn pretrain(
    recipe: &Recipe,
    device: &Device,
    out: &Path,
    resume: bool,
    ranks: &Communicator,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&PretrainEvent),
) -> Result<Outcome, TrainError> {
    let folder = RunFolder::new(out);
    let recipe = &resolved::resolve_for(ranks, recipe, device, resume.then_some(&folder))?;
    match recipe.objective.kind {
        ObjectiveKind::Rtd => job::pretrain(&rtd(recipe), recipe, device, (folder, resume), ranks, stop, on_event),
        _ => job::pretrain(&objectives(recipe, device)?, recipe, device, (folder, resume), ranks, stop, on_event),
    }
}

/// Replaced-token detection in each phase.
fn rtd(recipe: &Recipe) -> Vec<Box<dyn Objective<Network = RtdPair, Batch = PretrainBatch>>> {
    recipe.phase.iter().map(|_| Box::new(ReplacedTokens) as _).collect()
}

/// The objective of each phase.
fn objectives(
    recipe: &Recipe,
    device: &Device,
) -> Result<Vec<Box<dyn Objective<Network = Model, Batch = PretrainBatch>>>, TrainError> {
    if recipe.objective.kind != ObjectiveKind::Distill {
        return Ok(without_teacher(recipe));
    }
    let distill = Distill::open(recipe, device)?;
    Ok(recipe.phase.iter().map(|_| Box::new(distill.clone()) as _).collect())
}

/// The objective of each phase; instead of a distillation, the objective that has the same batches but no teacher.
fn without_teacher(recipe: &Recipe) -> Vec<Box<dyn Objective<Network = Model, Batch = PretrainBatch>>> {
    let of_phase = |phase| -> Box<dyn Objective<Network = Model, Batch = PretrainBatch>> {
        match recipe.phase_objective(phase) {
            ObjectiveKind::CausalLm => Box::new(CausalLm),
            _ => Box::new(MaskedLm { pairs: recipe.pairs() }),
        }
    };
    (0..recipe.phase.len()).map(of_phase).collect()
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
        ObjectiveKind::Rtd => dry_run::dry_run(&rtd(recipe), recipe, device, &folder, resume, stop),
        _ => dry_run::dry_run(&objectives(recipe, device)?, recipe, device, &folder, resume, stop),
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
        ObjectiveKind::Rtd => find_lr::find_lr(&rtd(recipe), recipe, device, range, stop, on_step),
        _ => find_lr::find_lr(&objectives(recipe, device)?, recipe, device, range, stop, on_step),
    }
}

/// The text that a recipe trains on, from a sample of its batches. Nothing is trained.
///
/// # Errors
/// Shards that cannot be read, or that lack what the objective needs.
pub fn text_of_run(recipe: &Recipe) -> Result<TextOfRun, TrainError> {
    match recipe.objective.kind {
        ObjectiveKind::Rtd => text::text_of_run(&rtd(recipe), recipe),
        _ => text::text_of_run(&without_teacher(recipe), recipe),
    }
}
