//! A fine-tuning run, and a dry run.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_text::Tokenizer;
use cloze_train::checkpoint;
use cloze_train::pace::measure;
use cloze_train::run::RunFolder;
use cloze_train::step::Trainer;
use cloze_train::train_loop::{LoopState, TrainLoop};
use serde_json::{Value, json};

use super::config::FineTuneConfig;
use super::events::{Estimate, FineTuneEvent, Outcome, Start};
use super::job::{FineTuningJob, Learner, State, StoredScores};
use super::resume::{
    check_settings, instruction_set_note, is_finished, remove_leftovers, restored_precision, settings_file,
};
use super::rows::EncodedRows;
use super::task_learner::{Prepared, prepare};
use crate::TaskError;
use crate::example::Example;

/// Paths as Unicode strings, for JSON.
pub(crate) fn display_names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

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
    let (folder, device) = (RunFolder::new(config.out), config.device);
    let mut settings = config.settings.clone();
    let (mut lock, mut newest, mut messages) = (None, None, Vec::new());
    messages.extend(rows.tokenizer.special_names_note());
    if config.resume {
        let started = check_settings(&folder, &settings)?;
        rows.data.check(config.out)?;
        if is_finished(&folder) {
            return outcome_of(&folder);
        }
        let (held, found) = checkpoint::resume(&folder)?;
        (lock, newest) = (Some(held), found);
        settings.precision = restored_precision(&started, &settings);
        messages.extend(instruction_set_note(&started, device));
    } else {
        folder.check_new()?;
    }
    settings.precision = settings.precision.resolved(device);
    settings.instruction_set = Some(device.instruction_set().to_owned());
    let newest = newest.as_ref().map(|(_, path)| path.as_path());
    let Prepared { job, trainer, at, load_report, notes } = prepare(config, &rows, &settings, newest)?;

    let lock = match lock {
        Some(lock) => lock,
        None => {
            let lock = folder.create()?;
            rows.data.write(config.out)?;
            cloze_files::write(&settings_file(config.out), settings.to_toml()?.as_bytes())?;
            lock
        }
    };
    let precision = trainer.precision();
    let start = Start {
        machine: format!("{}, {} ({})", device.describe(), precision.name(), device.explain(precision)),
        step: at.step,
        steps: job.steps(),
        examples: rows.examples.len(),
        tokens: rows.examples.iter().map(Example::length).sum(),
        cut_rows: rows.cut_rows,
        load_report,
        notes,
    };
    let line = json!({
        "kind": "start",
        "step": start.step,
        "steps": start.steps,
        "examples": start.examples,
        "tokens": start.tokens,
        "train_rows": config.train.len(),
        "train_files": display_names(config.files[0]),
        "dev_rows": config.dev.len(),
        "dev_files": display_names(config.files[1]),
        "model": config.model.display().to_string(),
        "cut_rows": start.cut_rows,
        "parameters": trainer.network.parameter_count(),
        "machine": device.describe(),
        "precision": precision.name(),
        "reason": device.explain(precision),
        "threads": device.threads(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let run = (folder.clone(), lock);
    run_to_end(job, trainer, &rows.tokenizer, run, at, (&line, start, messages), stop, on_event)
}

/// Trains to the end of a run whose folder exists and is locked. `start` has the first line of the log, the first event and
/// messages that follow it.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run_to_end<L: Learner>(
    job: FineTuningJob<'_, L>,
    trainer: Trainer<L::Network>,
    tokenizer: &Tokenizer,
    run: (RunFolder, File),
    at: LoopState,
    start: (&Value, Start, Vec<String>),
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&FineTuneEvent),
) -> Result<Outcome, TaskError> {
    let model = run.0.model();
    let mut training = TrainLoop::open(job, trainer, tokenizer, run, at, on_event)?;
    training.log_start(start.0, start.1, start.2)?;
    let ended = training.run(stop)?;
    Ok(Outcome {
        finished: ended.finished,
        model: model.is_dir().then_some(model),
        best: ended.job.best,
        train_seconds: ended.job.train_seconds,
        steps: ended.at.step,
    })
}

/// The outcome of a finished run. It may have been killed before its checkpoints were removed.
pub(crate) fn outcome_of(folder: &RunFolder) -> Result<Outcome, TaskError> {
    let _lock = folder.lock()?;
    remove_leftovers(folder)?;
    let StoredScores { best, train_seconds, steps } = StoredScores::read(folder)?;
    let model = folder.model();
    Ok(Outcome { finished: true, model: model.is_dir().then_some(model), best, train_seconds, steps })
}

/// Makes the same checks as [`finetune`], runs a few steps and estimates the duration of the run, or of the rest of a
/// resumed run. Nothing is written. None if `stop` was set before the estimate was complete.
///
/// # Errors
/// Those of `finetune` before its first evaluation.
pub fn dry_run(config: &FineTuneConfig<'_>, stop: &AtomicBool) -> Result<Option<Estimate>, TaskError> {
    let folder = RunFolder::new(config.out);
    let rows = EncodedRows::new(config)?;
    let (mut settings, mut done) = (config.settings.clone(), 0);
    if config.resume {
        let started = check_settings(&folder, &settings)?;
        rows.data.check(config.out)?;
        settings.precision = restored_precision(&started, &settings);
        if is_finished(&folder) {
            let nothing = Estimate { steps: 0, step_seconds: 0.0, evaluations: 0, seconds: 0.0 };
            return Ok(Some(nothing));
        }
        if let Some((_, path)) = checkpoint::list(&folder)?.pop() {
            done = checkpoint::verify::<State>(&path)?.step;
        }
    } else {
        folder.check_new()?;
    }
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
