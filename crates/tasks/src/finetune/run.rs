//! A fine-tuning run, and a dry run.

use std::sync::atomic::{AtomicBool, Ordering};

use cloze_comm::Communicator;
use cloze_text::Tokenizer;
use cloze_train::pace::measure;
use cloze_train::step::Trainer;
use cloze_train::train_loop::{LoopState, TrainLoop};
use serde_json::Value;

use super::config::FineTuneConfig;
use super::events::{Estimate, FineTuneEvent, Outcome, Start};
use super::job::{FineTuningJob, Learner};
use super::opening::{Created, Opened, Opening, StartFacts, completed_steps, machine, nothing_left, start_line};
use super::rows::EncodedRows;
use super::task_learner::{Prepared, prepare};
use crate::TaskError;
use crate::example::Example;
use crate::settings::Settings;

/// Fine-tunes a model. When `stop` is set, the current step is completed and a checkpoint is saved. `on_event` receives
/// the events of the run.
///
/// # Errors
/// Settings, rows or a checkpoint that cannot be used; a loss that is not finite; a full disk. Files that were saved
/// before an error remain valid.
pub fn finetune(
    config: &FineTuneConfig<'_>,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&FineTuneEvent),
) -> Result<Outcome, TaskError> {
    // Errors of the input are found before the run folder is created or changed.
    let rows = EncodedRows::new(config)?;
    let (mut settings, device) = (config.settings.clone(), config.device);
    let new = (config.out, config.resume, config.ranks);
    let opened = Opening::of_run(new, &mut settings, &rows.data, device, &rows.tokenizer)?;
    check_micro_batches(&settings, config.ranks)?;
    let opening = match opened {
        Opened::Finished(outcome) => return Ok(outcome),
        Opened::Unfinished(opening) => opening,
    };
    let Prepared { job, trainer, at, load_report, notes } = prepare(config, &rows, &settings, opening.newest())?;
    let created = opening.create(&settings, &rows.data)?;
    let precision = trainer.precision();
    let start = Start {
        machine: machine(device, precision),
        step: at.step,
        steps: job.steps(),
        examples: rows.examples.len(),
        tokens: rows.examples.iter().map(Example::length).sum(),
        cut_rows: rows.cut_rows,
        load_report,
        notes,
    };
    let facts = StartFacts {
        rows: [config.train.len(), config.dev.len()],
        files: config.files,
        model: config.model,
        parameters: trainer.network.parameter_count(),
    };
    let line = start_line(&start, &facts, device, precision);
    run_to_end(job, trainer, &rows.tokenizer, created, at, (&line, start), stop, on_event)
}

/// Checks that each rank has a micro-batch of each step.
fn check_micro_batches(settings: &Settings, ranks: &Communicator) -> Result<(), TaskError> {
    if settings.accumulate < ranks.size() {
        return Err(TaskError::setting(
            "accumulate",
            format!(
                "expected at least {}, one micro-batch of each step for each rank, found {}",
                ranks.size(),
                settings.accumulate
            ),
        ));
    }
    Ok(())
}

/// Trains to the end of a run. `start` has the first line of the log and the first event.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run_to_end<L: Learner>(
    job: FineTuningJob<'_, L>,
    trainer: Trainer<L::Network>,
    tokenizer: &Tokenizer,
    created: Created,
    at: LoopState,
    start: (&Value, Start),
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&FineTuneEvent),
) -> Result<Outcome, TaskError> {
    let Created { folder, lock, messages } = created;
    let model = folder.model();
    let mut training = TrainLoop::open(job, trainer, tokenizer, (folder, lock), at, on_event)?;
    training.log_start(start.0, start.1, messages)?;
    let ended = training.run(stop)?;
    Ok(Outcome {
        finished: ended.finished,
        model: model.is_dir().then_some(model),
        best: ended.job.best,
        train_seconds: ended.job.train_seconds,
        steps: ended.at.step,
    })
}

/// Makes the same checks as [`finetune`], runs a few steps and estimates the duration of the run, or of the rest of a
/// resumed run. Nothing is written. None if `stop` was set before the estimate was complete.
///
/// # Errors
/// Those of `finetune` before its first evaluation.
pub fn dry_run(config: &FineTuneConfig<'_>, stop: &AtomicBool) -> Result<Option<Estimate>, TaskError> {
    let (rows, mut settings) = (EncodedRows::new(config)?, config.settings.clone());
    let Some(done) = completed_steps(config.out, config.resume, &mut settings, &rows.data)? else {
        return Ok(Some(nothing_left()));
    };
    let Prepared { job, mut trainer, .. } = prepare(config, &rows, &settings, None)?;
    estimate(&job, &mut trainer, settings.batch, done, stop)
}

/// Runs a few steps, and estimates the duration of the steps after `done`. None if `stop` was set.
pub(crate) fn estimate<L: Learner>(
    job: &FineTuningJob<'_, L>,
    trainer: &mut Trainer<L::Network>,
    batch: usize,
    done: u64,
    stop: &AtomicBool,
) -> Result<Option<Estimate>, TaskError> {
    let count = job.learner().examples();
    let rate = measure(
        job.steps(),
        || stop.load(Ordering::Relaxed),
        |number| {
            let chosen: Vec<usize> = (0..batch.min(count)).map(|i| (number as usize * batch + i) % count).collect();
            let outcome = job.learner().learn(trainer, &chosen, number, job.lr_of(number));
            if outcome.update.losses.is_finite() {
                Ok((outcome.tokens, outcome.update.seconds))
            } else {
                Err(TaskError::NotFinite { step: number + 1 })
            }
        },
    )?;
    Ok(rate.map(|rate| job.remaining(done, rate)))
}
