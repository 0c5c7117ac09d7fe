//! Estimates the duration of a run from real steps of each phase, without writing anything.

use std::sync::atomic::{AtomicBool, Ordering};

use cloze_comm::Communicator;
use cloze_data::shards::Split;
use cloze_engine::Device;

use super::corpus::Corpus;
use super::estimate::{Cost, Estimate, estimate};
use super::job::{MEAN_PROGRESS, initial_state};
use super::resolved::check_resumed;
use crate::TrainError;
use crate::checkpoint;
use crate::network::Network;
use crate::objective::{PhaseObjectives, train_step};
use crate::pace::measure;
use crate::plan::End;
use crate::recipe::Recipe;
use crate::run::RunFolder;

/// The result of a dry run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DryRun {
    /// The estimated duration, from real steps of each phase.
    pub estimate: Estimate,
    /// What will end the run.
    pub end: End,
    /// Number of steps that the run to resume has already done; 0 for a new run.
    pub step: u64,
    /// The device: kind, instruction set, threads.
    pub machine: String,
    /// `bf16` or `f32`.
    pub precision: String,
    /// Why this instruction set and this type are used.
    pub reason: String,
    /// Number of weights of the model.
    pub parameters: usize,
    /// Number of tokens of the training shards.
    pub corpus_tokens: u64,
    /// Messages that the run would report before its first step.
    pub messages: Vec<String>,
}

/// The dry run of these objectives. `recipe` must be resolved.
pub(super) fn dry_run<N: Network, B>(
    objectives: &PhaseObjectives<N, B>,
    recipe: &Recipe,
    device: &Device,
    folder: &RunFolder,
    resume: bool,
    stop: &AtomicBool,
) -> Result<Option<DryRun>, TrainError> {
    let corpus = Corpus::open(recipe)?;
    let mut messages = corpus.check(recipe, objectives)?;
    let mut newest = None;
    if resume {
        check_resumed(folder, recipe)?;
        newest = checkpoint::list(folder)?.pop();
    } else {
        folder.check_new()?;
    }
    let newest = newest.as_ref().map(|(_, path)| path.as_path());
    let initial = initial_state(objectives, recipe, &corpus, device, newest, &Communicator::single())?;
    messages.extend(initial.messages);
    let (mut trainer, at) = (initial.trainer, initial.at);
    let stopped = || stop.load(Ordering::Relaxed);
    let mut costs = Vec::new();
    for (number, phase) in recipe.phase.iter().enumerate() {
        let objective = &*objectives[number];
        objective.prepare(&mut trainer.network);
        let source = corpus.phase_source(recipe, objective, number)?;
        let micro = [0, 1].map(|index| objective.batch(source.mask(source.unmasked(index), MEAN_PROGRESS)));
        let mut step =
            |batches: &[B]| train_step(objective, &mut trainer, batches, batches.len(), 0, 0.0).update.seconds;
        let Some(rate) = measure(u64::MAX, stopped, |_| Ok::<_, TrainError>((1, step(&micro[..1]))))? else {
            return Ok(None);
        };
        let seconds = 1.0 / rate;
        let mut additional = seconds;
        if phase.accumulate > 1 {
            // Less than the first micro-batch: the optimizer runs only once per step.
            additional = (step(&micro) - seconds).clamp(0.5 * seconds, seconds);
            if stopped() {
                return Ok(None);
            }
        }
        let tokens = objective.inputs(&micro[0]).tokens() as f64;
        let forward_share = objective.forward_share(&trainer.network, &micro[0]);
        costs.push(Cost { tokens, seconds, additional, forward_share });
    }
    let estimate = estimate(recipe, at.step, at.seconds, &costs);
    let last = (at.step + estimate.steps().round() as u64, at.seconds + estimate.seconds);
    Ok(Some(DryRun {
        end: recipe.plan().end(last.0, last.1),
        estimate,
        step: at.step,
        machine: device.describe(),
        precision: recipe.precision.name().to_owned(),
        reason: device.explain(trainer.precision()),
        parameters: trainer.network.params().count(),
        corpus_tokens: corpus.shards.split(Split::Train).tokens(),
        messages,
    }))
}
