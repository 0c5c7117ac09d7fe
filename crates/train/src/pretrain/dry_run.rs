//! How long a run would take, by real steps of each phase. Nothing is written.

use std::sync::atomic::{AtomicBool, Ordering};

use cloze_data::shards::Split;
use cloze_engine::Device;

use super::corpus::Corpus;
use super::estimate::{Cost, Estimate, estimate};
use super::job::begin;
use super::settled::check_resumed;
use crate::TrainError;
use crate::checkpoint;
use crate::network::Network;
use crate::objective::{Objective, learn};
use crate::pace::measure;
use crate::plan::End;
use crate::recipe::Recipe;
use crate::run::RunFolder;

/// What a run would be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DryRun {
    /// How long it takes, by real steps of each phase.
    pub estimate: Estimate,
    /// What will end it.
    pub end: End,
    /// Steps that the run in the folder has done already, if it would go on.
    pub step: u64,
    /// The device in words.
    pub machine: String,
    /// `bf16` or `f32`.
    pub precision: String,
    /// Why this instruction set and this type, in words.
    pub reason: String,
    /// Weights of the model.
    pub parameters: usize,
    /// Tokens of the training shards.
    pub corpus_tokens: u64,
    /// What the run would say before its first step.
    pub messages: Vec<String>,
}

/// The dry run of an objective. `recipe` is settled.
pub(super) fn dry_run<O: Objective>(
    objective: O,
    recipe: &Recipe,
    device: &Device,
    folder: &RunFolder,
    resume: bool,
    stop: &AtomicBool,
) -> Result<Option<DryRun>, TrainError> {
    let corpus = Corpus::open(recipe)?;
    let mut messages = corpus.check(recipe, &objective)?;
    let mut newest = None;
    if resume {
        check_resumed(folder, recipe)?;
        newest = checkpoint::list(folder)?.pop();
    } else {
        folder.check_new()?;
    }
    let newest = newest.as_ref().map(|(_, path)| path.as_path());
    let beginning = begin(&objective, recipe, &corpus, device, newest)?;
    messages.extend(beginning.messages);
    let (mut trainer, at) = (beginning.trainer, beginning.at);
    let stopped = || stop.load(Ordering::Relaxed);
    let mut costs = Vec::new();
    for (number, phase) in recipe.phase.iter().enumerate() {
        let source = corpus.phase_source(recipe, &objective, number)?;
        let micro = [0, 1].map(|index| objective.batch(source.batch(index)));
        let mut step = |batches: &[O::Batch]| learn(&objective, &mut trainer, batches, 0, 0.0).update.seconds;
        let Some(rate) = measure(u64::MAX, stopped, |_| Ok::<_, TrainError>((1, step(&micro[..1]))))? else {
            return Ok(None);
        };
        let mut seconds = 1.0 / rate;
        let count = f64::from(phase.accumulate);
        if phase.accumulate > 1 {
            // What a micro-batch adds: the optimizer's part of a step comes once.
            let more = step(&micro) - seconds;
            seconds += (count - 1.0) * more.clamp(0.5 * seconds, seconds);
            if stopped() {
                return Ok(None);
            }
        }
        costs.push(Cost { tokens: count * objective.inputs(&micro[0]).tokens() as f64, seconds });
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
